//! The faults known of open MSRP relays (slow reader, stall, two frames in a read, large chunk), played against the program.

use crate::peers;
use crate::proxy::Proxy;
use cpm_bench::faults::{Effort, NAMES, run};
use cpm_bench::scenario::{Scenario, Via};

#[test]
fn none_of_the_faults_of_other_relays_is_ours() {
    let [caller, called, msrp] = peers::free();
    let at = |port: u16| format!("127.0.0.1:{port}");
    let pf = Proxy::start_saying(
        tempfile::tempdir().expect("a temporary folder"),
        &format!("[sip]\ncore = \"sip:127.0.0.1:{called};lr\"\n"),
        "info",
    );
    let scenario = Scenario {
        via: Via::Sip,
        proxy: pf.udp.to_string(),
        caller_sip: at(caller),
        called_sip: at(called),
        called_msrp: at(msrp),
        ..Scenario::default()
    };
    let verdicts = run(&scenario, "all", &Effort::small()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(verdicts.iter().map(|verdict| verdict.fault).collect::<Vec<_>>(), NAMES);
    for verdict in verdicts {
        assert!(verdict.sound, "{}: {}", verdict.fault, verdict.found);
    }
}
