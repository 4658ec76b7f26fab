use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// What a server was asked.
#[derive(Clone, Debug, Default)]
struct Asked {
    line: String,
    headers: Vec<String>,
    body: String,
}

impl Asked {
    fn read(stream: &mut impl Read) -> Self {
        let mut lines = BufReader::new(stream);
        let mut next = || {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let line = next();
        let headers: Vec<String> = std::iter::repeat_with(&mut next).take_while(|line| !line.is_empty()).collect();
        let length =
            headers.iter().find_map(|header| header.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        lines.read_exact(&mut body).unwrap();
        Self { line, headers, body: String::from_utf8(body).unwrap() }
    }
}

/// A server that answers one connection after the other, for as long as the test runs. What it could not write the client did
/// not want.
fn serve(answer: impl Fn(&Asked, &mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let asked = Asked::read(&mut stream);
            answer(&asked, &mut stream);
        }
    });
    format!("http://{address}")
}

fn get(url: impl Into<String>) -> Request {
    Request {
        method: "GET".to_owned(),
        url: url.into(),
        headers: Vec::new(),
        body: None,
        timeout: Duration::from_secs(30),
        trust: Trust::Host,
        keep: Keep::Whole,
    }
}

fn write(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

#[test]
fn what_is_asked_arrives_and_the_answer_comes_back() {
    let server = serve(|asked, stream| {
        let told = format!("{}\n{}\n{}", asked.line, asked.headers.join("\n"), asked.body);
        let length = told.len();
        write(stream, &format!("HTTP/1.1 418 I'm a teapot\r\nX-A: 1\r\nContent-Length: {length}\r\n\r\n{told}"));
    });
    let request = Request {
        method: "POST".to_owned(),
        headers: vec![("X-B".to_owned(), "2".to_owned())],
        body: Some("three".to_owned()),
        ..get(format!("{server}/a b?q=ü"))
    };
    let response = send(&request).unwrap();
    assert_eq!((response.status, response.header("x-a")), (418, Some("1")));
    let text = response.text();
    assert!(text.starts_with("POST /a%20b?q=%C3%BC HTTP/1.1\n") && text.ends_with("\nthree"), "{text}");
    assert!(text.to_lowercase().contains("x-b: 2\n") && text.contains("minflow/"), "{text}");
}

#[test]
fn redirects_are_followed_and_secrets_stay_with_their_server() {
    let second = serve(|asked, stream| {
        let told = format!("{}\n{}", asked.line, asked.headers.join("\n"));
        write(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}", told.len()));
    });
    let target = format!("{second}/there");
    let first = serve(move |asked, stream| {
        let place = if asked.line.starts_with("POST /a") { "b" } else { &*target };
        write(stream, &format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"));
    });
    let headers = [("Authorization", "Basic x"), ("X-Api-Key", "k"), ("X-Other", "o")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let request =
        Request { method: "POST".to_owned(), headers, body: Some("x".to_owned()), ..get(format!("{first}/a")) };
    let response = send(&request).unwrap();
    assert_eq!(response.url, format!("{second}/there"));
    let text = response.text().to_lowercase();
    assert!(text.starts_with("get /there") && text.contains("x-other: o"), "{text}");
    assert!(!text.contains("basic x") && !text.contains("api-key"), "{text}");
}

#[test]
fn redirects_in_circles_and_without_end_are_told() {
    let circle = serve(|asked, stream| {
        let place = if asked.line.contains("/a") { "/b" } else { "/a" };
        write(stream, &format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"));
    });
    let fault = send(&get(format!("{circle}/a"))).unwrap_err();
    let message = format!("the redirects go in a circle: {circle}/a >> {circle}/b >> {circle}/a");
    assert_eq!((fault.kind, fault.may_pass()), (Why::Answer, false));
    assert_eq!(fault.message, message);
    let endless = serve(|asked, stream| {
        let path = asked.line.split(' ').nth(1).unwrap();
        write(stream, &format!("HTTP/1.1 302 Found\r\nLocation: {path}x\r\nContent-Length: 0\r\n\r\n"));
    });
    let fault = send(&get(format!("{endless}/"))).unwrap_err();
    assert!(fault.message.starts_with("more than 10 redirects; the last leads to"), "{fault}");
}

#[test]
fn of_a_gigabyte_no_more_is_taken_than_may_be_kept() {
    let told = serve(|_, stream| write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx"));
    let fault = send(&get(&*told)).unwrap_err();
    assert!(fault.message.ends_with("/ is 1000000000 bytes, and at most 16 MiB are kept"), "{fault}");
    assert!(!fault.may_pass());
    let untold = serve(|_, stream| {
        write(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        let piece = vec![b'x'; 1 << 16];
        while stream.write_all(&piece).is_ok() {}
    });
    let fault = send(&get(&*untold)).unwrap_err();
    assert!(fault.message.contains("is larger, and at most 16 MiB are kept"), "{fault}");
}

#[test]
fn a_body_that_is_not_wanted_is_read_to_its_end_and_forgotten() {
    let server = serve(|_, stream| {
        let body = "x".repeat(20 << 20);
        write(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    });
    let response = send(&Request { keep: Keep::Beginning, ..get(server) }).unwrap();
    assert_eq!((response.bytes, response.body.len()), (20 << 20, BEGINNING_BYTES));
}

#[test]
fn a_body_that_trickles_meets_the_timeout() {
    let server = serve(|_, stream| {
        write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let fault = send(&Request { timeout: Duration::from_millis(300), ..get(&*server) }).unwrap_err();
    assert_eq!(fault.message, format!("no complete answer from {server}/ within 0.3 s"));
    assert!(fault.may_pass());
}

#[test]
fn who_does_not_answer_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = send(&get(format!("http://{free}/x?key=secret"))).unwrap_err();
    assert_eq!(refused.kind, Why::Reach, "{refused}");
    assert!(refused.message.contains(&format!("http://{free}/x")) && !refused.message.contains("secret"), "{refused}");
    let hangs_up = serve(|_, _| ());
    assert_eq!(send(&get(hangs_up)).unwrap_err().kind, Why::Reach);
    let stops = serve(|_, stream| write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"));
    assert_eq!(send(&get(stops)).unwrap_err().kind, Why::Reach);
    let nonsense = serve(|_, stream| write(stream, "hello\r\n\r\n"));
    assert_eq!(send(&get(nonsense)).unwrap_err().kind, Why::Reach);
    let header = Request { headers: vec![("a b".to_owned(), "c\nd".to_owned())], ..get(format!("http://{free}/")) };
    assert_eq!(send(&header).unwrap_err().kind, Why::Request);
}

#[test]
fn a_server_is_believed_by_its_certificate() {
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/certificate.pem"));
    let folder = tempfile::tempdir().unwrap();
    let chain = CertificateDer::pem_file_iter(&file).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(file.with_file_name("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let mut first = [0; 1];
            // Who does not believe it hangs up.
            if tls.read_exact(&mut first).is_ok() {
                Asked::read(&mut tls);
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    });
    let url = format!("https://localhost:{port}/");
    let believing = |trust| send(&Request { trust, ..get(&*url) });
    assert_eq!(believing(Trust::File(file.clone())).unwrap().text(), "ok");
    assert_eq!(believing(Trust::Anybody).unwrap().text(), "ok");
    let of_host = believing(Trust::Host).unwrap_err();
    assert_eq!(of_host.kind, Why::Trust, "{of_host}");
    let other =
        send(&Request { trust: Trust::File(file.clone()), ..get(format!("https://127.0.0.1:{port}/")) }).unwrap_err();
    assert_eq!(other.kind, Why::Trust, "{other}");
    let no_file = believing(Trust::File(folder.path().join("none.pem"))).unwrap_err();
    assert_eq!(no_file.kind, Why::Request);
    let renewed = folder.path().join("renewed.pem");
    std::fs::write(&renewed, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert_eq!(believing(Trust::File(renewed.clone())).unwrap_err().kind, Why::Trust);
    std::fs::copy(&file, &renewed).unwrap();
    assert_eq!(believing(Trust::File(renewed)).unwrap().text(), "ok", "what is kept is what the file held before");
    let plain = serve(|_, stream| write(stream, "HTTP/1.1 200 OK\r\n\r\n"));
    let no_tls = send(&get(plain.replace("http://", "https://"))).unwrap_err();
    assert!(matches!(no_tls.kind, Why::Trust | Why::Reach), "{no_tls}");
}

/// A server that keeps connections open and answers on each so many requests; each answer is the number of its connection.
fn serve_kept(answers: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            for _ in 0..answers {
                let _ = Asked::read(&mut stream);
                write(&mut stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"));
            }
            // The request that comes now finds nobody.
            let _ = stream.read(&mut [0]);
        }
    });
    format!("http://{address}")
}

#[test]
fn a_connection_is_used_again_and_one_that_the_server_has_closed_is_no_failure_of_who_only_looks() {
    let url = serve_kept(2);
    // By its timeout it has an agent that no other test uses.
    let timeout = Duration::from_secs(29);
    let texts: Vec<String> = (0..5).map(|_| send_often(&Request { timeout, ..get(&url) }).unwrap().text()).collect();
    assert_eq!(texts, ["0", "0", "1", "2", "2"], "who is asked twice is asked on a connection of its own");
    let url = serve_kept(1);
    let post = || send_often(&Request { method: "POST".to_owned(), body: Some("x".to_owned()), ..get(&url) });
    assert_eq!(post().unwrap().text(), "0");
    assert_eq!(post().unwrap().text(), "1", "what does something is asked on a connection of its own");
}
