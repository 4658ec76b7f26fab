use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use super::*;
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
fn an_answer_is_written_in_one_piece() {
    #[derive(Default)]
    struct Pieces(Vec<usize>);
    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let response = routes::answer(&site(100), &crate::api::testing::get("/status"));
    let bytes = serialize(&response, false);
    assert!(response.body.len() > 40_000 && bytes.ends_with(&response.body));
    let mut pieces = Pieces::default();
    send(&mut pieces, &bytes).unwrap();
    assert_eq!(pieces.0, [bytes.len()]);
    let head = serialize(&response, true);
    assert_eq!(head, bytes[..head.len()]);
    assert_eq!(bytes.len() - head.len(), response.body.len());
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
fn half_requests_block_nobody() {
    let server = start(1);
    let port = server.address().port();
    let body =
        |length: usize| format!("POST /status HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {length}\r\n\r\n");
    // No more than tiny_http has idle threads for: see the description of the module.
    let mut halves: Vec<_> = (0..3).map(|_| connect(server.address())).collect();
    for (at, stream) in halves.iter_mut().enumerate() {
        let half = [String::from("GET / HTTP/1.1\r\nHost: loc"), body(1_000), body(100_000)][at].clone();
        stream.get_mut().write_all(half.as_bytes()).unwrap();
    }
    assert!(is_healthy(server.address()));
}

#[test]
fn an_absurd_body_is_refused() {
    let server = start(1);
    for length in ["5000000", "99999999999999999", "18446744073709551615"] {
        let mut stream = connect(server.address());
        let refused = ask(&mut stream, "POST", "/status", &format!("Content-Length: {length}\r\n"));
        assert_eq!(refused.map(|answer| answer.status).unwrap_or(413), 413, "{length}");
    }
    assert!(is_healthy(server.address()));
}

#[test]
fn clients_that_never_read_are_given_up() {
    let server = start(1_000);
    let port = server.address().port();
    let mut deaf: Vec<_> = (0..3).map(|_| connect(server.address())).collect();
    for stream in &mut deaf {
        let request = format!("GET /status HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).unwrap();
    }
    assert!(is_healthy(server.address()));
}

/// Runs `name` of this file in a process of its own, whose descriptors are few.
fn in_a_process_with_few_descriptors(name: &str) {
    let binary = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64; exec timeout 60 \"$@\"", "sh"])
        .arg(binary)
        .args(["--exact", &format!("api::server::tests::{name}"), "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn running_out_of_descriptors_does_not_end_the_server() {
    in_a_process_with_few_descriptors("exhaustion_is_survived");
}

/// Fills this process's table from both ends: its own connections to itself take a descriptor here and two at the server.
#[test]
#[ignore = "takes all descriptors of its process: run by the test above in one of its own"]
fn exhaustion_is_survived() {
    let settings = Api { host: [127, 0, 0, 1].into(), port: 0 };
    let site = site(1);
    let health = site.health.clone();
    let server = Server::start(&settings, site).unwrap();
    let address = server.address();
    let mut kept = connect(address);
    assert_eq!(ask(&mut kept, "GET", "/health", "").unwrap().status, 200);
    for round in 0..5 {
        let mut taken = Vec::new();
        let deadline = Instant::now() + DEADLINE;
        // Until the server has noticed: a client is there that it cannot take.
        while !health.reasons().iter().any(|reason| reason.starts_with(CONDITION)) {
            assert!(Instant::now() < deadline, "round {round}: {} connections were no bother", taken.len());
            match TcpStream::connect(address) {
                Ok(mut stream) => {
                    // The kernel hands over only who has spoken.
                    stream.write_all(b"G").unwrap();
                    taken.push(stream);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        // Whoever was connected before is served all the while.
        assert_eq!(ask(&mut kept, "GET", "/health", "").unwrap().status, 503);
        drop(taken);
        while !is_healthy(address) {
            assert!(Instant::now() < deadline, "round {round}: it did not come back");
        }
        assert_eq!(ask(&mut kept, "GET", "/health", "").unwrap().status, 200);
    }
}
