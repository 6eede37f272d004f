//! Charts: SVG that is coloured by classes, with a title for each point and the same figures as a table behind it.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::{minute, moment, took_at_most};
use pgkeep_model::words::{bytes, number, took};

/// Most points that are drawn; the newest ones.
pub const MAX_POINTS: usize = 400;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 176.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 24.0;

/// What a chart counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Things.
    Count,
}

impl Unit {
    /// Writes a value with its unit.
    pub fn text(self, value: u64) -> String {
        match self {
            Self::Bytes => bytes(value),
            Self::Milliseconds => took(value),
            Self::Count => number(value),
        }
    }

    /// Writes what stands beside a line: round figures without zeros behind them.
    fn tick(self, value: u64) -> String {
        match self {
            Self::Milliseconds if value.is_multiple_of(1000) => took_at_most(value),
            _ => self.text(value),
        }
    }

    /// Returns the step between lines so that there are about three of them, in round figures of the unit.
    fn step(self, top: f64) -> f64 {
        let raw = top / 3.0;
        let steps: &[f64] = match self {
            Self::Milliseconds if raw >= 500.0 => {
                const ROUND: &[f64] = &[
                    500.0, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3,
                    1_800e3, 3_600e3, 7_200e3, 14_400e3, 28_800e3, 86_400e3, 172_800e3, 864_000e3,
                ];
                ROUND
            }
            _ => &[],
        };
        if let Some(step) = steps.iter().find(|step| **step >= raw) {
            return *step;
        }
        let base = match self {
            Self::Bytes => 1024_f64.powf((raw.max(1.0).log2() / 10.0).floor()),
            Self::Milliseconds | Self::Count => 1.0,
        };
        let within = (raw / base).max(f64::MIN_POSITIVE);
        let power = 10_f64.powf(within.log10().floor());
        let lead = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .find(|lead| lead * power >= within);
        (lead.unwrap_or(10.0) * power * base).max(1.0)
    }
}

/// One point.
#[derive(Clone, Debug)]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// How much; none for a run that came to nothing.
    pub value: Option<u64>,
    /// What it is of: an id, or why it failed.
    pub label: String,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Tells it from others of its page.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Its points, oldest first.
    pub points: Vec<Point>,
    /// A line that values are to stay under, and its words.
    pub target: Option<(u64, String)>,
}

/// Draws a chart, with its table behind.
pub fn render(chart: &Chart) -> Markup {
    let from = chart.points.len().saturating_sub(MAX_POINTS);
    let points = &chart.points[from..];
    let values = points.iter().filter_map(|point| point.value);
    let target = chart.target.as_ref().map_or(0, |(target, _)| *target);
    let highest = values.max().map(|highest| highest.max(target));
    html! {
        figure.chart {
            figcaption {
                strong { (chart.title) }
                @if let Some(last) = points.iter().rev().find_map(|point| point.value) { span.quiet { " last " (chart.unit.text(last)) } }
            }
            @match highest {
                Some(highest) => (drawing(chart, points, highest)),
                None => p.quiet { "Nothing to draw yet." },
            }
            @if !points.is_empty() { (table(chart, points)) }
        }
    }
}

fn drawing(chart: &Chart, points: &[Point], highest: u64) -> Markup {
    let step = chart.unit.step((highest as f64).max(1.0));
    let lines = (highest as f64 / step).ceil().max(1.0);
    let top = lines * step;
    let first = points.first().map_or(0, |point| point.at.as_second());
    let last = points.last().map_or(0, |point| point.at.as_second());
    let width = (last - first).max(1) as f64;
    let x = |at: Timestamp| {
        let share = if first == last {
            0.5
        } else {
            (at.as_second() - first) as f64 / width
        };
        LEFT + 6.0 + share * (WIDTH - LEFT - RIGHT - 12.0)
    };
    let y = |value: f64| TOP + (1.0 - value / top) * (HEIGHT - TOP - BOTTOM);
    let path: Vec<String> = points
        .iter()
        .filter_map(|point| {
            let value = point.value?;
            Some(format!("{:.1},{:.1}", x(point.at), y(value as f64)))
        })
        .collect();
    let radius = if points.len() > 120 { "1.6" } else { "3" };
    html! {
        svg.plot viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(summary(chart, points)) {
            @for line in 0..=(lines as u32) {
                @let value = f64::from(line) * step;
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{:.1}", y(value))) y2=(format!("{:.1}", y(value))) {}
                text.tick x=(LEFT - 6.0) y=(format!("{:.1}", y(value) + 3.5)) text-anchor="end" { (chart.unit.tick(value as u64)) }
            }
            @if let Some((target, words)) = &chart.target {
                line.target x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{:.1}", y(*target as f64))) y2=(format!("{:.1}", y(*target as f64))) { title { (words) } }
                text.target-word x=(WIDTH - RIGHT) y=(format!("{:.1}", y(*target as f64) - 4.0)) text-anchor="end" { (words) }
            }
            @if path.len() > 1 { polyline.line points=(path.join(" ")) {} }
            @for point in points {
                @match point.value {
                    Some(value) => circle.point .over[chart.target.as_ref().is_some_and(|(target, _)| value > *target)] cx=(format!("{:.1}", x(point.at))) cy=(format!("{:.1}", y(value as f64))) r=(radius) { title { (chart.unit.text(value)) ", " (moment(point.at)) ": " (point.label) } },
                    None => path.failed d=(cross(x(point.at), y(0.0) - 6.0)) { title { "failed, " (moment(point.at)) ": " (point.label) } },
                }
            }
            @if let (Some(oldest), Some(newest)) = (points.first(), points.last()) {
                text.tick x=(LEFT) y=(HEIGHT - 6.0) { (oldest.at.strftime("%Y-%m-%d").to_string()) }
                @if first != last { text.tick x=(WIDTH - RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { (newest.at.strftime("%Y-%m-%d").to_string()) " UTC" } }
            }
        }
    }
}

fn cross(x: f64, y: f64) -> String {
    let (left, right, top, bottom) = (x - 4.0, x + 4.0, y - 4.0, y + 4.0);
    format!("M{left:.1},{top:.1}L{right:.1},{bottom:.1}M{left:.1},{bottom:.1}L{right:.1},{top:.1}")
}

fn summary(chart: &Chart, points: &[Point]) -> String {
    let mut values: Vec<u64> = points.iter().filter_map(|point| point.value).collect();
    values.sort_unstable();
    match (values.first(), values.last()) {
        (Some(least), Some(most)) => format!(
            "{}: {} points from {} to {}; the table below has them all",
            chart.title,
            values.len(),
            chart.unit.text(*least),
            chart.unit.text(*most)
        ),
        _ => chart.title.to_owned(),
    }
}

fn table(chart: &Chart, points: &[Point]) -> Markup {
    html! {
        details id={ "figures-" (chart.id) } {
            summary { "Figures" }
            div.scroll { table {
                thead { tr { th { "When" } th.num { (chart.title) } th { "Of" } } }
                tbody { @for point in points.iter().rev() {
                    tr {
                        td { (minute(point.at)) }
                        td.num { @match point.value { Some(value) => (chart.unit.text(value)), None => "failed" } }
                        td.wide { (point.label) }
                    }
                } }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[Option<u64>], unit: Unit) -> Chart {
        let points = values.iter().enumerate().map(|(at, value)| Point {
            at: Timestamp::from_second(1_760_000_000 + at as i64 * 86_400).unwrap(),
            value: *value,
            label: "<script>\"Invoice Lines\"".to_owned(),
        });
        Chart {
            id: "size",
            title: "Size",
            unit,
            points: points.collect(),
            target: Some((900_000, "target 15 min".to_owned())),
        }
    }

    #[test]
    fn names_are_text_in_titles() {
        let html = render(&chart(&[Some(5), None, Some(7)], Unit::Count)).into_string();
        assert!(!html.contains("<script>"), "{html}");
        assert!(
            html.contains("&lt;script&gt;&quot;Invoice Lines&quot;"),
            "{html}"
        );
    }

    #[test]
    fn every_amount_of_points_is_drawn_within_the_frame() {
        for unit in [Unit::Bytes, Unit::Milliseconds, Unit::Count] {
            for values in [
                vec![],
                vec![None],
                vec![Some(0)],
                vec![Some(u64::MAX)],
                (0..1000).map(|n| Some(n * n * n)).collect(),
            ] {
                let mut chart = chart(&values, unit);
                for target in [chart.target.take(), None] {
                    chart.target = target;
                    let html = render(&chart).into_string();
                    assert!(!html.contains("NaN") && !html.contains("inf"), "{unit:?}");
                    assert!(html.matches("<circle").count() <= MAX_POINTS);
                    assert!(
                        html.matches("<line class=\"grid\"").count() <= 8,
                        "{unit:?} {html}"
                    );
                }
            }
        }
    }

    #[test]
    fn lines_stand_at_round_figures() {
        assert_eq!(
            Unit::Bytes.step(90.0 * 1024.0 * 1024.0),
            50.0 * 1024.0 * 1024.0
        );
        assert_eq!(Unit::Milliseconds.step(900_000.0), 300_000.0);
        assert_eq!(Unit::Count.step(40.0), 20.0);
    }
}
