//! Results: one JSON object a run, and an HTML page with plots made of many.

use crate::plot::{Plot, escape};
use crate::scenario::{Load, Scenario};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Latency in microseconds from the time on the schedule.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub scenario: Scenario,
    /// "messages" or "calls".
    pub unit: String,
    pub count: u64,
    pub octets: u64,
    pub seconds: f64,
    pub per_second: f64,
    pub mb_per_second: f64,
    pub latency: Latency,
    /// Calls: from a BYE to its answer.
    #[serde(default)]
    pub in_dialog: Latency,
    pub lost: u64,
    pub corrupted: u64,
    pub refused: u64,
    pub failures: Vec<String>,
    /// CPU seconds of the process under test, and for one gigabyte and one unit.
    pub cpu_s: Option<f64>,
    pub cpu_s_per_gb: Option<f64>,
    pub cpu_us_per_unit: Option<f64>,
    /// CPU seconds of this tool.
    pub own_cpu_s: f64,
    pub passed: bool,
    /// Results of the parts of a mix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Outcome>,
}

impl Outcome {
    pub fn new(scenario: &Scenario, unit: &str, count: u64, octets: u64, seconds: f64) -> Self {
        Self {
            scenario: scenario.clone(),
            unit: unit.into(),
            count,
            octets,
            seconds,
            per_second: count as f64 / seconds,
            mb_per_second: octets as f64 / 1e6 / seconds,
            latency: Latency::default(),
            in_dialog: Latency::default(),
            lost: 0,
            corrupted: 0,
            refused: 0,
            failures: Vec::new(),
            cpu_s: None,
            cpu_s_per_gb: None,
            cpu_us_per_unit: None,
            own_cpu_s: 0.0,
            passed: false,
            parts: Vec::new(),
        }
    }

    /// It and its parts, each by itself.
    fn flat(mut self) -> Vec<Self> {
        let parts = std::mem::take(&mut self.parts);
        std::iter::once(self).chain(parts.into_iter().flat_map(Self::flat)).collect()
    }

    /// Notes CPU time: of the process under test (where it was read), and our own.
    pub fn cpu(&mut self, under_test: Option<f64>, own: f64) {
        self.own_cpu_s = own;
        self.cpu_s = under_test;
        self.cpu_s_per_gb = under_test.filter(|_| self.octets > 0).map(|cpu| cpu * 1e9 / self.octets as f64);
        self.cpu_us_per_unit = under_test.filter(|_| self.count > 0).map(|cpu| cpu * 1e6 / self.count as f64);
    }

    /// Passed: nothing lost, nothing changed, and the scenario's own criteria.
    pub fn judge(&mut self, scenario: &Scenario) {
        let fast = scenario.pass_p99_us.is_none_or(|limit| self.latency.p99 <= limit as f64);
        let enough = scenario.pass_rate.is_none_or(|limit| self.per_second >= limit);
        self.passed = self.lost == 0 && self.corrupted == 0 && self.failures.is_empty() && self.count > 0 && fast && enough;
    }
}

/// Writes one HTML page: a table of all results, and a plot for each pair of axes that has points.
pub fn write(results: &[PathBuf], out: &Path) -> Result<(), String> {
    let outcomes = read(results)?;
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'><title>cpm-bench</title>\
         <style>body{font:14px system-ui;margin:2em;max-width:70em}td,th{padding:.2em .7em;text-align:right}td:first-child{text-align:left}svg{margin:1em;max-width:100%}</style><h1>cpm-bench</h1>",
    );
    page.push_str(
        "<table><tr><th>scenario<th>sessions<th>chunk<th>per s<th>MB/s<th>p50 µs<th>p99 µs<th>p99.99 µs<th>CPU s/GB<th>CPU µs/unit<th>lost",
    );
    for outcome in &outcomes {
        let show = |value: Option<f64>| value.map_or("".into(), |value| format!("{value:.3}"));
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{:.0}<td>{:.1}<td>{:.0}<td>{:.0}<td>{:.0}<td>{}<td>{}<td>{}",
            escape(&outcome.scenario.name),
            outcome.scenario.sessions,
            outcome.scenario.chunk,
            outcome.per_second,
            outcome.mb_per_second,
            outcome.latency.p50,
            outcome.latency.p99,
            outcome.latency.p9999,
            show(outcome.cpu_s_per_gb),
            show(outcome.cpu_us_per_unit),
            outcome.lost
        );
    }
    page.push_str("</table>");
    for (_, plot) in plots(&outcomes) {
        page.push_str(&plot);
    }
    std::fs::write(out, page).map_err(|error| format!("{}: {error}", out.display()))
}

/// Writes each plot that has points as a file of its own.
pub fn write_plots(results: &[PathBuf], folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, svg) in plots(&read(results)?) {
        let path = folder.join(format!("{name}.svg"));
        std::fs::write(&path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn read(results: &[PathBuf]) -> Result<Vec<Outcome>, String> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for path in results {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        match serde_json::from_str::<Vec<Outcome>>(&text) {
            Ok(list) => outcomes.extend(list),
            Err(_) => outcomes.push(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?),
        }
    }
    Ok(outcomes.into_iter().flat_map(Outcome::flat).collect())
}

/// What is plotted: file name, title, axes, the kinds of load it is about, and a point of a result.
type Kind = (&'static str, &'static str, &'static str, &'static str, &'static [Load], fn(&Outcome) -> Option<(f64, f64)>);

const KINDS: [Kind; 6] = [
    ("cpu-by-chunk", "CPU seconds a GB against chunk size", "octets a chunk", "CPU s/GB", &[Load::Bulk], |o| {
        Some((o.scenario.chunk as f64, o.cpu_s_per_gb?))
    }),
    ("cpu-by-sessions", "CPU a message against sessions", "sessions", "CPU µs a message", &[Load::Closed], |o| {
        Some((o.scenario.sessions as f64, o.cpu_us_per_unit?))
    }),
    ("latency-by-load", "Latency (p50) against load", "messages a second", "µs", &[Load::Open], |o| {
        Some((o.scenario.rate as f64, o.latency.p50))
    }),
    ("latency-p99-by-load", "Latency (p99) against load", "messages a second", "µs", &[Load::Open], |o| {
        Some((o.scenario.rate as f64, o.latency.p99))
    }),
    (
        "throughput-by-load",
        "Throughput against load offered",
        "a second offered",
        "a second done",
        &[Load::Open, Load::Calls, Load::Churn],
        |o| Some((o.scenario.rate as f64, o.per_second)),
    ),
    ("cpu-by-load", "CPU a unit against load", "a second", "CPU µs a unit", &[Load::Open, Load::Calls, Load::Churn], |o| {
        Some((o.scenario.rate as f64, o.cpu_us_per_unit?))
    }),
];

fn plots(outcomes: &[Outcome]) -> Vec<(&'static str, String)> {
    let draw = |(name, title, x, y, loads, point): &Kind| {
        let mut plot = Plot::new(title, x, y);
        for outcome in outcomes.iter().filter(|outcome| loads.contains(&outcome.scenario.load)) {
            if let Some((x, y)) = point(outcome) {
                plot.add(&outcome.scenario.name, x, y);
            }
        }
        Some((*name, plot.svg()?))
    };
    KINDS.iter().filter_map(draw).collect()
}
