//! W6: one task mapped over a hundred thousand elements, and how soon another task can be killed meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use minflow::model::TaskState;
use minflow::scheduler::Command as Order;
use minflow::scheduler::command::{MarkTasks, RunRange, Spread};

use crate::home::{Home, Server};
use crate::host;
use crate::measure::Effort;
use crate::rows::Rows;
use crate::table::{Goal, Table, median};

const SLEEPER: &str = "[tasks.sleeper]\nbash = \"exec sleep 1000\"\ngrace = \"1s\"\n";

pub fn map(table: &mut Table, effort: Effort) {
    let rounds = effort.pick(3, 1);
    let count = effort.pick(100_000, 10_000);
    let home = Home::new(8);
    home.dag("one", "[tasks.many]\nempty = true\nexpand = { x = [1] }\n");
    home.dag("map", &map_dag(count));
    let (mut walls, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // A process of its own each time: the peak is of one map, not of those before it.
        let server = home.start(2);
        server.run("one");
        let pids = host::processes(home.path());
        let (wall, peak) = with_peak(&pids, || {
            let began = Instant::now();
            server.run("map");
            began.elapsed().as_secs_f64()
        });
        walls.push(wall);
        peaks.push(peak);
    }
    table.figure(format!("W6 map of {count}, wall"), median(&walls), "s", Goal::AtMost(10.0));
    table.figure(format!("W6 map of {count}, peak memory (PSS)"), median(&peaks), "MB", Goal::AtMost(150.0));
    let bytes = std::fs::metadata(home.path().join("minflow.db")).map_or(f64::NAN, |database| database.len() as f64);
    let made = (rounds * count) as f64;
    table.figure("W6 database, an instance", bytes / made, "bytes", Goal::None);
    let kills: Vec<f64> = (0..rounds).map(|_| kill_in_the_middle(count)).collect();
    table.figure("W6 a task's kill in the middle", median(&kills), "ms", Goal::AtMost(50.0));
    grows_evenly(table, effort);
}

/// What an instance costs in small maps and in large ones, by how long their runs last.
fn grows_evenly(table: &mut Table, effort: Effort) {
    let sizes: &[usize] = effort.pick(&[1_000, 10_000, 100_000], &[1_000, 10_000]);
    let home = Home::new(8);
    for &count in sizes {
        home.dag(&format!("map_{count}"), &map_dag(count));
    }
    let server = home.start(sizes.len());
    let rows = Rows::open(home.path());
    let cost = |&count: &usize| {
        let dag_id = format!("map_{count}");
        let of_one = |_| rows.run_length(&dag_id, &server.run(&dag_id)) * 1e3 / count as f64;
        median(&(0..5).map(of_one).collect::<Vec<f64>>())
    };
    let costs: Vec<f64> = sizes.iter().map(cost).collect();
    for (count, cost) in sizes.iter().zip(&costs) {
        table.figure(format!("W6 map of {count}, an instance"), *cost, "µs", Goal::None);
    }
    let (least, most) =
        costs.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), &cost| (least.min(cost), most.max(cost)));
    table.figure("W6 the dearest size beside the cheapest", most / least, "×", Goal::AtMost(1.5));
}

fn map_dag(count: usize) -> String {
    let list = |length: usize| (0..length).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
    format!("[tasks.many]\nempty = true\nexpand = {{ a = [{}], b = [{}] }}\n", list(count / 100), list(100))
}

/// The highest memory while `work` is done, in MB.
fn with_peak<T>(pids: &[i32], work: impl FnOnce() -> T) -> (T, f64) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0.0_f64;
            while !is_over.load(Ordering::Relaxed) {
                peak = peak.max(host::pss_megabytes(pids));
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        (done, watcher.join().expect("reading /proc does not fail"))
    })
}

/// Milliseconds from a mark of a running task to the end of its process, while a map is made.
fn kill_in_the_middle(count: usize) -> f64 {
    let home = Home::new(8);
    home.dag("sleep", SLEEPER);
    home.dag("map", &map_dag(count));
    let mut server = home.start(2);
    let rows = Rows::open(home.path());
    let run_id = server.trigger("sleep");
    let pid = server.until("the sleeper runs", Duration::from_millis(5), |_| rows.running_pid("sleeper"));
    server.trigger("map");
    let a_part = |_: &Server<'_>| (rows.instances("many") > count as i64 / 10).then_some(());
    server.until("a part of the map is made", Duration::from_millis(1), a_part);
    let mark = MarkTasks {
        dag_id: "sleep".into(),
        tasks: vec!["sleeper".to_owned()],
        spread: Spread { upstream: false, downstream: false },
        map_index: None,
        runs: RunRange { run_id: Some(run_id), past: false, future: false, from: None, to: None },
        state: TaskState::Failed,
    };
    let mut client = server.client();
    let began = Instant::now();
    let done = client.request(&Order::MarkTasks(mark));
    assert!(matches!(done, Ok(Ok(_))), "the mark is refused: {done:?}");
    let is_gone = |_: &Server<'_>| (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    server.until("the sleeper is gone", Duration::from_micros(200), is_gone);
    let took = began.elapsed().as_secs_f64() * 1e3;
    assert!(rows.instances("many") < count as i64, "the map was made before the kill");
    took
}
