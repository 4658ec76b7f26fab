//! A simulation as a picture: who runs when, and how full the shared limits are. Its size is bounded whatever was simulated.

use std::fmt::Write;

use jiff::Timestamp;

use crate::simulate::{LimitKind, Plan, Report};

/// Into how many parts the time is divided.
const COLUMNS: usize = 300;
/// How many runs are drawn one by one; of more, only how much runs in each part of the time.
const MAX_BARS: usize = 4_000;
/// How many DAGs are drawn; of more, the busiest.
const MAX_ROWS: usize = 60;
/// How many limits are drawn.
const MAX_CHARTS: usize = 7;

const LABEL: f64 = 220.0;
const CHART: f64 = 900.0;
const ROW: f64 = 16.0;
const BAND: f64 = 60.0;

/// What there is to draw; empty unless the plan asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// By DAG: the share of each column during which runs of it are running; more than 1 if several are.
    rows: Vec<Vec<f32>>,
    /// Parallelism and the pools, as the report lists them: the slots held in each column, on average.
    held: Vec<Vec<f64>>,
    /// None: too many.
    bars: Option<Vec<Bar>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Bar {
    dag: u32,
    /// In columns from the left.
    from: f32,
    to: f32,
    has_succeeded: bool,
}

/// Where a picture is made while the simulation goes on.
pub(super) struct Canvas {
    picture: Picture,
    is_drawn: bool,
    from: i64,
    /// Of one column, in microseconds.
    width: i64,
    /// What has been drawn since [`Canvas::watch`].
    strokes: Vec<Stroke>,
    is_watched: bool,
}

/// What is drawn at once. Instants in microseconds.
#[derive(Clone, Debug)]
pub(super) enum Stroke {
    /// So many slots of each limit are held.
    Hold { from: i64, to: i64, held: Vec<u64> },
    /// A run of a DAG.
    Bar { from: i64, to: i64, dag: usize, has_succeeded: bool },
}

impl Canvas {
    pub(super) fn new(plan: &Plan, limits: usize) -> Self {
        let span = plan.until.as_microsecond() - plan.from.as_microsecond();
        let picture = Picture {
            rows: if plan.is_drawn { vec![vec![0.0; COLUMNS]; plan.subjects.len()] } else { Vec::new() },
            held: if plan.is_drawn { vec![vec![0.0; COLUMNS]; limits] } else { Vec::new() },
            bars: plan.is_drawn.then(Vec::new),
        };
        let (from, width) = (plan.from.as_microsecond(), (span / COLUMNS as i64).max(1));
        Self { picture, is_drawn: plan.is_drawn, from, width, strokes: Vec::new(), is_watched: false }
    }

    /// So many slots of each limit are held between two instants, in microseconds.
    pub(super) fn hold(&mut self, from: i64, to: i64, held: impl Iterator<Item = u64>) {
        if self.is_drawn {
            self.put(Stroke::Hold { from, to, held: held.collect() });
        }
    }

    /// A run of a DAG.
    pub(super) fn bar(&mut self, dag: usize, from: Timestamp, to: Timestamp, has_succeeded: bool) {
        if self.is_drawn {
            let (from, to) = (from.as_microsecond(), to.as_microsecond());
            self.put(Stroke::Bar { from, to, dag, has_succeeded });
        }
    }

    fn put(&mut self, stroke: Stroke) {
        self.draw(&stroke, 0);
        if self.is_watched {
            self.strokes.push(stroke);
        }
    }

    /// Draws these again, so many microseconds later. In the same order, as sums of fractions depend on it.
    pub(super) fn repeat(&mut self, strokes: &[Stroke], later: i64) {
        strokes.iter().for_each(|stroke| self.draw(stroke, later));
    }

    fn draw(&mut self, stroke: &Stroke, later: i64) {
        let (start, width) = (self.from, self.width);
        match *stroke {
            Stroke::Hold { from, to, ref held } => {
                for (row, held) in self.picture.held.iter_mut().zip(held).filter(|(_, held)| **held > 0) {
                    spread(start, width, from + later, to + later, |column, share| row[column] += *held as f64 * share);
                }
            }
            Stroke::Bar { from, to, dag, has_succeeded } => {
                let (from, to) = (from + later, to + later);
                let row = &mut self.picture.rows[dag];
                spread(start, width, from, to, |column, share| row[column] += share as f32);
                let column = |at: i64| ((at - start) as f64 / width as f64) as f32;
                if let Some(bars) = &mut self.picture.bars {
                    bars.push(Bar { dag: dag as u32, from: column(from), to: column(to), has_succeeded });
                    if bars.len() > MAX_BARS {
                        self.picture.bars = None;
                    }
                }
            }
        }
    }

    /// Keeps from now on what is drawn, if anything is.
    pub(super) fn watch(&mut self) {
        self.strokes.clear();
        self.is_watched = self.is_drawn;
    }

    /// Keeps no longer what is drawn.
    pub(super) fn unwatch(&mut self) {
        self.strokes = Vec::new();
        self.is_watched = false;
    }

    pub(super) fn strokes(&self) -> &[Stroke] {
        &self.strokes
    }

    pub(super) fn into_picture(self) -> Picture {
        self.picture
    }
}

/// Tells for each column which share of it lies between two instants.
fn spread(start: i64, width: i64, from: i64, to: i64, mut add: impl FnMut(usize, f64)) {
    let mut at = from.max(start);
    while at < to {
        let column = (at - start) / width;
        let end = (start + (column + 1) * width).min(to);
        let Some(column) = usize::try_from(column).ok().filter(|column| *column < COLUMNS) else { return };
        add(column, (end - at) as f64 / width as f64);
        at = end;
    }
}

/// The report's picture as a self-contained SVG: the shared limits above, a line for each DAG below.
pub fn draw(report: &Report) -> String {
    let picture = &report.picture;
    let charts = charts(report);
    let rows = rows(picture);
    let hidden = picture.rows.len() - rows.len();
    let top = 46.0;
    let first_row = top + charts.len() as f64 * (BAND + 14.0) + 10.0;
    let height = first_row + (rows.len() + usize::from(hidden > 0)) as f64 * ROW + 30.0;
    let width = LABEL + CHART + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\" fill=\"#334155\">\n\
         <title>minflow simulate, {from} to {until}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"18\" font-size=\"14\">{from} to {until}: {runs} runs, {failed} failed, {instances} task instances</text>\n",
        from = report.from,
        until = report.until,
        runs = report.totals.runs,
        failed = report.totals.failed_runs,
        instances = report.totals.instances,
    );
    axis(&mut svg, report, top - 10.0, height - 20.0);
    for (at, (label, size, held)) in charts.iter().enumerate() {
        band(&mut svg, top + at as f64 * (BAND + 14.0), label, *size, held);
    }
    for (at, &dag) in rows.iter().enumerate() {
        line(&mut svg, report, dag, first_row + at as f64 * ROW);
    }
    if hidden > 0 {
        let y = first_row + rows.len() as f64 * ROW + 11.0;
        let _ = writeln!(svg, "<text x=\"8\" y=\"{y}\" fill=\"#64748b\">and {hidden} DAGs that are less busy</text>");
    }
    svg.push_str("</svg>\n");
    svg
}

/// The limits that hold anything, parallelism first: label, size, and what is held.
fn charts(report: &Report) -> Vec<(String, Option<u64>, &Vec<f64>)> {
    let limits = report.limits.iter().zip(&report.picture.held);
    let used =
        limits.filter(|(limit, held)| limit.kind == LimitKind::Parallelism || held.iter().any(|held| *held > 0.0));
    used.map(|(limit, held)| (limit.kind.label(), limit.size, held)).take(MAX_CHARTS).collect()
}

/// The DAGs to draw, in the order of the report.
fn rows(picture: &Picture) -> Vec<usize> {
    let busy = |dag: usize| picture.rows[dag].iter().map(|share| f64::from(*share)).sum::<f64>();
    let mut rows: Vec<usize> = (0..picture.rows.len()).collect();
    if rows.len() > MAX_ROWS {
        let mut by_busy: Vec<(f64, usize)> = rows.iter().map(|&dag| (busy(dag), dag)).collect();
        by_busy.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        rows = by_busy.iter().take(MAX_ROWS).map(|(_, dag)| *dag).collect();
        rows.sort_unstable();
    }
    rows
}

fn axis(svg: &mut String, report: &Report, top: f64, bottom: f64) {
    const MARKS: i64 = 6;
    let (from, until) = (report.from.as_microsecond(), report.until.as_microsecond());
    for mark in 0..=MARKS {
        let at = from + (until - from) / MARKS * mark;
        let x = LABEL + CHART * mark as f64 / MARKS as f64;
        let text =
            Timestamp::from_microsecond(at).map(|at| at.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default();
        let anchor = if mark == MARKS { "end" } else { "middle" };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#e2e8f0\"/>\
             <text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"#64748b\">{text}</text>",
            y = bottom + 14.0,
        );
    }
}

fn band(svg: &mut String, y: f64, label: &str, size: Option<u64>, held: &[f64]) {
    let peak = held.iter().copied().fold(0.0, f64::max);
    let full = size.map_or(peak, |size| size as f64).max(peak).max(1.0);
    let bottom = y + BAND;
    let mut path = format!("M{LABEL} {bottom}");
    for (column, held) in held.iter().enumerate() {
        let (x, next) = (x_of(column as f64), x_of(column as f64 + 1.0));
        let at = bottom - BAND * held / full;
        let _ = write!(path, "L{x:.1} {at:.1}L{next:.1} {at:.1}");
    }
    let of = size.map_or(String::new(), |size| format!(" of {size}"));
    let _ = writeln!(
        svg,
        "<text x=\"8\" y=\"{}\">{}</text><text x=\"8\" y=\"{}\" fill=\"#64748b\">up to {peak:.1}{of}</text>\
         <rect x=\"{LABEL}\" y=\"{y}\" width=\"{CHART}\" height=\"{BAND}\" fill=\"none\" stroke=\"#cbd5e1\"/>\
         <path d=\"{path}L{} {bottom}Z\" fill=\"#38bdf8\"/>",
        y + 14.0,
        escaped(label),
        y + 28.0,
        LABEL + CHART,
    );
}

fn line(svg: &mut String, report: &Report, dag: usize, y: f64) {
    let label: String = report.dags[dag].dag_id.chars().take(34).collect();
    let _ = writeln!(svg, "<text x=\"8\" y=\"{}\">{}</text>", y + 11.0, escaped(&label));
    if let Some(bars) = &report.picture.bars {
        for bar in bars.iter().filter(|bar| bar.dag as usize == dag) {
            let (x, end) = (x_of(bar.from.into()), x_of(bar.to.into()));
            let colour = if bar.has_succeeded { "#16a34a" } else { "#dc2626" };
            let width = (end - x).max(0.6);
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.2}\" y=\"{}\" width=\"{width:.2}\" height=\"10\" fill=\"{colour}\" opacity=\"0.8\"/>",
                y + 3.0
            );
        }
        return;
    }
    let shades: Vec<u32> = report.picture.rows[dag].iter().map(|share| shade(*share)).collect();
    let mut column = 0;
    for group in shades.chunk_by(|a, b| a == b) {
        if group[0] > 0 {
            let (x, end) = (x_of(column as f64), x_of((column + group.len()) as f64));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{}\" width=\"{:.1}\" height=\"10\" fill=\"#16a34a\" opacity=\"0.{}\"/>",
                y + 3.0,
                end - x,
                group[0]
            );
        }
        column += group.len();
    }
}

/// From 0, nothing runs, to 9, something always does; in few steps, so that equal neighbours can be drawn as one.
fn shade(share: f32) -> u32 {
    match share {
        share if share <= 0.0 => 0,
        share if share < 0.1 => 2,
        share if share < 0.4 => 4,
        share if share < 0.8 => 6,
        _ => 9,
    }
}

fn x_of(column: f64) -> f64 {
    LABEL + CHART * (column / COLUMNS as f64).min(1.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
