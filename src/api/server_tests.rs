use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::Instant;

use super::*;
use crate::api::guard::{LACKING, MAX_CONNECTIONS, MAX_HEAD};
use crate::api::testing::site;

const DEADLINE: Duration = Duration::from_secs(20);

fn start(dags: usize) -> Server {
    let settings = Api { host: [127, 0, 0, 1].into(), port: 0 };
    Server::start(&settings, site(dags)).unwrap()
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

struct Answer {
    status: u16,
    connection: String,
    length: usize,
    body: Vec<u8>,
}

/// One exchange; the connection stays open.
fn ask(stream: &mut BufReader<TcpStream>, method: &str, path: &str, headers: &str) -> io::Result<Answer> {
    let port = stream.get_ref().peer_addr()?.port();
    write!(stream.get_mut(), "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{headers}\r\n")?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).ok_or(ErrorKind::UnexpectedEof)?.parse().unwrap();
    let mut answer = Answer { status, connection: String::new(), length: 0, body: Vec::new() };
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line)?;
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            answer.length = value.trim().parse().unwrap();
        }
        if let Some(value) = line.strip_prefix("Connection: ") {
            value.trim().clone_into(&mut answer.connection);
        }
    }
    if method != "HEAD" {
        answer.body.resize(answer.length, 0);
        stream.read_exact(&mut answer.body)?;
    }
    Ok(answer)
}

fn is_healthy(address: SocketAddr) -> bool {
    ask(&mut connect(address), "GET", "/health", "").is_ok_and(|answer| answer.status == 200)
}

#[test]
fn every_route_is_answered_and_ends_its_connection() {
    let server = start(3);
    for path in ["/", "/status", "/health", "/api/v2/monitor/health"] {
        for (method, has_body) in [("GET", true), ("HEAD", false)] {
            let mut stream = connect(server.address());
            let got = ask(&mut stream, method, path, "").unwrap();
            assert_eq!((got.status, got.connection.as_str()), (200, "close"), "{method} {path}");
            assert!(got.length > 0 && got.body.is_empty() != has_body, "{method} {path}");
            // A client that is told `close` closes; had more been sent than was announced, it would be here.
            stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{method} {path}");
        }
    }
    assert_eq!(ask(&mut connect(server.address()), "GET", "/nope", "").unwrap().status, 404);
    assert_eq!(ask(&mut connect(server.address()), "DELETE", "/status", "").unwrap().status, 405);
}

#[test]
fn a_taken_port_and_a_foreign_address_say_what_to_do() {
    let server = start(1);
    let taken = Api { host: server.address().ip(), port: server.address().port() };
    let error = Server::start(&taken, site(1)).unwrap_err().to_string();
    assert!(error.contains(&server.address().port().to_string()) && error.contains("--port"), "{error}");
    let foreign = Api { host: [0, 0, 0, 0].into(), port: 0 };
    assert!(matches!(Server::start(&foreign, site(1)), Err(StartError::NotLoopback(_))));
}

#[test]
fn the_end_closes_the_port_also_under_an_open_connection() {
    let server = start(1);
    let address = server.address();
    let mut idle = connect(address);
    assert_eq!(ask(&mut idle, "GET", "/health", "").unwrap().status, 200);
    drop(server);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn silent_clients_block_nobody() {
    let server = start(1);
    let _silent: Vec<_> = (0..8).map(|_| connect(server.address())).collect();
    assert!(is_healthy(server.address()));
}

#[test]
fn half_requests_block_nobody_and_are_given_up() {
    let server = start(1);
    let port = server.address().port();
    let body =
        |length: usize| format!("POST /status HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {length}\r\n\r\n");
    let halves = ["G".to_owned(), "GET / HTTP/1.1\r\nHost: loc".to_owned(), body(1_000), body(60_000)];
    let mut clients: Vec<_> = (0..3 * MAX_CONNECTIONS).map(|_| connect(server.address())).collect();
    for (client, half) in clients.iter_mut().zip(halves.iter().cycle()) {
        // Those before have been put out for want of room, or will be.
        let _ = client.get_mut().write_all(half.as_bytes());
        assert!(is_healthy(server.address()));
    }
    // The last ones are told why.
    let mut said = String::new();
    clients.last_mut().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("within 5 s"), "{said}");
    assert!(is_healthy(server.address()));
}

/// Sends `piece` until the server has had enough; gives what it says, and how much it took.
fn flood(address: SocketAddr, begin: &str, piece: &[u8]) -> (String, usize) {
    let mut client = connect(address);
    client.get_mut().write_all(begin.as_bytes()).unwrap();
    let mut sent = 0;
    while sent < 256 << 20 && client.get_mut().write_all(piece).is_ok() {
        sent += piece.len();
    }
    let mut said = Vec::new();
    // What could not be sent any more may have broken the connection.
    let _ = client.read_to_end(&mut said);
    (String::from_utf8(said).unwrap(), sent)
}

#[test]
fn endless_headers_are_refused_in_bounded_memory() {
    in_a_process_of_its_own("endless_headers_take_no_memory", "");
}

#[test]
#[ignore = "looks at the memory of its process: run by the test above in one of its own"]
fn endless_headers_take_no_memory() {
    let server = start(1);
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
        line.trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    };
    let before = peak();
    for begin in ["", "GET / HTTP/1.1\r\nA: ", "GET /"] {
        let (_, sent) = flood(server.address(), begin, &[b'a'; 64 << 10]);
        // What the kernel holds on the way is taken as well.
        assert!(sent < 64 << 20, "{begin:?}: {sent} bytes were taken");
        assert!(is_healthy(server.address()));
    }
    let grown = peak().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    let mut client = connect(server.address());
    let refused = ask(&mut client, "GET", "/health", &format!("A: {}\r\n", "a".repeat(MAX_HEAD)));
    assert_eq!(refused.unwrap().status, 431);
}

#[test]
fn bodies_that_could_be_read_in_two_ways_and_absurd_ones_are_refused() {
    let server = start(1);
    let lengths = ["5000000", "99999999999999999", "18446744073709551615"];
    let mut cases: Vec<(String, u16)> =
        lengths.iter().map(|length| (format!("Content-Length: {length}\r\n"), 413)).collect();
    let doubtful = ["+3", "-1", "3\r\nContent-Length: 4"];
    cases.extend(doubtful.map(|length| (format!("Content-Length: {length}\r\n"), 400)));
    cases.push(("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n".to_owned(), 501));
    for (headers, status) in cases {
        let refused = ask(&mut connect(server.address()), "POST", "/status", &headers).unwrap();
        assert_eq!((refused.status, refused.connection.as_str()), (status, "close"), "{headers}");
        assert!(String::from_utf8(refused.body).unwrap().contains("\"detail\""));
    }
    assert!(is_healthy(server.address()));
    // One that no route wants is taken and forgotten.
    let mut client = connect(server.address());
    client.get_mut().write_all(b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n").unwrap();
    client.get_mut().write_all(&[b'a'; 60_000]).unwrap();
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 403 Forbidden\r\n");
}

#[test]
fn clients_that_never_read_give_way() {
    let server = start(300);
    let port = server.address().port();
    let mut deaf: Vec<_> = (0..MAX_CONNECTIONS + 8).map(|_| connect(server.address())).collect();
    for stream in &mut deaf {
        // So that the kernel does not take the answer for them.
        rustix::net::sockopt::set_socket_recv_buffer_size(stream.get_ref(), 4_096).unwrap();
        let request = format!("GET /status HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).unwrap();
    }
    assert!(is_healthy(server.address()));
}

#[test]
fn many_clients_at_once_are_all_answered() {
    let server = start(100);
    let address = server.address();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(move || {
                for path in ["/status", "/", "/health", "/nope"].iter().cycle().take(40) {
                    let answer = ask(&mut connect(address), "GET", path, "").unwrap();
                    assert_eq!(answer.status, if *path == "/nope" { 404 } else { 200 }, "{path}");
                    assert_eq!(answer.body.len(), answer.length);
                }
            });
        }
    });
}

/// Runs the test `name` of this file in a process of its own. `limits`: shell commands that come first.
fn in_a_process_of_its_own(name: &str, limits: &str) {
    let binary = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("{limits} exec timeout 60 \"$@\""), "sh"])
        .arg(binary)
        .args(["--exact", &format!("api::server::tests::{name}"), "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn running_out_of_descriptors_does_not_end_the_server() {
    in_a_process_of_its_own("exhaustion_is_survived", "ulimit -n 64;");
}

/// Fills this process's table, as other parts of minflow might.
#[test]
#[ignore = "takes all descriptors of its process: run by the test above in one of its own"]
fn exhaustion_is_survived() {
    let server = start(1);
    let address = server.address();
    for round in 0..5 {
        let mut taken = Vec::new();
        // One is given back for the connection's end at this side. The server may still close an earlier one.
        let mut ask_without_any = |path: &str| {
            taken.extend(std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()));
            taken.pop();
            let answer = ask(&mut connect(address), "GET", path, "").unwrap();
            (answer.status, String::from_utf8(answer.body).unwrap())
        };
        for number in 0..20 {
            let deadline = Instant::now() + DEADLINE;
            let said = loop {
                match ask_without_any("/health") {
                    (200, _) => assert!(Instant::now() < deadline, "round {round}: request {number} was no bother"),
                    (status, said) => break (status, said),
                }
            };
            assert!(said.0 == 503 && said.1.contains(LACKING), "round {round}: {said:?}");
        }
        let (status, said) = ask_without_any("/status");
        assert_eq!(status, 200, "round {round}: {said}");
        drop(taken);
        assert!(is_healthy(address), "round {round}");
    }
}
