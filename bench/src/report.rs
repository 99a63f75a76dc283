//! Results: one JSON object a run, and an HTML page with plots made of many.

use crate::scenario::Scenario;
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
            lost: 0,
            corrupted: 0,
            refused: 0,
            failures: Vec::new(),
            cpu_s: None,
            cpu_s_per_gb: None,
            cpu_us_per_unit: None,
            own_cpu_s: 0.0,
            passed: false,
        }
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
    let mut outcomes: Vec<Outcome> = Vec::new();
    for path in results {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        match serde_json::from_str::<Vec<Outcome>>(&text) {
            Ok(list) => outcomes.extend(list),
            Err(_) => outcomes.push(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?),
        }
    }
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'><title>cpm-bench</title>\
         <style>body{font:14px system-ui;margin:2em;max-width:70em}td,th{padding:.2em .7em;text-align:right}td:first-child{text-align:left}svg{margin:1em;max-width:100%}</style><h1>cpm-bench</h1>",
    );
    page.push_str(
        "<table><tr><th>scenario<th>sessions<th>chunk<th>per s<th>MB/s<th>p50 µs<th>p99 µs<th>CPU s/GB<th>CPU µs/unit<th>lost",
    );
    for outcome in &outcomes {
        let show = |value: Option<f64>| value.map_or("".into(), |value| format!("{value:.3}"));
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{:.0}<td>{:.1}<td>{:.0}<td>{:.0}<td>{}<td>{}<td>{}",
            escape(&outcome.scenario.name),
            outcome.scenario.sessions,
            outcome.scenario.chunk,
            outcome.per_second,
            outcome.mb_per_second,
            outcome.latency.p50,
            outcome.latency.p99,
            show(outcome.cpu_s_per_gb),
            show(outcome.cpu_us_per_unit),
            outcome.lost
        );
    }
    page.push_str("</table>");
    page.push_str(&plot("latency p50 (µs) against load (a second)", &outcomes, |o| Some((o.per_second, o.latency.p50))));
    page.push_str(&plot("latency p99 (µs) against load (a second)", &outcomes, |o| Some((o.per_second, o.latency.p99))));
    page.push_str(&plot("throughput (a second) against load offered", &outcomes, |o| {
        Some((o.scenario.rate as f64, o.per_second))
    }));
    page.push_str(&plot("CPU µs a unit against sessions", &outcomes, |o| {
        Some((o.scenario.sessions as f64, o.cpu_us_per_unit?))
    }));
    page.push_str(&plot("CPU s a GB against chunk octets", &outcomes, |o| Some((o.scenario.chunk as f64, o.cpu_s_per_gb?))));
    std::fs::write(out, page).map_err(|error| format!("{}: {error}", out.display()))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Points of one quantity against another on logarithmic axes, a line for each scenario name.
fn plot(title: &str, outcomes: &[Outcome], point: impl Fn(&Outcome) -> Option<(f64, f64)>) -> String {
    let mut series: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for outcome in outcomes {
        let Some((x, y)) = point(outcome).filter(|(x, y)| *x > 0.0 && *y > 0.0) else { continue };
        match series.iter_mut().find(|(name, _)| *name == outcome.scenario.name) {
            Some((_, points)) => points.push((x, y)),
            None => series.push((outcome.scenario.name.clone(), vec![(x, y)])),
        }
    }
    let all: Vec<(f64, f64)> = series.iter().flat_map(|(_, points)| points.iter().copied()).collect();
    let bounds = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::MAX, f64::min).ln();
        (low, (values.iter().copied().fold(0.0, f64::max).ln() - low).max(0.1))
    };
    if all.len() < 2 {
        return String::new();
    }
    let ((x0, dx), (y0, dy)) = (bounds(all.iter().map(|p| p.0).collect()), bounds(all.iter().map(|p| p.1).collect()));
    let mut svg = format!(
        "<h2>{title}</h2><svg viewBox='0 0 640 360' width=640><rect x=60 y=10 width=560 height=300 fill=none stroke=#999 />"
    );
    for tick in 0..5 {
        let part = f64::from(tick) / 4.0;
        let (x, y) = ((x0 + dx * part).exp(), (y0 + dy * part).exp());
        let _ = write!(
            svg,
            "<text x={:.0} y=328 font-size=11 text-anchor=middle>{x:.3}</text><text x=56 y={:.0} font-size=11 text-anchor=end>{y:.3}</text>",
            60.0 + 560.0 * part,
            314.0 - 300.0 * part
        );
    }
    for (number, (name, points)) in series.iter_mut().enumerate() {
        let colour = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b"][number % 7];
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let place = |(x, y): &(f64, f64)| (60.0 + 560.0 * (x.ln() - x0) / dx, 310.0 - 300.0 * (y.ln() - y0) / dy);
        let line: Vec<String> = points
            .iter()
            .map(|point| {
                let (x, y) = place(point);
                format!("{x:.1},{y:.1}")
            })
            .collect();
        let _ = write!(
            svg,
            "<polyline points='{}' fill=none stroke={colour} stroke-width=2 /><text x=70 y={} fill={colour} font-size=12>{}</text>",
            line.join(" "),
            26 + number * 15,
            escape(name)
        );
        for point in points.iter() {
            let (x, y) = place(point);
            let _ = write!(svg, "<circle cx={x:.1} cy={y:.1} r=3 fill={colour} />");
        }
    }
    svg + "</svg>"
}
