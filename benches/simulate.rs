//! How fast a year goes by: DAGs of five tasks in a row on hourly schedules, on the virtual clock.
//!
//! `cargo bench --bench simulate`. A figure per task instance; the last cases are the years of a thousand DAGs. In `look_ahead` their
//! minutes are spread over the hour, and they hardly meet; in `look_ahead_at_once` all are due at the full hour, and wait for the
//! executor until 26 minutes past.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use jiff::{SignedDuration, Timestamp};
use minflow::dagfile::{self, Defaults};
use minflow::model::Pool;
use minflow::simulate::{Choosing, Outlook, Part, Plan, Subject, simulate_with};

fn main() {
    divan::main();
}

fn subject(number: usize, minute: usize) -> Subject {
    let tasks: String = (0..5).map(|task| format!("[tasks.t{task}]\nbash = \"true\"\n")).collect();
    let text = format!("schedule = \"{minute} * * * *\"\nchain = [\"t0 >> t1 >> t2 >> t3 >> t4\"]\n{tasks}");
    let file = format!("hourly_{number:04}.toml");
    let dag = dagfile::parse(Path::new(&file), text.as_bytes(), &Defaults::default()).expect("the text is valid");
    let outlook = Outlook { lasts_for: Duration::from_secs(10), fails: 0.0 };
    Subject {
        dag: Arc::new(dag),
        file: file.into(),
        first_seen_at: None,
        last_interval: None,
        outlooks: vec![outlook; 5],
    }
}

/// The DAGs are due at these minutes of the hour, in turn.
fn plan(dags: usize, days: i64, minutes: usize) -> Plan {
    let from: Timestamp = "2026-01-01T00:00:00Z".parse().expect("it is an instant");
    let pool = Pool { name: "default_pool".into(), slots: 128, description: String::new(), include_deferred: false };
    Plan {
        from,
        until: from + SignedDuration::from_hours(24 * days),
        subjects: (0..dags).map(|number| subject(number, number % minutes)).collect(),
        parallelism: 32,
        pools: vec![pool],
        choosing: Choosing::default(),
        seed: 0,
        is_drawn: false,
    }
}

fn on_two_threads(parts: &mut [Part<'_>]) {
    let left = Mutex::new(parts.iter_mut());
    let next = || left.lock().expect("nobody panics while it takes a part").next();
    let work = || {
        while let Some(part) = next() {
            part.go_on();
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
}

/// Of (DAGs, days).
#[divan::bench(sample_count = 1, sample_size = 1, args = [(1, 365), (100, 30), (1_000, 1), (1_000, 7), (1_000, 365)])]
fn look_ahead(bencher: Bencher<'_, '_>, case: (usize, i64)) {
    measure(bencher, case, 60);
}

/// Of (DAGs, days).
#[divan::bench(sample_count = 1, sample_size = 1, args = [(100, 30), (1_000, 1), (1_000, 365)])]
fn look_ahead_at_once(bencher: Bencher<'_, '_>, case: (usize, i64)) {
    measure(bencher, case, 1);
}

fn measure(bencher: Bencher<'_, '_>, (dags, days): (usize, i64), minutes: usize) {
    let plan = plan(dags, days, minutes);
    bencher.counter(ItemsCount::new(dags * 24 * 5 * days as usize)).bench_local(|| {
        let report = simulate_with(&plan, &on_two_threads, &mut |_| true);
        assert_eq!(report.totals.runs, (dags * 24) as u64 * days.unsigned_abs());
        assert_eq!(report.totals.failed_runs, 0);
        report
    });
}
