//! Faults that MSRP relays in the field have, each as a check of a running relay.
//!
//! | check | what goes wrong elsewhere |
//! |---|---|
//! | slow-reader | data behind a 200 is lost when the receiver is slow |
//! | stall | the connection breaks when more than the relay's queue is in flight |
//! | two-frames | the second frame of one read breaks the stream |
//! | big-chunk | a chunk above the relay's frame size is refused or cut |

use crate::relay;
use crate::scenario::{Load, Scenario, Via};

/// Runs one check, or all; `via` is "tcp", "sip", "msrp" or "direct". Ok(false) when the relay shows a fault.
pub fn run(via: &str, which: &str) -> Result<bool, String> {
    let via = match via {
        "direct" => Via::Direct,
        "tcp" => Via::Tcp,
        "sip" => Via::Sip,
        "msrp" => Via::Msrp,
        other => return Err(format!("--via {other}: direct, tcp, sip or msrp is wanted")),
    };
    let base = Scenario {
        via: via.clone(),
        verify: true,
        seconds: 3.0,
        warmup: 0.1,
        failure_report: "yes".into(),
        ..Scenario::default()
    };
    let relay = if via == Via::Msrp { "127.0.0.1:2855".into() } else { base.relay.clone() };
    let base = Scenario { relay, ..base };
    let checks = [
        (
            "slow-reader",
            Scenario { load: Load::Bulk, chunk: 8_000, window: 8 << 20, slow_readers: 1, slow_octets: 2_000_000, ..base.clone() },
        ),
        (
            "stall",
            Scenario {
                load: Load::Bulk,
                chunk: 8_000,
                window: 16 << 20,
                slow_readers: 1,
                slow_octets: 50_000,
                seconds: 2.0,
                ..base.clone()
            },
        ),
        ("two-frames", Scenario { load: Load::Bulk, chunk: 40, window: 4_000, ..base.clone() }),
        ("big-chunk", Scenario { load: Load::Closed, chunk: 8 << 20, ..base }),
    ];
    let mut sound = true;
    for (name, scenario) in checks.iter().filter(|(name, _)| which == "all" || which == *name) {
        let verdict = match relay::run(&Scenario { name: (*name).into(), ..scenario.clone() }, None, true) {
            Ok(outcome) if outcome.passed => "sound".to_owned(),
            Ok(outcome) => format!(
                "FAULT: {} lost, {} changed, {} refused, {:?}",
                outcome.lost, outcome.corrupted, outcome.refused, outcome.failures
            ),
            Err(error) => format!("FAULT: {error}"),
        };
        sound &= verdict == "sound";
        println!("{name:12} {verdict}");
    }
    Ok(sound)
}
