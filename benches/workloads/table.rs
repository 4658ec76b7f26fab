//! The figures as one table, and the few statistics they need.

use std::fmt;

/// A figure of one workload, as it is shown.
struct Line {
    cells: [String; 6],
}

/// What was measured, in order.
#[derive(Default)]
pub struct Table(Vec<Line>);

/// What a figure is to reach.
#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Shown for what it tells.
    None,
}

impl Goal {
    fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::AtLeast(goal) if value >= goal => "reached",
            Self::AtMost(goal) if value <= goal => "reached",
            Self::None => "",
            Self::AtLeast(_) | Self::AtMost(_) => "MISSED",
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, "≥ {goal}"),
            Self::AtMost(goal) => write!(f, "≤ {goal}"),
            Self::None => Ok(()),
        }
    }
}

impl Table {
    /// A figure on its own.
    pub fn figure(&mut self, what: impl Into<String>, value: f64, unit: &str, goal: Goal) {
        let cells = [what.into(), shown(value, unit), String::new(), String::new()];
        self.push(cells, goal, value);
    }

    /// A figure beside its floor; the goal is one of their ratio, which is taken round by round.
    pub fn beside(&mut self, what: impl Into<String>, ours: &[f64], floor: &[f64], unit: &str, goal: Goal) {
        let ratios: Vec<f64> = ours.iter().zip(floor).map(|(ours, floor)| ours / floor).collect();
        let ratio = median(&ratios);
        let cells = [what.into(), shown(median(ours), unit), shown(median(floor), unit), format!("{ratio:.2}")];
        self.push(cells, goal, ratio);
    }

    fn push(&mut self, [what, ours, floor, ratio]: [String; 4], goal: Goal, judged: f64) {
        eprintln!("  {what}: {ours} {floor} {ratio}");
        let cells = [what, ours, floor, ratio, goal.to_string(), goal.verdict(judged).to_owned()];
        self.0.push(Line { cells });
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | minflow | floor | ratio | goal | |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for Line { cells } in &self.0 {
            writeln!(f, "| {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

fn shown(value: f64, unit: &str) -> String {
    let decimals = match value.abs() {
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 0.1 => 2,
        _ => 3,
    };
    format!("{value:.decimals$} {unit}")
}

pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The nearest rank; NaN of nothing.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// The slope of a line through points, by least squares.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    covariance / points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}
