//! Mixes: several scenarios at once against one proxy, each with a thread and addresses of its own.

use crate::cpu::{Clocks, Meter};
use crate::report::Outcome;
use crate::scenario::{Load, Scenario};
use crate::{bound, calls, churn, deferred, relay};

/// Runs a scenario, whatever its load.
pub fn run(scenario: &Scenario, meter: Option<Meter>, quiet: bool) -> Result<Outcome, String> {
    match scenario.load {
        Load::Calls => calls::run(scenario, meter, quiet),
        Load::Churn => churn::run(scenario, meter, quiet),
        Load::Deferred => deferred::run(scenario, meter, quiet),
        Load::Bound => bound::run(scenario),
        Load::Mix => together(scenario, meter, quiet),
        Load::Bulk | Load::Closed | Load::Open => relay::run(scenario, meter, quiet),
    }
}

/// Passed: every part passed.
fn together(scenario: &Scenario, meter: Option<Meter>, quiet: bool) -> Result<Outcome, String> {
    let (clocks, begin) = (Clocks::read(meter.as_ref()), std::time::Instant::now());
    let parts: Vec<Result<Outcome, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = scenario.parts.iter().map(|part| scope.spawn(move || run(part, None, quiet))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a part panicked".into()))).collect()
    });
    let parts = parts.into_iter().collect::<Result<Vec<Outcome>, String>>()?;
    let sum = |value: fn(&Outcome) -> u64| parts.iter().map(value).sum::<u64>();
    let mut outcome = Outcome::new(scenario, "units", sum(|o| o.count), sum(|o| o.octets), begin.elapsed().as_secs_f64());
    (outcome.lost, outcome.corrupted, outcome.refused) = (sum(|o| o.lost), sum(|o| o.corrupted), sum(|o| o.refused));
    outcome.failures = parts.iter().flat_map(|part| part.failures.clone()).collect();
    outcome.cpu(Clocks::read(meter.as_ref()).since(&clocks));
    outcome.judge(scenario);
    outcome.passed &= parts.iter().all(|part| part.passed);
    outcome.parts = parts;
    Ok(outcome)
}
