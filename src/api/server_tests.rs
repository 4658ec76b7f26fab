use std::io::{BufRead, BufReader, Read};
use std::time::Instant;

use super::*;
use crate::api::testing::site;

const DEADLINE: Duration = Duration::from_secs(10);

fn start(dags: usize, patience: Patience) -> Server {
    let settings = Api { host: [127, 0, 0, 1].into(), port: 0 };
    Server::start(&settings, site(dags), patience).unwrap()
}

fn connect(server: &Server) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    BufReader::new(stream)
}

/// Status and body of one exchange; the connection stays open.
fn ask(stream: &mut BufReader<TcpStream>, method: &str, path: &str) -> (u16, Vec<u8>) {
    let port = stream.get_ref().peer_addr().unwrap().port();
    write!(stream.get_mut(), "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n").unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
    stream.read_exact(&mut body).unwrap();
    assert!(length > 0);
    (status, body)
}

#[test]
fn every_route_is_answered_on_one_connection() {
    let server = start(3, Patience::default());
    let mut stream = connect(&server);
    for path in ["/", "/status", "/health", "/api/v2/monitor/health"] {
        let (status, body) = ask(&mut stream, "GET", path);
        assert_eq!((status, body.is_empty()), (200, false), "{path}");
        assert_eq!(ask(&mut stream, "HEAD", path).0, 200, "{path}");
    }
    assert_eq!(ask(&mut stream, "GET", "/nope").0, 404);
    assert_eq!(ask(&mut stream, "DELETE", "/status").0, 405);
}

#[test]
fn a_large_answer_comes_without_delay() {
    let server = start(100, Patience::default());
    let mut stream = connect(&server);
    ask(&mut stream, "GET", "/status");
    let began = Instant::now();
    for _ in 0..10 {
        let (_, body) = ask(&mut stream, "GET", "/status");
        assert!(body.len() > 40_000);
    }
    // In several pieces each would take 40 ms at least.
    assert!(began.elapsed() < Duration::from_millis(350), "{:?}", began.elapsed());
}

#[test]
fn a_taken_port_and_a_foreign_address_say_what_to_do() {
    let server = start(1, Patience::default());
    let taken = Api { host: server.address().ip(), port: server.address().port() };
    let error = Server::start(&taken, site(1), Patience::default()).unwrap_err().to_string();
    assert!(error.contains(&server.address().port().to_string()) && error.contains("--port"), "{error}");
    let foreign = Api { host: [0, 0, 0, 0].into(), port: 0 };
    assert!(matches!(Server::start(&foreign, site(1), Patience::default()), Err(StartError::NotLoopback(_))));
}

#[test]
fn an_endless_header_is_cut_off_and_blocks_nobody() {
    let server = start(1, Patience::default());
    let mut endless: Vec<_> = (0..4).map(|_| connect(&server)).collect();
    for stream in &mut endless {
        stream.get_mut().write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    }
    assert_eq!(ask(&mut connect(&server), "GET", "/health").0, 200);
    for stream in &mut endless {
        let mut sent = 0;
        while stream.get_mut().write_all(&[b'x'; 4096]).is_ok() {
            sent += 4096;
            assert!(sent < 64 * 1024 * 1024, "nothing stopped it");
        }
    }
}

#[test]
fn a_half_sent_header_is_dropped_in_time() {
    let server = start(1, Patience { busy: Duration::from_millis(50), ..Patience::default() });
    let mut stream = connect(&server);
    stream.get_mut().write_all(b"GET / HT").unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
}

#[test]
fn clients_that_never_read_block_nobody() {
    let server = start(1_000, Patience::default());
    let port = server.address().port();
    let mut deaf: Vec<_> = (0..8).map(|_| connect(&server)).collect();
    for stream in &mut deaf {
        let request = format!("GET /status HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
        stream.get_mut().write_all(request.repeat(50).as_bytes()).unwrap();
    }
    assert_eq!(ask(&mut connect(&server), "GET", "/health").0, 200);
}
