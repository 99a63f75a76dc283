//! Plays every state and event of a machine and prints what does anything, to be compared with the committed table:
//! a changed line is a changed protocol. `PRINT_TABLES=1` writes the tables anew, to be read before they are committed.

use super::action::{Action, Times};
use std::fmt::{Debug, Write as _};
use std::time::Duration;

type Step<S, E> = fn(S, E, &Times, bool, &mut Vec<Action>) -> S;
type Start<S> = fn(&Times, bool, &mut Vec<Action>) -> S;

pub fn check<S, E>(name: &str, committed: &str, start: Start<S>, states: &[S], events: &[E], step: Step<S, E>)
where
    S: Copy + PartialEq + Debug,
    E: Copy + Debug,
{
    let times = Times::of(Duration::from_millis(500));
    let mut table = String::new();
    for (title, reliable) in [("unreliable transport (UDP)", false), ("reliable transport (TCP, TLS)", true)] {
        let mut actions = Vec::new();
        let first = start(&times, reliable, &mut actions);
        let _ = writeln!(table, "# {title}\nstart -> {first:?} {actions:?}");
        for state in states {
            for event in events {
                let mut actions = Vec::new();
                let next = step(*state, *event, &times, reliable, &mut actions);
                if next != *state || !actions.is_empty() {
                    let _ = writeln!(table, "{state:?} + {event:?} -> {next:?} {actions:?}");
                }
            }
        }
    }
    if std::env::var_os("PRINT_TABLES").is_some() {
        let path = format!("{}/tests/vectors/transactions/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, &table).expect("the table can be written");
        return;
    }
    for (line, (want, got)) in committed.lines().zip(table.lines()).enumerate() {
        assert_eq!(want, got, "{name}.txt line {}", line + 1);
    }
    assert_eq!(committed.lines().count(), table.lines().count(), "{name}.txt");
}
