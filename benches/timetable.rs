//! What the timetable costs: `Cron::next` over all recorded expressions and over long gaps, and reading the longest fields.
//!
//! `cargo bench --bench timetable`. The figures to hold are printed: the median of each expression's own, and the slowest ones.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minflow::timetable::Cron;

const CASES: &str = include_str!("../tests/vectors/cron_next.dev.jsonl");
/// Calls of which one sample is the mean, so that the clock's own cost does not count; a long call is a sample of its own.
const BATCH: u32 = 20;
const SAMPLES: usize = 51;

/// The median of what a call costs.
fn cost(batch: u32, mut call: impl FnMut()) -> Duration {
    let mut sample = || {
        let begun = Instant::now();
        (0..batch).for_each(|_| call());
        begun.elapsed() / batch
    };
    let mut samples: Vec<Duration> = (0..SAMPLES).map(|_| sample()).collect();
    samples.sort();
    samples[SAMPLES / 2]
}

fn show(what: &str, cost: Duration) {
    println!("{what:<60} {:>9.3} us", cost.as_secs_f64() * 1e6);
}

fn main() {
    recorded();
    let from: Timestamp = "2024-03-01T00:00:00Z".parse().expect("an instant");
    for text in ["0 0 29 2 *", "0 0 29 2 mon", "0 0 29 2 *,mon#5", "0 0 30 2 *", "* * 29 2 *", "0 0 1 1 * 0 2074"] {
        for zone in ["UTC", "America/New_York"] {
            let cron = Cron::parse(text).expect("an expression");
            let zone = TimeZone::get(zone).expect("a zone");
            let cost = cost(BATCH, || {
                black_box(cron.next(black_box(from), &zone));
            });
            show(&format!("next of `{text}` in {}", zone.iana_name().unwrap_or("UTC")), cost);
        }
    }
    for (what, item) in [("1,333 minutes", "59"), ("1,000 steps of a minute", "*/2"), ("800 years", "2099")] {
        let count = item.len() + 1;
        let many = vec![item; 4_000 / count].join(",");
        let text = if item == "2099" { format!("0 0 * * * 0 {many}") } else { format!("{many} * * * *") };
        show(
            &format!("a field of {what} read"),
            cost(1, || {
                black_box(Cron::parse(black_box(&text)).expect("read"));
            }),
        );
    }
}

/// Each recorded case: its expression, in its zone, from its instant.
fn recorded() {
    let mut costs = Vec::new();
    let mut expressions = BTreeSet::new();
    for line in CASES.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("a case");
        let text = |field: &str| case[field].as_str().expect("a text").to_owned();
        let cron = Cron::parse(&text("expr")).expect("an expression");
        let zone = TimeZone::get(&text("tz")).expect("a zone");
        let from: Timestamp = text("from").parse().expect("an instant");
        let cost = cost(BATCH, || {
            black_box(cron.next(black_box(from), &zone));
        });
        expressions.insert(text("expr"));
        costs.push((cost, format!("`{}` in {} from {from}", text("expr"), text("tz"))));
    }
    costs.sort();
    println!("{} recorded cases of {} expressions", costs.len(), expressions.len());
    show("median", costs[costs.len() / 2].0);
    show("99th percentile", costs[costs.len() * 99 / 100].0);
    for (cost, case) in costs.iter().rev().take(3) {
        show(&format!("slowest: {case}"), *cost);
    }
}
