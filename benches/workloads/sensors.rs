//! W8: what ten thousand waiting sensors of a kind cost a minflow that does nothing else, and what it costs to start an operator.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
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
    let (closing, keeping) = (serve(Connection::Closes), serve(Connection::Stays));
    let http = |address: &str| format!("http = {{ url = \"http://{address}/{{{{ task.task_id }}}}\" }}");
    waiting(table, effort, "time", "time_delta = \"5d\"");
    waiting(table, effort, "file", "file = \"../in/{{ task.task_id }}/*.csv\"");
    waiting(table, effort, "http", &http(&keeping));
    // Each look is a connection of its own, which the kernel makes and ends.
    waiting(table, effort, "http (connections closed)", &http(&closing));
    operator(table, effort, &closing);
}

/// Of the same home, before its sensors wait, while a tenth of them does and while all do: CPU, and memory that they have taken. What is
/// taken once, whoever waits, is in the level and not in what one more takes.
fn waiting(table: &mut Table, effort: Effort, kind: &str, sensor: &str) {
    const COUNT: usize = 10_000;
    const FIRST: usize = COUNT / 10;
    let home = Home::new(32);
    fs::create_dir(home.path().join("in")).expect("the home can be written");
    let dags = COUNT / PER_DAG;
    for dag in 0..dags {
        home.dag(&format!("dag_{dag}"), &dag_of(sensor));
    }
    let server = &mut home.start(dags);
    let pids = || host::processes(home.path());
    std::thread::sleep(Duration::from_secs(effort.pick(20, 5)));
    let before = host::anonymous_kilobytes(&pids());
    let rows = Rows::open(home.path());
    let mut let_wait = |from: usize, to: usize| {
        for dag in from / PER_DAG..to / PER_DAG {
            server.trigger(&format!("dag_{dag}"));
        }
        let all = |_: &_| (rows.in_state("deferred") == to as i64).then_some(());
        server.until("all sensors wait", Duration::from_millis(100), all);
        std::thread::sleep(effort.pick(SETTLED, Duration::from_secs(65)));
    };
    let_wait(0, FIRST);
    let of_first = host::anonymous_kilobytes(&pids());
    let_wait(FIRST, COUNT);
    let processes = pids();
    let (began, spent) = (Instant::now(), host::cpu_seconds_of_all(&processes));
    std::thread::sleep(Duration::from_secs(effort.pick(120, 60)));
    let percent = (host::cpu_seconds_of_all(&processes) - spent) / began.elapsed().as_secs_f64() * 100.0;
    let of_all = host::anonymous_kilobytes(&processes);
    assert_eq!(rows.in_state("deferred"), COUNT as i64, "they all still wait");
    let name = |what: &str| format!("W8 {COUNT} {kind} sensors, {what}");
    table.figure(name("CPU of a core"), percent, "%", Goal::AtMost(2.0));
    table.figure(name("memory of one more"), (of_all - of_first) / (COUNT - FIRST) as f64, "kB", Goal::AtMost(1.0));
    table.figure(name("memory of each, with what is taken once"), (of_all - before) / COUNT as f64, "kB", Goal::None);
    table.figure(name("memory (PSS, all processes)"), host::pss_megabytes(&processes), "MB", Goal::None);
}

fn dag_of(sensor: &str) -> String {
    let mut text = format!("max_active_tasks = {PER_DAG}\n");
    for number in 0..PER_DAG {
        let _ = writeln!(text, "[tasks.t{number}]\nsensor = {{ {sensor}, poke_interval = 60 }}");
    }
    text
}

/// What a server does with a connection that it has answered on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    Closes,
    Stays,
}

/// A server on loopback that says "not yet" at once. Its address.
fn serve(connection: Connection) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            match connection {
                Connection::Closes => {
                    answer(&stream, "Connection: close\r\n");
                }
                Connection::Stays => drop(std::thread::spawn(move || while answer(&stream, "") {})),
            }
        }
    });
    address
}

/// Answers one request. False: none comes any more.
fn answer(mut stream: &TcpStream, header: &str) -> bool {
    // A request without a body is one piece.
    let is_asked = stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0);
    let head = format!("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n{header}\r\n");
    is_asked && stream.write_all(head.as_bytes()).is_ok()
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
