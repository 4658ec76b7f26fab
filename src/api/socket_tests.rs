use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::api::client::{Client, ConnectError, RequestError};
use crate::scheduler::command::{Asker, Done, Stop};
use crate::scheduler::event::{self, EventReceiver};

const DEADLINE: Duration = Duration::from_secs(10);

fn pong() -> Pong {
    Pong { pid: 42, version: "0.1.0".to_owned(), http: Some("127.0.0.1:8080".to_owned()) }
}

fn start(home: &Path, patience: Patience) -> (SocketServer, EventReceiver) {
    let (sender, events) = event::channel();
    (SocketServer::start(home, pong(), sender, patience).unwrap(), events)
}

fn take(events: &EventReceiver) -> (Command, ReplyTo<crate::scheduler::Reply>) {
    match events.recv_timeout(DEADLINE).unwrap() {
        Event::Command { command, reply } => (command, reply),
        other => panic!("{other:?}"),
    }
}

fn raw(home: &Path) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(home.join(SOCKET)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    BufReader::new(stream)
}

fn refusal_code(answer: &str) -> String {
    match serde_json::from_str(answer).unwrap() {
        Answer::Refused(error) => error.code,
        other => panic!("{other:?}"),
    }
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "the condition did not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_command_reaches_the_scheduler_and_its_reply_the_client() {
    let home = tempfile::tempdir().unwrap();
    let (_server, events) = start(home.path(), Patience::default());
    let loop_thread = std::thread::spawn(move || {
        for _ in 0..2 {
            let (command, reply) = take(&events);
            assert_eq!(command, Command::Stop { how: Stop::Drain, by: Asker::Cli });
            reply.send(Ok(Done::Stopping { running: Vec::new() }));
        }
    });
    let mut client = Client::connect(home.path()).unwrap();
    assert_eq!(client.ping().unwrap(), pong());
    for _ in 0..2 {
        assert_eq!(
            client.request(&Command::Stop { how: Stop::Drain, by: Asker::Cli }).unwrap(),
            Ok(Done::Stopping { running: Vec::new() })
        );
    }
    loop_thread.join().unwrap();
}

#[test]
fn the_socket_is_private_and_goes_with_its_server() {
    let home = tempfile::tempdir().unwrap();
    let (server, _events) = start(home.path(), Patience::default());
    let path = home.path().join(SOCKET);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    drop(server);
    assert!(!path.exists());
    assert!(matches!(Client::connect(home.path()), Err(ConnectError::NotRunning(_))));
}

#[test]
fn the_socket_of_a_dead_minflow_means_that_none_runs_and_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(home.path().join(SOCKET)).unwrap());
    assert!(matches!(Client::connect(home.path()), Err(ConnectError::NotRunning(_))));
    let (_server, _events) = start(home.path(), Patience::default());
    assert_eq!(Client::connect(home.path()).unwrap().ping().unwrap().pid, 42);
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join(SOCKET), "mine").unwrap();
    let error = SocketServer::start(home.path(), pong(), event::channel().0, Patience::default()).unwrap_err();
    assert!(error.to_string().contains("move that file away"), "{error}");
    assert_eq!(std::fs::read_to_string(home.path().join(SOCKET)).unwrap(), "mine");
}

#[test]
fn a_home_deeper_than_a_socket_address_is_served() {
    let base = tempfile::tempdir().unwrap();
    let home = base.path().join("d".repeat(150));
    std::fs::create_dir(&home).unwrap();
    let (_server, _events) = start(&home, Patience::default());
    assert_eq!(Client::connect(&home).unwrap().ping().unwrap(), pong());
}

#[test]
fn what_is_no_request_is_refused_with_a_reason() {
    let home = tempfile::tempdir().unwrap();
    let (_server, _events) = start(home.path(), Patience::default());
    let mut stream = raw(home.path());
    for (line, code) in [
        ("nonsense\n", "invalid-request"),
        ("{\"version\":1,\"ask\":\"dance\"}\n", "invalid-request"),
        ("{\"version\":99,\"ask\":{\"from\":\"the future\"}}\n", "version"),
    ] {
        stream.get_mut().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        assert_eq!(refusal_code(&answer), code);
    }
}

#[test]
fn an_endless_request_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (_server, _events) = start(home.path(), Patience::default());
    let mut stream = raw(home.path());
    let chunk = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while stream.get_mut().write_all(&chunk).is_ok() {
        sent += chunk.len();
        assert!(sent < 4 * MAX_REQUEST, "nothing stopped it");
    }
    // What was not read when the server closed resets the connection: the answer may be lost, but not the server.
    assert_eq!(Client::connect(home.path()).unwrap().ping().unwrap(), pong());
}

#[test]
fn a_half_sent_request_is_dropped_in_time() {
    let home = tempfile::tempdir().unwrap();
    let patience = Patience { request: Duration::from_millis(50), ..Patience::default() };
    let (server, _events) = start(home.path(), patience);
    let mut stream = raw(home.path());
    stream.get_mut().write_all(b"{\"version\":").unwrap();
    let mut answer = String::new();
    assert_eq!(stream.read_line(&mut answer).unwrap(), 0);
    wait_until(|| server.shared.connections.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_client_that_goes_while_it_waits_frees_its_seat() {
    let home = tempfile::tempdir().unwrap();
    let (server, events) = start(home.path(), Patience::default());
    let mut stream = raw(home.path());
    let request =
        Request { version: PROTOCOL, ask: Ask::Command(Command::Await { dag_id: "d".into(), run_id: "r".into() }) };
    writeln!(stream.get_mut(), "{}", serde_json::to_string(&request).unwrap()).unwrap();
    let (_command, reply) = take(&events);
    assert_eq!(server.shared.connections.load(Ordering::SeqCst), 1);
    drop(stream);
    wait_until(|| server.shared.connections.load(Ordering::SeqCst) == 0);
    reply.send(Ok(Done::Stopping { running: Vec::new() }));
}

#[test]
fn a_scheduler_that_is_gone_is_said() {
    let home = tempfile::tempdir().unwrap();
    let (_server, events) = start(home.path(), Patience::default());
    let dropping = std::thread::spawn(move || drop(take(&events)));
    let mut client = Client::connect(home.path()).unwrap();
    for _ in 0..2 {
        match client.request(&Command::Stop { how: Stop::Now, by: Asker::Cli }) {
            Err(RequestError::Refused(error)) => assert_eq!(error.code, "stopping"),
            other => panic!("{other:?}"),
        }
    }
    dropping.join().unwrap();
}

#[test]
fn more_clients_than_seats_are_told_to_come_again() {
    let home = tempfile::tempdir().unwrap();
    let (server, _events) = start(home.path(), Patience::default());
    server.shared.connections.store(MAX_CONNECTIONS, Ordering::SeqCst);
    match Client::connect(home.path()).unwrap().ping() {
        Err(RequestError::Refused(error)) => assert_eq!(error.code, "busy"),
        other => panic!("{other:?}"),
    }
    wait_until(|| server.shared.connections.load(Ordering::SeqCst) == MAX_CONNECTIONS);
}
