//! Results: one JSON object a run, and an HTML page with plots made of many.

use crate::cpu::Used;
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
    /// Calls: by how much an INVITE was sent late. What is late is not offered: with more than some milliseconds a result says
    /// something of the load generator.
    #[serde(default)]
    pub lag: Latency,
    pub lost: u64,
    pub corrupted: u64,
    pub refused: u64,
    /// Calls, in the measured time: those refused with 503 and Retry-After, and those without any answer within T1.
    #[serde(default)]
    pub told_when: u64,
    #[serde(default)]
    pub unanswered: u64,
    pub failures: Vec<String>,
    /// CPU seconds of the process under test, and for one gigabyte and one unit.
    pub cpu_s: Option<f64>,
    pub cpu_s_per_gb: Option<f64>,
    pub cpu_us_per_unit: Option<f64>,
    /// CPU seconds of this tool; of everybody else on the machine meanwhile; and kept from it by its hypervisor.
    pub own_cpu_s: f64,
    #[serde(default)]
    pub foreign_cpu_s: f64,
    #[serde(default)]
    pub stolen_s: f64,
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
            lag: Latency::default(),
            lost: 0,
            corrupted: 0,
            refused: 0,
            told_when: 0,
            unanswered: 0,
            failures: Vec::new(),
            cpu_s: None,
            cpu_s_per_gb: None,
            cpu_us_per_unit: None,
            own_cpu_s: 0.0,
            foreign_cpu_s: 0.0,
            stolen_s: 0.0,
            passed: false,
            parts: Vec::new(),
        }
    }

    /// It and its parts, each by itself.
    fn flat(mut self) -> Vec<Self> {
        let parts = std::mem::take(&mut self.parts);
        std::iter::once(self).chain(parts.into_iter().flat_map(Self::flat)).collect()
    }

    /// Notes CPU time.
    pub fn cpu(&mut self, used: Used) {
        let under_test = used.under_test;
        (self.own_cpu_s, self.foreign_cpu_s, self.stolen_s) = (used.own, used.foreign, used.stolen);
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

/// Writes one HTML page of result files.
pub fn write(results: &[PathBuf], out: &Path) -> Result<(), String> {
    page(&read(results)?, out)
}

const STYLE: &str = "body{font:14px system-ui;margin:2em auto;max-width:80em;padding:0 1em;color:#222}table{border-collapse:collapse}\
     td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}\
     .no{color:#b00020;font-weight:600}svg{margin:1em 1em 0 0;max-width:100%;height:auto}p{color:#555}";

/// Columns of the table: head, and the text of a cell.
type Column = (&'static str, fn(&Outcome) -> String);

const COLUMNS: [Column; 15] = [
    ("scenario", |o| escape(&o.scenario.name)),
    ("sessions", |o| o.scenario.sessions.to_string()),
    ("chunk", |o| o.scenario.chunk.to_string()),
    ("offered a s", |o| if OFFERED.contains(&o.scenario.load) { o.scenario.rate.to_string() } else { String::new() }),
    ("done a s", |o| format!("{:.0}", o.per_second)),
    ("MB/s", |o| format!("{:.1}", o.mb_per_second)),
    ("p50 µs", |o| format!("{:.0}", o.latency.p50)),
    ("p99 µs", |o| format!("{:.0}", o.latency.p99)),
    ("p99.99 µs", |o| format!("{:.0}", o.latency.p9999)),
    ("CPU s/GB", |o| o.cpu_s_per_gb.map_or(String::new(), |value| format!("{value:.3}"))),
    ("CPU µs/unit", |o| o.cpu_us_per_unit.map_or(String::new(), |value| format!("{value:.2}"))),
    ("own CPU µs/unit", |o| format!("{:.2}", o.own_cpu_s * 1e6 / o.count.max(1) as f64)),
    ("others' CPU s", |o| format!("{:.2}", o.foreign_cpu_s + o.stolen_s)),
    ("lost, changed", |o| format!("{}, {}", o.lost, o.corrupted)),
    ("passed", |o| if o.passed { "yes".into() } else { "<span class=no>no</span>".into() }),
];

/// Writes one HTML page: a table of all results, and a plot for each pair of axes that has points.
pub fn page(outcomes: &[Outcome], out: &Path) -> Result<(), String> {
    let outcomes: Vec<Outcome> = outcomes.iter().cloned().flat_map(Outcome::flat).collect();
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>cpm-bench</title>\
         <style>{STYLE}</style><h1>cpm-bench</h1><p>Latency counts from the time on the schedule where the load is open loop. CPU is that of the \
         process under test; others' CPU is what everybody else on the machine used, and the hypervisor kept, meanwhile.</p><table><tr>"
    );
    for (head, _) in COLUMNS {
        let _ = write!(page, "<th>{head}");
    }
    for outcome in &outcomes {
        page.push_str("<tr>");
        for (_, cell) in COLUMNS {
            let _ = write!(page, "<td>{}", cell(outcome));
        }
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
    let outcomes: Vec<Outcome> = read(results)?.into_iter().flat_map(Outcome::flat).collect();
    for (name, svg) in plots(&outcomes) {
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
    Ok(outcomes)
}

/// Loads with a rate that is offered whatever comes of it.
const OFFERED: [Load; 3] = [Load::Open, Load::Calls, Load::Churn];

/// What is plotted: file name, title, axes, the kinds of load it is about, and the points of a result.
type Kind = (&'static str, &'static str, &'static str, &'static str, &'static [Load], fn(&Outcome) -> Vec<(f64, f64)>);

/// A point, where both of its values are known.
fn point(x: f64, y: Option<f64>) -> Vec<(f64, f64)> {
    y.map(|y| (x, y)).into_iter().collect()
}

const KINDS: [Kind; 8] = [
    ("cpu-by-chunk", "CPU seconds a GB against chunk size", "octets a chunk", "CPU s/GB", &[Load::Bulk, Load::Bound], |o| {
        point(o.scenario.chunk as f64, o.cpu_s_per_gb)
    }),
    ("cpu-by-sessions", "CPU a message against sessions", "sessions", "CPU µs a message", &[Load::Closed], |o| {
        point(o.scenario.sessions as f64, o.cpu_us_per_unit)
    }),
    ("latency-by-load", "Latency (p50) against load", "a second offered", "µs", &OFFERED, |o| {
        point(o.scenario.rate as f64, Some(o.latency.p50))
    }),
    ("latency-p99-by-load", "Latency (p99) against load", "a second offered", "µs", &OFFERED, |o| {
        point(o.scenario.rate as f64, Some(o.latency.p99))
    }),
    ("throughput-by-load", "Throughput against load", "a second offered", "a second done", &OFFERED, |o| {
        point(o.scenario.rate as f64, Some(o.per_second))
    }),
    ("cpu-by-load", "CPU a unit against load", "a second offered", "CPU µs a unit", &OFFERED, |o| {
        point(o.scenario.rate as f64, o.cpu_us_per_unit)
    }),
    ("load-of-the-core", "CPU of the process under test against load", "a second offered", "% of a core", &OFFERED, |o| {
        point(o.scenario.rate as f64, o.cpu_s.map(|cpu| 100.0 * cpu / o.seconds))
    }),
    ("throughput-by-chunk", "Throughput against chunk size", "octets a chunk", "MB/s", &[Load::Bulk], |o| {
        point(o.scenario.chunk as f64, Some(o.mb_per_second))
    }),
];

fn plots(outcomes: &[Outcome]) -> Vec<(&'static str, String)> {
    let draw = |(name, title, x, y, loads, points): &Kind| {
        let mut plot = Plot::new(title, x, y);
        for outcome in outcomes.iter().filter(|outcome| loads.contains(&outcome.scenario.load)) {
            for (x, y) in points(outcome) {
                plot.add(&outcome.scenario.name, x, y);
            }
        }
        Some((*name, plot.svg()?))
    };
    KINDS.iter().filter_map(draw).collect()
}
