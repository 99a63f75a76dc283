//! Clauses of the Change Request: `tests/clauses.tsv` against `clause!` in `src/` and `proves!` in `tests/`.
//!
//! Fails on an id cited or proved that the list lacks, on a `built` row without citation or proof, and on a `left` row that
//! is cited or has no reason. Prints the matrix and what is missing. `CLAUSES_BLESS=1` sets every `todo` row that is cited
//! and proved to `built`, and nothing else. `CONFORMANCE_WRITE=1` writes `docs/conformance.md` from the list and the sources; a test
//! fails where that is not current. Another holds `docs/threats.md` to tests that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A row of `tests/clauses.tsv`.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    id: String,
    level: String,
    state: String,
    gist: String,
    note: String,
}

/// Ids found after a macro's opening parenthesis, with file and line.
type Found = BTreeMap<String, Vec<String>>;

/// What the sources say about the list.
#[derive(Default)]
struct Trace {
    cited: Found,
    /// Proved in process: tests/conformance, tests/sim and the tests inside src.
    unit: Found,
    /// Proved over sockets: tests/loopback.
    sockets: Found,
}

impl Trace {
    fn proved(&self, id: &str) -> bool {
        self.unit.contains_key(id) || self.sockets.contains_key(id)
    }
}

fn rows(text: &str) -> Vec<Row> {
    text.lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_string);
            let mut cell = || cells.next().unwrap_or_default();
            Row { id: cell(), level: cell(), state: cell(), gist: cell(), note: cell() }
        })
        .collect()
}

/// String literals that follow `needle` up to the first token that is neither literal nor comma; comment lines do not count.
fn ids(place: &str, text: &str, needle: &str, found: &mut Found) {
    let code: Vec<&str> = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect();
    let code = code.join("\n");
    for (at, _) in code.match_indices(needle) {
        let line = code[..at].matches('\n').count() + 1;
        let mut rest = code[at + needle.len()..].trim_start();
        while let Some(literal) = rest.strip_prefix('"') {
            let Some((id, after)) = literal.split_once('"') else { break };
            found.entry(id.to_string()).or_default().push(format!("{place}:{line}"));
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or("").trim_start();
        }
    }
}

/// Every fault of the list against the sources, as sentences.
fn faults(rows: &[Row], trace: &Trace) -> Vec<String> {
    let mut faults = Vec::new();
    let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    if known.len() != rows.len() {
        faults.push("an id stands twice in tests/clauses.tsv".to_string());
    }
    for (what, found) in [("cited", &trace.cited), ("proved", &trace.unit), ("proved", &trace.sockets)] {
        for (id, places) in found.iter().filter(|(id, _)| !known.contains(id.as_str())) {
            faults.push(format!("{id} is {what} at {} but tests/clauses.tsv lacks it", places[0]));
        }
    }
    for row in rows {
        let cited = trace.cited.get(&row.id);
        match row.state.as_str() {
            "built" if cited.is_none() => faults.push(format!("{} is built but no clause! cites it", row.id)),
            "built" if !trace.proved(&row.id) => faults.push(format!("{} is built but no proves! proves it", row.id)),
            "left" if cited.is_some() => faults.push(format!("{} is left but cited", row.id)),
            "left" if row.note.is_empty() => faults.push(format!("{} is left without a reason", row.id)),
            "built" | "left" | "todo" => {}
            other => faults.push(format!("{} has the state {other:?}; built, todo and left are known", row.id)),
        }
        if !["SHALL", "SHOULD", "SHOULD NOT", "MAY", "DESIGN", "INFO"].contains(&row.level.as_str()) || row.gist.is_empty() {
            faults.push(format!("{} lacks a level or a gist", row.id));
        }
    }
    faults
}

/// Lines to be read by a person: the count, and what keeps the rest from being built.
fn matrix(rows: &[Row], trace: &Trace) -> String {
    let built: Vec<&Row> = rows.iter().filter(|row| row.state == "built").collect();
    let unit = built.iter().filter(|row| trace.unit.contains_key(&row.id)).count();
    let sockets = built.iter().filter(|row| trace.sockets.contains_key(&row.id)).count();
    let mut text =
        format!("clauses: {} built of {} ({unit} proved in unit, {sockets} proved over sockets)\n", built.len(), rows.len());
    let todo = |wanted: fn(bool, bool) -> bool| -> Vec<&str> {
        let open = rows.iter().filter(|row| row.state == "todo");
        open.filter(|row| wanted(trace.cited.contains_key(&row.id), trace.proved(&row.id))).map(|row| row.id.as_str()).collect()
    };
    for (what, ids) in [
        ("ready to be called built (CLAUSES_BLESS=1)", todo(|cited, proved| cited && proved)),
        ("cited, not proved", todo(|cited, proved| cited && !proved)),
        ("not cited", todo(|cited, _| !cited)),
    ] {
        if !ids.is_empty() {
            text += &format!("  {what} ({}): {}\n", ids.len(), ids.join(" "));
        }
    }
    for row in rows.iter().filter(|row| row.state == "left") {
        text += &format!("  left: {} ({})\n", row.id, row.note);
    }
    text
}

/// `docs/conformance.md`: a row for each clause, by section.
fn statement(rows: &[Row], trace: &Trace) -> String {
    let count = |state: &str| rows.iter().filter(|row| row.state == state).count();
    let mut text = format!(
        "# Conformance statement\n\n\
         Written by `CONFORMANCE_WRITE=1 cargo test --test traceability` from `tests/clauses.tsv`, from `clause!` in `src/` and from `proves!` in `tests/`; a test fails\n\
         where this page is not what it would write. A proof fails unless the program goes through the clause's step.\n\n\
         The Change Request has {} clauses: {} are built, {} are left out with a reason, {} are open.\n\n\
         * *in process*: a test of the procedure, of a scenario between scripted peers, or of a simulated world\n\
         * *on the wire*: a test of the program, with real sockets\n\n\
         | clause | level | what it asks, in our words | built in | proved |\n|---|---|---|---|---|\n",
        rows.len(),
        count("built"),
        count("left"),
        count("todo")
    );
    for row in rows {
        let places: BTreeSet<&str> =
            trace.cited.get(&row.id).into_iter().flatten().map(|place| place.split(':').next().unwrap_or(place)).collect();
        let places: Vec<String> = places.iter().map(|place| format!("`{}`", place.trim_start_matches("src/"))).collect();
        let proofs = [("in process", &trace.unit), ("on the wire", &trace.sockets)];
        let proved: Vec<&str> = proofs.iter().filter(|(_, found)| found.contains_key(&row.id)).map(|(how, _)| *how).collect();
        let (place, proved) = match row.state.as_str() {
            "built" => (places.join(" "), proved.join(", ")),
            state => (state.to_string(), row.note.clone()),
        };
        let gist = row.gist.replace('|', "\\|");
        text += &format!("| {} | {} | {gist} | {place} | {proved} |\n", row.id, row.level);
    }
    text
}

/// Names of tests that a document claims: what stands between backticks in the last cell of a table's rows.
fn claimed(document: &str) -> BTreeSet<&str> {
    let cells = document.lines().filter_map(|line| line.strip_prefix('|')?.trim_end().strip_suffix('|')?.rsplit('|').next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

fn trace(root: &Path) -> Trace {
    let mut trace = Trace::default();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    for file in files {
        let place = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let text = fs::read_to_string(&file).unwrap_or_default();
        if place == "tests/traceability.rs" {
            continue;
        }
        if place.starts_with("src/") {
            ids(&place, &text, "clause!(", &mut trace.cited);
        }
        let proofs = if place.starts_with("tests/loopback") { &mut trace.sockets } else { &mut trace.unit };
        ids(&place, &text, "proves!(", proofs);
    }
    trace
}

#[test]
fn every_clause_that_is_called_built_is_cited_and_proved() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = root.join("tests/clauses.tsv");
    let text = fs::read_to_string(&list).expect("tests/clauses.tsv is part of the repository");
    let mut rows = rows(&text);
    let trace = trace(root);
    if std::env::var_os("CLAUSES_BLESS").is_some() {
        for row in rows.iter_mut().filter(|row| row.state == "todo") {
            if trace.cited.contains_key(&row.id) && trace.proved(&row.id) {
                row.state = "built".to_string();
            }
        }
        let head = text.lines().next().unwrap_or_default();
        let cells = |row: &Row| [&row.id, &row.level, &row.state, &row.gist, &row.note].map(|cell| cell.as_str()).join("\t");
        let lines: Vec<String> = std::iter::once(head.to_string()).chain(rows.iter().map(cells)).collect();
        fs::write(&list, lines.join("\n") + "\n").expect("the list can be written where it was read");
    }
    // Past what the test runner holds back of a test that passes: `cargo test` shows the matrix.
    let told = writeln!(std::io::stdout(), "\n{}", matrix(&rows, &trace));
    told.expect("the matrix can be printed");
    assert_eq!(rows.len(), 319, "the Change Request has 319 clauses");
    let faults = faults(&rows, &trace);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_conformance_statement_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = rows(&fs::read_to_string(root.join("tests/clauses.tsv")).expect("tests/clauses.tsv is part of the repository"));
    let file = root.join("docs/conformance.md");
    let statement = statement(&rows, &trace(root));
    if std::env::var_os("CONFORMANCE_WRITE").is_some() {
        fs::write(&file, &statement).expect("the folder can be written");
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    let differs = there.lines().zip(statement.lines()).find(|(there, wanted)| there != wanted);
    assert!(there == statement, "run CONFORMANCE_WRITE=1 cargo test --test traceability; the first difference: {differs:#?}");
}

#[test]
fn every_threat_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/threats.md")).expect("docs/threats.md is part of the repository");
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
    let claimed = claimed(&document);
    assert!(claimed.len() > 30, "{claimed:?}");
    let missing: Vec<&&str> = claimed
        .iter()
        .filter(|name| !name.contains('/') && !text.contains(&format!("fn {name}(")))
        .chain(claimed.iter().filter(|name| name.contains('/') && !root.join(name).exists()))
        .collect();
    assert!(missing.is_empty(), "docs/threats.md names tests that are not there: {missing:#?}");
    let unproved: Vec<&str> = document
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| threat"))
        .filter(|line| !line.trim_end().trim_end_matches('|').rsplit('|').next().is_some_and(|cell| cell.contains('`')))
        .collect();
    assert!(unproved.is_empty(), "threats without a test: {unproved:#?}");
}

#[test]
fn claims_of_a_document_are_found() {
    let document =
        "| threat | answer | shown by |\n|---|---|---|\n| a | `limits` | `x_is_so`, tests of `src/y.rs` |\n`not a row`\n";
    assert_eq!(claimed(document), BTreeSet::from(["x_is_so", "src/y.rs"]));
}

#[test]
fn the_checker_bites() {
    let list = rows(
        "id\tlevel\tstate\tgist\tnote\nA-1\tSHALL\tbuilt\tg\t\nA-2\tSHALL\tbuilt\tg\t\nA-3\tMAY\tleft\tg\twhy\nA-4\tMAY\tleft\tg\t\nA-5\tSHALL\tdone\tg\t\n",
    );
    let mut trace = Trace::default();
    let source = "clause!(\"A-1\");\n// clause!(\"A-2\");\nclause!(\n    \"A-3\",\n    \"A-9\"\n);\n";
    ids("src/x.rs", source, "clause!(", &mut trace.cited);
    ids("tests/x.rs", "proves!(\"A-2\", \"A-8\", { f(\"A-1\") });", "proves!(", &mut trace.unit);
    let faults = faults(&list, &trace);
    assert_eq!(
        faults,
        [
            "A-9 is cited at src/x.rs:3 but tests/clauses.tsv lacks it",
            "A-8 is proved at tests/x.rs:1 but tests/clauses.tsv lacks it",
            "A-1 is built but no proves! proves it",
            "A-2 is built but no clause! cites it",
            "A-3 is left but cited",
            "A-4 is left without a reason",
            "A-5 has the state \"done\"; built, todo and left are known",
        ]
    );
}

#[test]
fn the_matrix_counts_unit_and_sockets_apart() {
    let list = rows("id\tlevel\tstate\tgist\tnote\nA-1\tSHALL\tbuilt\tg\t\nA-2\tSHALL\ttodo\tg\t\n");
    let mut trace = Trace::default();
    ids("src/x.rs", "clause!(\"A-1\", \"A-2\");", "clause!(", &mut trace.cited);
    ids("tests/conformance/x.rs", "proves!(\"A-1\", {})", "proves!(", &mut trace.unit);
    ids("tests/loopback/x.rs", "proves!(\"A-1\", {})", "proves!(", &mut trace.sockets);
    let text = matrix(&list, &trace);
    assert!(text.starts_with("clauses: 1 built of 2 (1 proved in unit, 1 proved over sockets)\n"), "{text}");
    assert!(text.contains("cited, not proved (1): A-2"), "{text}");
}
