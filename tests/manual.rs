//! The operator's manual names what there is: every key of the configuration and every metric, and no others.

use cpm_pf::config::Config;
use std::collections::BTreeSet;
use std::path::Path;

const MANUAL: &str = include_str!("../docs/manual.md");

/// The tables below a heading, to the next one.
fn section(heading: &str) -> &'static str {
    let start = MANUAL.find(heading).unwrap_or_else(|| panic!("the manual has no {heading:?}"));
    let rest = &MANUAL[start + heading.len()..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// What stands between backquotes in the first column of a section's table.
fn named(heading: &str) -> BTreeSet<String> {
    let first = section(heading).lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let quoted = first.flat_map(|cell| cell.split('`').step_by(2).map(str::to_owned));
    quoted.filter(|name| !name.is_empty()).collect()
}

/// Every key of a TOML table, with the tables that lead to it.
fn keys(table: &toml::Table, path: &str, into: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let tables: Vec<&toml::Table> = match value {
            toml::Value::Table(table) => vec![table],
            toml::Value::Array(list) => list.iter().filter_map(toml::Value::as_table).collect(),
            _ => Vec::new(),
        };
        tables.iter().for_each(|table| keys(table, &path, into));
        if tables.is_empty() {
            into.insert(path);
        }
    }
}

/// A configuration with every optional key.
const WHOLE: &str = r#"
[node]
handover = "handover.sock"
[sip]
listen = ["udp://127.0.0.1:0"]
core = "sip:127.0.0.1:1;lr"
isf = "sip:127.0.0.1:1;lr"
[sip.tls]
ca = "ca.pem"
[sip.hep]
collector = "udp://127.0.0.1:1"
[msrp]
listen = ["tcp://127.0.0.1:0"]
host = "127.0.0.1"
[msrp.tls]
ca = "ca.pem"
[registrations]
registrar = "sip:127.0.0.1:1"
[[registrations.user]]
address = "sip:bob@example.net"
[[registrations.user.client]]
contact = "sip:127.0.0.1:1"
instance = "<urn:uuid:1>"
gruu = "sip:bob@example.net;gr=1"
user_agent = "x"
[admin]
listen = "127.0.0.1:0"
cdr = "cdr"
token_file = "token"
"#;

#[test]
fn the_manual_has_every_key_and_no_other() {
    let config = cpm_pf::config::read::parse("whole", WHOLE).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
    let mut there = BTreeSet::new();
    keys(&config.render().parse().expect("it prints as TOML"), "", &mut there);
    assert_eq!(named("## Every key\n"), there);
}

#[test]
fn the_manual_has_the_default_of_each_key_that_has_one() {
    let defaults: toml::Table = Config::default().render().parse().expect("it prints as TOML");
    for (section_name, table) in &defaults {
        for (key, value) in table.as_table().expect("sections are tables") {
            let name = format!("`{section_name}.{key}`");
            let row = section("## Every key\n")
                .lines()
                .find(|line| line.split(" | ").next().is_some_and(|cell| cell.contains(&name)))
                .unwrap_or_else(|| panic!("no {name}"));
            let shown = value.to_string();
            // What a file must give, or takes from elsewhere in it, has no default of its own.
            let given = ["`node.host`", "`sip.listen`", "`msrp.listen`"].contains(&name.as_str());
            assert!(given || row.contains(&format!("`{shown}`")), "the default of {name} is {shown}: {row}");
        }
    }
}

/// The fields of a JSON object.
fn fields(object: &impl serde::Serialize) -> BTreeSet<String> {
    let value = serde_json::to_value(object).expect("it is JSON");
    value.as_object().expect("an object").keys().cloned().collect()
}

#[test]
fn the_manual_has_every_field_of_call_records_and_sessions() {
    assert_eq!(named("## Every field of a call record\n"), fields(&cpm_pf::shard::record::Cdr::default()));
    assert_eq!(named("## Every field of a session\n"), fields(&cpm_pf::shard::watching::SessionView::default()));
}

/// Every metric's name that the sources print.
fn metrics(folder: &Path, into: &mut BTreeSet<String>) {
    for path in std::fs::read_dir(folder).expect("the folder is there").flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            metrics(&path, into);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            // A name stands alone in a literal.
            let names = code.split('"').filter(|part| part.starts_with("cpm_pf_"));
            into.extend(names.filter(|name| name.bytes().all(|o| o.is_ascii_lowercase() || o == b'_')).map(str::to_owned));
        }
    }
}

#[test]
fn the_manual_has_every_metric_and_no_other() {
    let mut there = BTreeSet::new();
    metrics(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io"), &mut there);
    assert!(there.len() > 15, "{there:?}");
    let named: BTreeSet<String> =
        named("## Every metric\n").iter().map(|name| name.split('{').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(named, there);
}
