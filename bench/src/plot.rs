//! Plots as SVG: lines of points on logarithmic axes.

use std::fmt::Write as _;

/// Told apart by people who see few colours, too (Okabe and Ito).
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#6b4c9a", "#555555"];
/// The frame within the picture: left, top, width, height.
const FRAME: (f64, f64, f64, f64) = (70.0, 40.0, 520.0, 300.0);

/// What one picture shows.
pub struct Plot {
    pub title: String,
    pub x: String,
    pub y: String,
    series: Vec<(String, Vec<(f64, f64)>)>,
}

/// A logarithmic axis that begins and ends at round numbers.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.fold((f64::MAX, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
        let round = |value: f64, up: bool| {
            let decade = 10f64.powf(value.log10().floor());
            let steps = [1.0, 2.0, 5.0, 10.0];
            let fits = |step: &&f64| if up { *step * decade >= value * 0.999 } else { *step * decade <= value * 1.001 };
            let step = if up { steps.iter().find(fits) } else { steps.iter().rev().find(fits) };
            step.unwrap_or(&1.0) * decade
        };
        let (low, high) = (round(low, false), round(high, true));
        Self { low, high: if high > low { high } else { low * 2.0 } }
    }

    /// Place on the axis from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (value / self.low).ln() / (self.high / self.low).ln()
    }

    fn ticks(&self) -> Vec<f64> {
        let first = self.low.log10().floor() as i32;
        let all = (first..first + 16).flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(decade)));
        all.filter(|tick| *tick >= self.low * 0.999 && *tick <= self.high * 1.001).collect()
    }
}

impl Plot {
    pub fn new(title: &str, x: &str, y: &str) -> Self {
        Self { title: title.into(), x: x.into(), y: y.into(), series: Vec::new() }
    }

    /// Adds a point to the line of that name.
    pub fn add(&mut self, name: &str, x: f64, y: f64) {
        if x <= 0.0 || y <= 0.0 {
            return;
        }
        match self.series.iter_mut().find(|(known, _)| known == name) {
            Some((_, points)) => points.push((x, y)),
            None => self.series.push((name.into(), vec![(x, y)])),
        }
    }

    /// The picture; None while there are not two points.
    pub fn svg(&self) -> Option<String> {
        let all = || self.series.iter().flat_map(|(_, points)| points.iter());
        if all().count() < 2 {
            return None;
        }
        let (x, y) = (Axis::over(all().map(|point| point.0)), Axis::over(all().map(|point| point.1)));
        let (left, top, width, height) = FRAME;
        let place = |point: (f64, f64)| (left + width * x.place(point.0), top + height * (1.0 - y.place(point.1)));
        let mut svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 720 390' width='720' font-family='system-ui,sans-serif' font-size='12' fill='#444'>\
             <rect width='720' height='390' fill='#fff'/><text x='{left}' y='24' font-size='15' font-weight='600' fill='#111'>{}</text>\
             <path d='M{left} {top}v{height}h{width}' fill='none' stroke='#888'/>\
             <text x='{}' y='382' text-anchor='middle'>{}</text>\
             <text transform='translate(16 {}) rotate(-90)' text-anchor='middle'>{}</text>",
            escape(&self.title),
            left + width / 2.0,
            escape(&self.x),
            top + height / 2.0,
            escape(&self.y)
        );
        for tick in x.ticks() {
            let at = left + width * x.place(tick);
            let _ = write!(
                svg,
                "<path d='M{at:.1} {top}v{height}' stroke='#eee'/><text x='{at:.1}' y='356' text-anchor='middle'>{}</text>",
                number(tick)
            );
        }
        for tick in y.ticks() {
            let at = top + height * (1.0 - y.place(tick));
            let _ = write!(
                svg,
                "<path d='M{left} {at:.1}h{width}' stroke='#eee'/><text x='{}' y='{:.1}' text-anchor='end'>{}</text>",
                left - 6.0,
                at + 4.0,
                number(tick)
            );
        }
        let mut labels = Vec::new();
        for (index, (name, points)) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let points = medians(points);
            let at = |point: &Spread, y: f64| place((point.x, y));
            let line: Vec<String> =
                points.iter().map(|point| at(point, point.middle)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            // The first line is what the picture is about.
            let weight = if index == 0 { 3.0 } else { 1.75 };
            let _ = write!(
                svg,
                "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='{weight}' stroke-linejoin='round'/>",
                line.join(" ")
            );
            for point in &points {
                let ((x, y), (_, low), (_, high)) = (at(point, point.middle), at(point, point.least), at(point, point.most));
                let _ = write!(
                    svg,
                    "<path d='M{x:.1} {high:.1}V{low:.1}' stroke='{colour}' stroke-opacity='.45' stroke-width='1.5'/>\
                     <circle cx='{x:.1}' cy='{y:.1}' r='{}' fill='{colour}' stroke='#fff'/>",
                    weight + 1.5
                );
            }
            labels.extend(points.last().map(|last| (at(last, last.middle), name, colour)));
        }
        svg.push_str(&legend(labels, left + width + 12.0, top + height));
        Some(svg + "</svg>")
    }
}

/// The name of each line beside its end; moved up where two would stand on each other.
fn legend(mut labels: Vec<((f64, f64), &String, &str)>, left: f64, bottom: f64) -> String {
    labels.sort_by(|a, b| b.0.1.total_cmp(&a.0.1));
    let (mut svg, mut free) = (String::new(), bottom);
    for ((x, y), name, colour) in labels {
        let to = y.min(free);
        free = to - 17.0;
        let _ = write!(
            svg,
            "<path d='M{:.1} {y:.1}L{:.1} {to:.1}' stroke='{colour}' stroke-opacity='.3' fill='none'/><text x='{left}' y='{:.1}' fill='{colour}' font-weight='600'>{}</text>",
            x + 5.0,
            left - 2.0,
            to + 4.0,
            escape(name)
        );
    }
    svg
}

/// What was measured at one place.
#[derive(Debug, PartialEq)]
struct Spread {
    x: f64,
    least: f64,
    middle: f64,
    most: f64,
}

/// One point for each x, in order: the median of those measured there, and how far they spread.
fn medians(points: &[(f64, f64)]) -> Vec<Spread> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let spread = |same: &[(f64, f64)]| Spread {
        x: same[0].0,
        least: same[0].1,
        middle: same[same.len() / 2].1,
        most: same[same.len() - 1].1,
    };
    points.chunk_by(|a, b| a.0 == b.0).map(spread).collect()
}

/// A tick as people write it.
fn number(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_begin_and_end_at_round_numbers_and_have_ticks_between() {
        let axis = Axis::over([3.0, 700.0].into_iter());
        assert_eq!((axis.low, axis.high), (2.0, 1000.0));
        assert_eq!(axis.ticks(), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert!(axis.place(2.0).abs() < 1e-9 && (axis.place(1000.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_line_is_drawn_through_the_median_of_each_place() {
        let mut plot = Plot::new("a < b", "x", "y");
        assert!(plot.svg().is_none());
        for (x, y) in [(10.0, 3.0), (1.0, 9.0), (1.0, 1.0), (1.0, 2.0)] {
            plot.add("one", x, y);
        }
        let spread = |x, least, middle, most| Spread { x, least, middle, most };
        assert_eq!(medians(&plot.series[0].1), [spread(1.0, 1.0, 2.0, 9.0), spread(10.0, 3.0, 3.0, 3.0)]);
        let svg = plot.svg().expect("there are points");
        assert!(svg.contains("a &lt; b") && svg.matches("<circle").count() == 2);
    }
}
