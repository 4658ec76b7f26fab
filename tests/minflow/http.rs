//! The `http` operator in real runs, against a server of the test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::Home;
use crate::smtp::{Stream, encrypted};

/// One request, from its first line to the end of its body.
fn request(stream: &mut dyn Read) -> String {
    let mut lines = BufReader::new(stream);
    let (mut text, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap() <= 2 {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        text += &line;
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

/// Answers every request by its path, and keeps what it was asked. To those who take it for a proxy it is each host of the fixtures'
/// certificate.
pub fn serve(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: Box<dyn Stream> = Box::new(stream.unwrap());
            let mut text = request(&mut stream);
            if text.starts_with("CONNECT ") {
                stream.write_all(b"HTTP/1.1 200 X\r\n\r\n").unwrap();
                stream = encrypted(stream);
                text = request(&mut stream);
            }
            let path = text.split(' ').nth(1).unwrap().to_owned();
            kept.lock().unwrap().push(text);
            let (status, body) = answer(&path);
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    (address, asked)
}

#[test]
fn an_answer_is_judged_filtered_and_handed_on_and_no_secret_is_shown() {
    let (address, asked) = serve(|path| match path {
        "/v1/items?day=2026-11-21" => {
            (200, r#"{"items": [{"id": 7}, {"id": 9}], "echo": "s3cretpassword"}"#.to_owned())
        }
        "/v1/seen" => (409, "seen already".to_owned()),
        _ => (404, String::new()),
    });
    let home = Home::new();
    let connection = format!("[connections]\napi = \"http://me:s3cretpassword@{address}/v1?X-Token=t0kentoken\"\n");
    home.write("airflow.toml", connection);
    home.dag(
        "web",
        r#"
chain = ["items >> [each, seen] >> plain"]
[tasks.items]
http = { connection = "api", url = "items", params = { day = "{{ params.day }}" }, response = "json", response_check = "{{ response['items'] and status == 200 }}", response_filter = "{{ response['items'] | map(attribute='id') | list }}" }
[tasks.each]
expand = { id = { xcom = "items" } }
bash = "echo got {{ item }}"
[tasks.seen]
http = { connection = "api", method = "POST", url = "seen", json = { ids = "{{ xcom('items') }}" }, expect_status = [201, "400..409"] }
[tasks.plain]
bash = "echo {{ xcom('seen') | sh }}"
[params]
day = "2026-11-21"
"#,
    );
    let _minflow = home.start();
    let ran = home.run_dag("web", "r");
    assert_eq!(ran.code, Some(0), "{ran:?} {}", home.log("web", "r", "items", 1));
    let each: Vec<_> = home.tasks("web", "r").into_iter().filter(|task| task["task_id"] == "each").collect();
    assert_eq!(each.len(), 2, "the filter's value is a list");
    assert!(home.log("web", "r", "plain", 1).contains("\nseen already\n"));
    let asked = asked.lock().unwrap().join("\n=\n");
    assert!(
        asked.contains("Basic bWU6czNjcmV0cGFzc3dvcmQ=") && asked.to_lowercase().contains("x-token: t0kentoken"),
        "{asked}"
    );
    assert!(asked.ends_with("{\"ids\":\"[7, 9]\"}"), "{asked}");
    for words in ["tasks logs web r items", "tasks logs web r seen", "tasks render web items"] {
        let shown = home.cli(words);
        assert!(
            !format!("{shown:?}").contains("s3cretpassword") && !shown.out.contains("t0kentoken"),
            "{words}: {shown:?}"
        );
    }
    let log = home.log("web", "r", "items", 1);
    assert!(log.contains("/v1/items?day=2026-11-21\n200 OK") && !log.contains("t0kentoken"), "{log}");
}

#[test]
fn retries_mend_what_may_pass_and_nothing_else() {
    let (address, _asked) = serve(|path| match path {
        "/busy" => (503, "come back later".to_owned()),
        "/gone" => (410, "gone for good".to_owned()),
        "/rule" => (500, "mended by a rule".to_owned()),
        _ => (200, "no json".to_owned()),
    });
    let home = Home::new();
    home.dag(
        "web",
        &format!(
            r#"
default_args = {{ retries = 1, retry_delay = 0 }}
[tasks.busy]
http = {{ url = "http://{address}/busy" }}
[tasks.gone]
http = {{ url = "http://{address}/gone" }}
[tasks.rule]
retry_on = [{{ output = "answer was 500", retries = 2 }}]
http = {{ url = "http://{address}/rule" }}
[tasks.no_json]
http = {{ url = "http://{address}/", response = "json" }}
[tasks.check]
http = {{ url = "http://{address}/", response_check = "{{{{ 'never' in response }}}}" }}
[tasks.nobody]
http = {{ url = "http://127.0.0.1:1/" }}
"#
        ),
    );
    let _minflow = home.start();
    assert_eq!(home.run_dag("web", "r").code, Some(1));
    let cases = [
        ("busy", 2, "the answer was 503 Service Unavailable, expected 200..299; another try may do better"),
        ("gone", 1, "the answer was 410 Gone, expected 200..299; no other try follows"),
        ("rule", 3, "the answer was 500"),
        ("no_json", 2, "the answer is not JSON"),
        ("check", 2, "`response_check` gives false"),
        ("nobody", 2, "no answer from http://127.0.0.1:1/"),
    ];
    for (task_id, tries, reason) in cases {
        let task = home.task("web", "r", task_id);
        assert_eq!(task["try_number"], json!(tries), "{task}");
        assert!(task["reason"].as_str().unwrap().contains(reason), "{task}");
        assert_eq!(task["exit_code"], json!(1), "{task}");
    }
    assert!(home.log("web", "r", "gone", 1).contains("\ngone for good\n"), "what came is shown");
}
