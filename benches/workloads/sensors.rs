//! W8: what ten thousand waiting sensors of a kind cost a minflow that does nothing else, and what it costs to start an operator.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::home::{BINARY, Home};
use crate::host;
use crate::measure::Effort;
use crate::rows::Rows;
use crate::table::{Goal, Table, median};

/// Sensors in one task: a DAG of one mapped task would be one; these are instances of runs, as users have them.
const PER_DAG: usize = 100;
/// So long figures settle before they are taken: two intervals, so that all have looked.
const SETTLED: Duration = Duration::from_secs(130);

pub fn sensors(table: &mut Table, effort: Effort) {
    let count = effort.pick(10_000, 1_000);
    let address = serve();
    let http = format!("http = {{ url = \"http://{address}/{{{{ task.task_id }}}}\" }}");
    waiting(table, effort, "time", count, "time_delta = \"5d\"", Goal::AtMost(2.0), Goal::AtMost(1.0));
    let file = "file = \"../in/{{ task.task_id }}/*.csv\"";
    waiting(table, effort, "file", count, file, Goal::AtMost(2.0), Goal::AtMost(1.0));
    // Each look is a connection of its own, which the kernel serves on the same host: shown beside that as a floor.
    waiting(table, effort, "http", count, &http, Goal::None, Goal::AtMost(1.0));
    operator(table, effort, &address);
}

/// Of the same home, before its sensors wait and while they do: CPU, and memory that they have taken.
fn waiting(table: &mut Table, effort: Effort, kind: &str, count: usize, sensor: &str, cpu: Goal, memory: Goal) {
    let home = Home::new(32);
    fs::create_dir(home.path().join("in")).expect("the home can be written");
    let dags = count / PER_DAG;
    for dag in 0..dags {
        home.dag(&format!("dag_{dag}"), &dag_of(sensor));
    }
    let server = &mut home.start(dags);
    let pids = || host::processes(home.path());
    std::thread::sleep(Duration::from_secs(effort.pick(20, 5)));
    let before = host::anonymous_kilobytes(&pids());
    for dag in 0..dags {
        server.trigger(&format!("dag_{dag}"));
    }
    let rows = Rows::open(home.path());
    let all = |_: &_| (rows.in_state("deferred") == count as i64).then_some(());
    server.until("all sensors wait", Duration::from_millis(100), all);
    std::thread::sleep(effort.pick(SETTLED, Duration::from_secs(65)));
    let processes = pids();
    let (began, spent) = (Instant::now(), host::cpu_seconds_of_all(&processes));
    std::thread::sleep(Duration::from_secs(effort.pick(120, 60)));
    let percent = (host::cpu_seconds_of_all(&processes) - spent) / began.elapsed().as_secs_f64() * 100.0;
    let grown = (host::anonymous_kilobytes(&processes) - before) / count as f64;
    assert_eq!(rows.in_state("deferred"), count as i64, "they all still wait");
    table.figure(format!("W8 {count} {kind} sensors, CPU of a core"), percent, "%", cpu);
    table.figure(format!("W8 {count} {kind} sensors, memory of each"), grown, "kB", memory);
    let pss = host::pss_megabytes(&processes);
    table.figure(format!("W8 {count} {kind} sensors, memory (PSS, all processes)"), pss, "MB", Goal::None);
}

fn dag_of(sensor: &str) -> String {
    let mut text = format!("max_active_tasks = {PER_DAG}\n");
    for number in 0..PER_DAG {
        let _ = writeln!(text, "[tasks.t{number}]\nsensor = {{ {sensor}, poke_interval = 60 }}");
    }
    text
}

/// A server on loopback that says "not yet" at once. Its address.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut asked = [0; 4096];
            // A request without a body is one piece.
            let _ = stream.read(&mut asked);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    address
}

/// From the start to the end of `minflow operator http` that is answered at once, beside a `bash -c true`: wall time and CPU.
fn operator(table: &mut Table, effort: Effort, address: &str) {
    let home = Home::new(1);
    let value = home.path().join("value");
    let task = format!(
        "{{\"request\":{{\"method\":\"GET\",\"url\":\"http://{address}/\",\"headers\":[],\"body\":null,\"timeout\":{{\"secs\":10,\"nanos\":0}},\
         \"trust\":\"host\",\"keep\":\"beginning\"}},\"expect_status\":[{{\"first\":404,\"last\":404}}],\"retry_status\":[],\"response\":\"none\",\
         \"response_check\":null,\"response_filter\":null,\"awaited\":null,\"value\":{value:?},\"verdict\":{value:?}}}"
    );
    let file = home.path().join("task");
    fs::write(&file, task).expect("the home can be written");
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..effort.pick(400, 60) {
        floors.push(timed(Command::new("bash").args(["-c", "true"]).stdin(Stdio::null())));
        let input = fs::File::open(&file).expect("it was just written");
        let mut operator = Command::new(BINARY);
        operator.args(["operator", "http", "--home"]).arg(home.path()).stdin(input);
        ours.push(timed(&mut operator));
    }
    table.beside(
        "W8 `operator http`, answered at once, beside `bash -c true`",
        &ours,
        &floors,
        "ms",
        Goal::AtMost(2.0),
    );
    table.figure("W8 the same, the quickest of each", least(&ours) / least(&floors), "", Goal::None);
    table.figure("W8 `operator http`", median(&ours), "ms", Goal::None);
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Milliseconds from the spawn to the reaped end.
fn timed(command: &mut Command) -> f64 {
    let began = Instant::now();
    let status = command.stdout(Stdio::null()).status().expect("it can be executed");
    assert!(status.success(), "{command:?} ends with {status}");
    began.elapsed().as_secs_f64() * 1e3
}
