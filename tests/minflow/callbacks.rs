//! Callbacks and notifiers as users have them: a file, and a minflow that is killed in between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::harness::{Home, PATIENCE, until};

const NOTE: &str = "[notifiers.note]\nkind = 'bash'\n";

/// A server that takes requests and tells what they said: the first line, and the body.
fn server() -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heard, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut first, mut length) = (String::new(), 0);
            stream.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = bytes.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
            if heard.send((first.trim().to_owned(), String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (address, told)
}

#[test]
fn a_notifier_is_told_of_the_failure_with_its_reason_and_the_end_of_the_log() {
    let home = Home::new();
    let script = r#"command = "echo {{ (dag.dag_id ~ ' ' ~ ti.task_id ~ ' ' ~ try_number ~ ' ' ~ reason ~ ' ' ~ log_tail) | sh }} $MINFLOW_CALLBACK >> $MINFLOW_HOME/told""#;
    home.write("airflow.toml", format!("{NOTE}{script}\n[defaults]\non_failure = [{{ notify = 'note' }}]\n"));
    home.dag("d", "[tasks.t]\nbash = 'echo no such table; exit 3'\nretries = 1\nretry_delay = 0");
    home.dag("well", "[tasks.t]\nbash = 'true'");
    let mut minflow = home.start();
    assert_eq!(home.run_dag("well", "r").code, Some(0));
    assert_eq!(home.run_dag("d", "r").code, Some(1));
    until("the note", || home.read("told").contains("on_failure").then_some(()));
    minflow.stop();
    assert_eq!(home.read("told"), "d t 2 task_failure no such table on_failure\n");
}

#[test]
fn a_callback_that_was_killed_with_minflow_and_its_supervisor_is_made_by_the_next_one() {
    let home = Home::new();
    let callback = r#"if [ -e $MINFLOW_HOME/go ]; then echo told >> $MINFLOW_HOME/told; else echo $$ >> $MINFLOW_HOME/waits; sleep 600; fi"#;
    home.dag("d", &format!("on_failure = [{{ bash = '{callback}', timeout = '1h' }}]\n[tasks.t]\nbash = 'exit 1'"));
    let mut minflow = home.start();
    assert_eq!(home.run_dag("d", "r").code, Some(1));
    let pid: i32 = until("the callback", || home.read("waits").trim().parse().ok());
    let supervisor = minflow.supervisor();
    crate::harness::signal(supervisor, rustix::process::Signal::STOP);
    minflow.kill();
    crate::harness::signal(supervisor, rustix::process::Signal::KILL);
    home.write("go", "");
    let mut minflow = home.start();
    until("the second try", || (home.read("told") == "told\n").then_some(()));
    assert!(!crate::harness::is_alive(pid), "the first try was left alive");
    assert_eq!(home.run_state("d", "r"), "failed");
    minflow.stop();
    let mut minflow = home.start();
    assert_eq!(home.run_dag("d", "s").code, Some(1));
    until("the next", || (home.read("told") == "told\ntold\n").then_some(()));
    minflow.stop();
    assert_eq!(home.read("told"), "told\ntold\n", "it was made again though it was done");
}

#[test]
fn a_callback_that_fails_is_said_and_changes_nothing() {
    let home = Home::new();
    home.dag(
        "d",
        "[tasks.t]\nbash = 'echo work'\non_success = [{ bash = 'echo {{ nothing.of_it }}' }, { bash = 'echo fine' }]",
    );
    let mut minflow = home.start();
    assert_eq!(home.run_dag("d", "r").code, Some(0));
    let log = until("the callbacks", || {
        let log = home.log("d", "r", "t", 1);
        let said =
            log.contains("callback on_success 1, try 1: failed:") && log.contains("callback on_success 2, try 1: done");
        said.then_some(log)
    });
    assert!(log.contains("`nothing` is undefined"), "{log}");
    assert_eq!(home.task("d", "r", "t")["state"], "success");
    let own = home.read("logs/dag_id=d/run_id=r/task_id=t/attempt=1.on_success_2.log");
    assert!(own.contains("\nfine\n"), "{own}");
    minflow.stop();
}

#[test]
fn services_are_told_over_http() {
    let home = Home::new();
    let (address, told) = server();
    home.write(
        "airflow.toml",
        format!(
            "[notifiers.chat]\nkind = 'slack'\nurl = 'http://{address}/hook'\n\
             [notifiers.phone]\nkind = 'ntfy'\nurl = 'http://{address}'\ntopic = 'alerts'\npriority = 5\n\
             [notifiers.desk]\nkind = 'http'\nconnection = 'desk'\nurl = 'new'\nparams = {{ of = '{{{{ dag.dag_id }}}}' }}\n\
             [connections]\ndesk = 'http://ann:s3cretword@{address}/tickets'\n"
        ),
    );
    home.dag(
        "d",
        &format!(
            "on_failure = [{{ notify = 'chat' }}, {{ notify = 'phone' }}, {{ notify = 'desk' }}, {{ http = {{ connection = 'desk', params = {{ n = 2 }} }} }}, {{ http = {{ url = 'http://{address}/own', json = {{ run = '{{{{ run_id }}}}' }} }} }}]\n\
             [tasks.t]\nbash = 'echo the disk is full; exit 1'"
        ),
    );
    let mut minflow = home.start();
    assert_eq!(home.run_dag("d", "r").code, Some(1));
    let mut requests: Vec<(String, String)> = (0..5).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    requests.sort();
    let lines: Vec<&str> = requests.iter().map(|(line, _)| line.as_str()).collect();
    let by_connection = ["POST /tickets/new?of=d HTTP/1.1", "POST /tickets?n=2 HTTP/1.1"];
    assert_eq!(lines[..3], ["POST / HTTP/1.1", "POST /hook HTTP/1.1", "POST /own HTTP/1.1"]);
    assert_eq!(lines[3..], by_connection);
    let bodies: Vec<Value> = requests[..3].iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
    assert_eq!((&bodies[0]["topic"], &bodies[0]["priority"]), (&"alerts".into(), &5.into()));
    assert_eq!(bodies[0]["title"], "d has failed");
    let text = bodies[1]["text"].as_str().unwrap();
    for part in [
        "d has failed.",
        "run: r",
        "reason: task_failure",
        "task t: exit code 1",
        "the disk is full",
        "tasks logs d t 'r'",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(bodies[2]["run"], "r");
    minflow.stop();
}

#[test]
fn a_notifier_that_nobody_defines_is_a_fault_of_the_file() {
    let home = Home::new();
    home.write("airflow.toml", "[notifiers.team]\nkind = 'bash'\ncommand = 'true'\n");
    home.dag("d", "on_failure = [{ notify = 'taem' }]\n[tasks.t]\nbash = 'true'");
    let ran = home.cli("validate dags/d.toml");
    assert_eq!(ran.code, Some(3));
    let said = format!("{}{}", ran.out, ran.err);
    assert!(
        said.contains("unknown-notifier: there is no notifier `taem`") && said.contains("did you mean `team`?"),
        "{said}"
    );
}
