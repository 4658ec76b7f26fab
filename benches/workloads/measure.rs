//! The workloads: what is run, how often, and which figures it gives.

use std::fmt::Write;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::home::{BINARY, Home, Server};
use crate::rows::{Rows, Span};
use crate::table::{Goal, Table, median, percentile, slope};
use crate::{floor, host};

/// How much time the figures may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    Full,
    /// Smaller workloads and fewer rounds: to see that all works, and a first impression.
    Quick,
}

impl Effort {
    pub fn pick<T>(self, full: T, quick: T) -> T {
        if self == Self::Full { full } else { quick }
    }
}

/// Threads of the floor of W1.
const FLOOR_THREADS: usize = 8;

/// W1: one task, then many at once, then one.
pub fn wide(table: &mut Table, effort: Effort) {
    let rounds = effort.pick(5, 2);
    wide_at(table, 8, 500, rounds);
    wide_at(table, 64, 500, rounds);
    if effort == Effort::Full {
        wide_at(table, 8, 5_000, 3);
    }
}

fn wide_at(table: &mut Table, parallelism: usize, width: usize, rounds: usize) {
    let home = Home::new(parallelism);
    home.dag("wide", &wide_dag(width));
    let server = home.start(1);
    let rows = Rows::open(home.path());
    server.run("wide");
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        floors.push(floor::wide(width + 2, FLOOR_THREADS));
        let spans = rows.spans("wide", &server.run("wide"));
        assert_eq!(spans.len(), width + 2, "every task of the run has succeeded");
        ours.push(spans.len() as f64 / (wall(&spans) / 1e3));
    }
    let what = format!("W1 wide {width}, parallelism {parallelism}");
    table.beside(what, &ours, &floors, "tasks/s", Goal::AtLeast(0.8));
}

fn wide_dag(width: usize) -> String {
    let mut text = String::from("[tasks.first]\nbash = \"true\"\n");
    let mut ids = Vec::new();
    for number in 0..width {
        let _ = writeln!(text, "[tasks.t{number}]\nbash = \"true\"\ndepends_on = [\"first\"]");
        ids.push(format!("\"t{number}\""));
    }
    let _ = writeln!(text, "[tasks.last]\nbash = \"true\"\ndepends_on = [{}]", ids.join(", "));
    text
}

/// From the first start to the last end, in milliseconds.
fn wall(spans: &[Span]) -> f64 {
    let start = spans.iter().map(|span| span.start).fold(f64::INFINITY, f64::min);
    spans.iter().map(|span| span.end).fold(0.0, f64::max) - start
}

/// W2: tasks in a row.
pub fn chain(table: &mut Table, effort: Effort) {
    const LENGTH: usize = 50;
    let home = Home::new(8);
    home.dag("chain", &chain_dag(LENGTH));
    let server = home.start(1);
    let rows = Rows::open(home.path());
    server.run("chain");
    let (mut ours, mut floors, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.pick(11, 3) {
        floors.push(floor::chain(LENGTH));
        let spans = rows.spans("chain", &server.run("chain"));
        assert_eq!(spans.len(), LENGTH, "every task of the run has succeeded");
        ours.push(wall(&spans) / LENGTH as f64);
        gaps.extend(spans.windows(2).map(|pair| pair[1].start - pair[0].end));
    }
    table.beside("W2 chain of 50, one hop", &ours, &floors, "ms", Goal::AtMost(1.5));
    table.figure("W2 end to next start, p50", median(&gaps), "ms", Goal::None);
    table.figure("W2 end to next start, p99", percentile(&gaps, 99.0), "ms", Goal::None);
}

fn chain_dag(length: usize) -> String {
    let mut text = String::from("[tasks.t0]\nbash = \"true\"\n");
    for number in 1..length {
        let _ = writeln!(text, "[tasks.t{number}]\nbash = \"true\"\ndepends_on = [\"t{}\"]", number - 1);
    }
    text
}

/// A DAG of five tasks that is not due before the day after tomorrow.
fn resting_dag() -> String {
    let day = (Timestamp::now() + Duration::from_secs(2 * 86_400)).to_zoned(TimeZone::UTC).date();
    let mut text = format!("schedule = \"@daily\"\nstart_date = {day}\n");
    text.push_str(&chain_dag(5));
    text
}

/// W3: many DAGs that rest.
pub fn many(table: &mut Table, effort: Effort) {
    many_at(table, 1_000, 0.2, effort);
    if effort == Effort::Full {
        many_at(table, 10_000, 1.0, effort);
    }
}

fn many_at(table: &mut Table, dags: usize, goal_seconds: f64, effort: Effort) {
    let home = Home::new(32);
    let text = resting_dag();
    for number in 0..dags {
        home.dag(&format!("dag_{number}"), &text);
    }
    let first = live_after(&home, dags);
    let restarts: Vec<f64> = (0..effort.pick(3, 1)).map(|_| live_after(&home, dags)).collect();
    table.figure(format!("W3 {dags} DAGs live, first start"), first, "s", Goal::AtMost(goal_seconds));
    // The database counts the DAGs of the last time before their files are read again: this tells when they are answered for, not
    // when the files have been looked at.
    table.figure(format!("W3 {dags} DAGs counted, restart"), median(&restarts), "s", Goal::None);
    let mut server = home.start(dags);
    std::thread::sleep(Duration::from_secs(5));
    let pids = host::processes(home.path());
    let (began, before) = (Instant::now(), host::cpu_seconds(&pids));
    std::thread::sleep(Duration::from_secs(effort.pick(30, 5)));
    let percent = (host::cpu_seconds(&pids) - before) / began.elapsed().as_secs_f64() * 100.0;
    table.figure(format!("W3 {dags} DAGs, memory (PSS)"), host::pss_megabytes(&pids), "MB", Goal::None);
    table.figure(format!("W3 {dags} DAGs, idle CPU of a core"), percent, "%", Goal::AtMost(0.5));
    let saves: Vec<f64> = (0..effort.pick(9, 3)).map(|round| live_again_after(&home, &mut server, round)).collect();
    table.figure(format!("W3 {dags} DAGs, one saved and live"), median(&saves), "s", Goal::AtMost(1.0));
    drop(server);
}

/// Seconds from exec to all DAGs live.
fn live_after(home: &Home, dags: usize) -> f64 {
    home.start(dags).age()
}

/// Seconds from the save of a file to its new definition in `/status`.
fn live_again_after(home: &Home, server: &mut Server<'_>, round: u32) -> f64 {
    let owner = format!("owner_{round}");
    home.dag("dag_0", &format!("owner = \"{owner}\"\n{}", resting_dag()));
    let saved = Instant::now();
    server.until("the saved file is live", Duration::from_millis(2), |server| {
        (server.status("dag_0")?["dags"][0]["owner"] == *owner).then_some(())
    });
    saved.elapsed().as_secs_f64()
}

/// W4: five DAGs, of which one runs at once.
pub fn start(table: &mut Table, effort: Effort) {
    let (mut healthy, mut done, mut memory, mut supervisor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.pick(9, 3) {
        let home = Home::new(32);
        let text = resting_dag();
        for number in 0..4 {
            home.dag(&format!("dag_{number}"), &text);
        }
        home.dag("now", "schedule = \"@once\"\nstart_date = 2020-01-01\n[tasks.hello]\nbash = \"true\"\n");
        let executed_at = Timestamp::now().as_microsecond() as f64 / 1e3;
        let mut server = home.exec();
        server.await_health();
        healthy.push(server.age() * 1e3);
        let rows = Rows::open(home.path());
        let ended_at = server.until("the first task is over", Duration::from_millis(1), |_| rows.first_end());
        done.push(ended_at - executed_at);
        if memory.len() < effort.pick(3, 1) {
            std::thread::sleep(Duration::from_secs(5));
            memory.push(host::pss_megabytes(&host::processes(home.path())));
            supervisor.push(host::anonymous_kilobytes(&[host::supervisor(home.path())]));
        }
    }
    table.figure("W4 exec to healthy", median(&healthy), "ms", Goal::AtMost(50.0));
    table.figure("W4 exec to first task done", median(&done), "ms", Goal::None);
    table.figure("W4 memory at rest (PSS, all processes)", median(&memory), "MB", Goal::AtMost(10.0));
    // The bound that `tests/supervisor.rs` judges in any build; here it is the one that is shipped.
    table.figure("W4 supervisor's anonymous memory", median(&supervisor), "kB", Goal::AtMost(2_048.0));
    let bytes = std::fs::metadata(BINARY).map_or(f64::NAN, |binary| binary.len() as f64);
    table.figure("W4 binary", bytes / 1e6, "MB", Goal::None);
}

/// W5: many DAGs due in the same minute.
pub fn lag(table: &mut Table, effort: Effort) {
    lag_of(table, 100, Goal::AtMost(200.0));
    if effort == Effort::Full {
        lag_of(table, 1_000, Goal::None);
    }
}

fn lag_of(table: &mut Table, dags: usize, goal: Goal) {
    const PARALLELISM: usize = 32;
    let home = Home::new(PARALLELISM);
    // Time to be live, whatever the second of this minute.
    let due = (Timestamp::now() + Duration::from_secs(75)).to_zoned(TimeZone::UTC);
    let schedule = format!("{} {} {} {} *", due.minute(), due.hour(), due.day(), due.month());
    for number in 0..dags {
        home.dag(&format!("dag_{number}"), &format!("schedule = \"{schedule}\"\n[tasks.hello]\nbash = \"true\"\n"));
    }
    let mut server = home.start(dags);
    let floor = floor::burst(dags, PARALLELISM);
    let rows = Rows::open(home.path());
    let all_begun = |_: &_| Some(rows.lags()).filter(|lags| lags.len() == dags);
    let lags = server.until("every DAG has begun its run", Duration::from_millis(250), all_begun);
    for (name, percent, goal) in [("p50", 50.0, Goal::None), ("p99", 99.0, goal)] {
        let ours = percentile(&lags, percent);
        table.figure(format!("W5 {dags} DAGs due at once, {name}"), ours, "ms", goal);
        let of_floor = [percentile(&floor, percent)];
        table.beside(format!("W5 {dags} the same beside the floor, {name}"), &[ours], &of_floor, "ms", Goal::None);
    }
}

/// Fifty DAGs each five seconds: does memory grow?
pub fn soak(table: &mut Table, length: Duration) {
    const SETTLED: f64 = 2.0;
    /// Minutes: what was taken so long before or after that is what the end is compared with.
    const AROUND: f64 = 0.5;
    /// Four pages: a thread may have reached deeper into its stack.
    const NOISE: f64 = 16.0;
    let home = Home::new(8);
    for number in 0..50 {
        home.dag(&format!("dag_{number}"), "schedule = { every = \"5s\" }\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\ndepends_on = [\"a\"]\n");
    }
    let server = home.start(50);
    let pids = host::processes(home.path());
    let began = Instant::now();
    let mut samples = Vec::new();
    let (mut settled, mut grown) = (0.0_f64, f64::NAN);
    while began.elapsed() < length {
        std::thread::sleep(Duration::from_secs(10));
        let at = began.elapsed().as_secs_f64() / 60.0;
        let sample = (at, host::pss_megabytes(&pids));
        let own = host::anonymous_kilobytes(&pids);
        eprintln!("  minute {at:.1}: {:.2} MB, of it {own} kB anonymous", sample.1);
        samples.push(sample);
        if at > SETTLED + AROUND {
            grown = own - settled;
        } else if at > SETTLED - AROUND {
            settled = own.max(settled);
        }
    }
    let percent = host::cpu_seconds(&pids) / server.age() * 100.0;
    let (runs, tasks) = Rows::open(home.path()).finished();
    samples.retain(|sample| sample.0 > SETTLED);
    let last = samples.last().map_or(f64::NAN, |sample| sample.1);
    table.figure("soak runs finished", runs as f64, "", Goal::None);
    table.figure("soak tasks finished", tasks as f64, "", Goal::None);
    table.figure("soak memory at the end (PSS)", last, "MB", Goal::None);
    table.figure("soak memory after minute 2", slope(&samples) * 1e3, "kB a minute", Goal::None);
    table.figure("soak anonymous memory, end above minute 2", grown, "kB", Goal::AtMost(NOISE));
    table.figure("soak CPU of minflow itself", percent, "% of a core", Goal::None);
}

/// The last 33 hours of nine DAGs of ten tasks each minute, caught up with at full speed: does memory grow?
pub fn hours(table: &mut Table, effort: Effort) {
    const DAGS: usize = 9;
    /// What is not counted for the slope, of all.
    const WARMING: f64 = 0.1;
    let minutes = effort.pick(33 * 60, 60);
    let all = minutes * DAGS;
    let since = Timestamp::now() - Duration::from_secs(60 * minutes as u64);
    let home = Home::new(16);
    for number in 0..DAGS {
        let mut text = format!("schedule = \"* * * * *\"\nstart_date = {since}\ncatchup = true\n");
        text.push_str("[tasks.t0]\nbash = \"true\"\n");
        for task in 1..10 {
            let _ = write!(text, "[tasks.t{task}]\nbash = \"true\"\ndepends_on = [\"t{}\"]\n", task / 2);
        }
        home.dag(&format!("dag_{number}"), &text);
    }
    let server = home.start(DAGS);
    let (pids, rows, began) = (host::processes(home.path()), Rows::open(home.path()), Instant::now());
    let mut samples = Vec::new();
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let (runs, _) = rows.finished();
        samples.push((runs as f64 / all as f64 * 33.0, host::pss_megabytes(&pids)));
        if runs as usize >= all {
            break;
        }
    }
    let percent = host::cpu_seconds(&pids) / server.age() * 100.0;
    samples.retain(|sample| sample.0 > 33.0 * WARMING);
    let (least, most) =
        samples.iter().fold((f64::MAX, 0.0_f64), |(least, most), &(_, size)| (least.min(size), most.max(size)));
    let (runs, tasks) = rows.finished();
    table.figure("33 hours: runs finished", runs as f64, "", Goal::None);
    table.figure("33 hours: tasks finished", tasks as f64, "", Goal::None);
    table.figure("33 hours: seconds that they took", began.elapsed().as_secs_f64(), "s", Goal::None);
    table.figure("33 hours: memory after the first tenth, least (PSS)", least, "MB", Goal::None);
    table.figure("33 hours: memory, most (PSS)", most, "MB", Goal::AtMost(30.0));
    table.figure("33 hours: slope", slope(&samples) * 1e3, "kB an hour", Goal::None);
    table.figure("33 hours: CPU of minflow itself", percent, "% of a core", Goal::None);
}
