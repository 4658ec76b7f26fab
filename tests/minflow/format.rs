//! The examples of `docs/dag-format.md`, each run by `dags test` as it stands: it succeeds, or its tasks come to what the page says.
//!
//! What the examples name and no host has is made here: programs that do nothing, files that have come, and the servers of `http` and
//! `email`, on loopback. A day of the past is their logical date, and noon is in the hour that it is, so that no sensor waits for a clock.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{Home, PATIENCE};
use crate::http;
use crate::smtp::{self, Manner, fixtures};

const PAGE: &str = include_str!("../../docs/dag-format.md");

const PROGRAMS: [&str; 12] = [
    "audit",
    "fetch-orders",
    "fetch-sales",
    "load",
    "load.sh",
    "mail-report",
    "make-report",
    "ping",
    "prune",
    "publish",
    "rebuild",
    "report",
];

/// The day of the runs, one of the past.
const DAY: &str = "2026-03-27";

/// Downloads nothing, but for the script that looks at the download.
const CURL: &str = "#!/bin/sh\nprintf '#!/bin/sh\\n' > check && chmod +x check\n";

/// Makes a virtual environment, and installs nothing into it.
const UV: &str = "#!/bin/sh\n[ \"$1\" != venv ] || { mkdir -p \"$4/bin\" && ln -s \"$3\" \"$4/bin/python\"; }\n";

/// A docker command whose containers do nothing, and end well.
const DOCKER: &str =
    "#!/bin/sh\ncase $1 in version) echo 28 ;; container) echo '{\"Status\":\"exited\",\"ExitCode\":0}' ;; esac\n";

/// What stands between two fences, and the words behind the first.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let parts: Vec<&str> = PAGE.split("```").collect();
    assert_eq!(parts.len() % 2, 1, "a fence is not closed");
    parts.iter().skip(1).step_by(2).map(|part| part.split_once('\n').unwrap()).collect()
}

/// The name of a zone whose clocks show some minutes past noon.
fn zone_of_noon() -> String {
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3_600 % 24;
    // East of Greenwich is below zero in these names.
    if hour <= 12 { format!("Etc/GMT-{}", 12 - hour) } else { format!("Etc/GMT+{}", hour - 12) }
}

fn home(mail_port: u16) -> Home {
    let home = Home::new();
    let zone = zone_of_noon();
    home.write(
        "airflow.toml",
        format!(
            "[core]\ndefault_timezone = '{zone}'\n\
             [smtp]\nhost = 'localhost'\nport = {mail_port}\ntls = 'none'\nmail_from = 'minflow@example.com'\n\
             [variables]\ntoken = 'x'\n\
             [notifiers.team]\nkind = 'email'\nto = ['team@example.com']\n"
        ),
    );
    let program = |name: &str, text: &str| {
        let path = home.write(&format!("bin/{name}"), text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    PROGRAMS.iter().for_each(|name| program(name, "#!/bin/sh\n"));
    program("curl", CURL);
    program("uv", UV);
    program("docker", DOCKER);
    home.write("dags/scripts/check.sh", "true\n");
    home.write("dags/scripts/report.py", "def main(day):\n    return day\n");
    home.write("dags/ready.py", "def newest_batch():\n    return {'is_done': True, 'xcom_value': 7}\n");
    home.write("in/a.csv", "1\n");
    fs::create_dir(home.file("data")).unwrap();
    let shop = rusqlite::Connection::open(home.file("data/shop.db")).unwrap();
    shop.execute_batch(&format!("CREATE TABLE orders (day TEXT); INSERT INTO orders VALUES ('{DAY}');")).unwrap();
    home
}

/// What the services of the examples answer.
fn answer(path: &str) -> (u16, String) {
    match path.split_once('?').map_or(path, |(path, _)| path) {
        "/v1/items" => (200, r#"{"items": [{"id": 7}, {"id": 9}]}"#.to_owned()),
        "/v1/seen" => (201, String::new()),
        "/2026-03-27/manifest.json" => (200, r#"{"complete": true}"#.to_owned()),
        _ => (500, format!("nobody knows {path}")),
    }
}

/// The states that `dags test` prints at its end, without what it says about them, and the run's.
fn states(printed: &str) -> Vec<String> {
    let lines: Vec<&str> = printed.lines().collect();
    let from = lines.iter().rposition(|line| line.starts_with("--- ") || line.contains("] minflow: "));
    let listed = &lines[from.map_or(0, |at| at + 1)..];
    let state = |line: &&str| line.split(" (").next().unwrap_or_default().to_owned();
    let mut states: Vec<String> = listed.iter().map(state).collect();
    if let Some(run) = states.last_mut() {
        *run = format!("run: {}", run.rsplit(": ").next().unwrap());
    }
    states
}

#[test]
fn every_example_of_the_page_comes_to_what_the_page_says() {
    let (mail_port, mails) = smtp::serve(Manner::default());
    let (proxy, asked) = http::serve(answer);
    let home = home(mail_port);
    let path = format!("{}:{}", home.file("bin").display(), std::env::var("PATH").unwrap());
    let blocks = blocks();
    let mut shown = 0;
    for (at, (_, example)) in blocks.iter().enumerate().filter(|(_, (words, _))| *words == "toml") {
        let tasks = if example.contains("tasks.") { "" } else { "[tasks.a]\nempty = true\n" };
        home.dag(&format!("example_{at}"), &format!("{example}{tasks}"));
        let mut command = home.command(&format!("dags test example_{at} {DAY}T12:00:00Z"));
        command.env("PATH", &path).env("HTTPS_PROXY", format!("http://{proxy}"));
        let done = command.env("SSL_CERT_FILE", fixtures().join("certificate.pem")).output().unwrap();
        let printed = String::from_utf8_lossy(&done.stdout);
        let said = format!("{example}\n{printed}{}", String::from_utf8_lossy(&done.stderr));
        let states = states(&printed);
        match blocks.get(at + 1) {
            Some(("text states", expected)) => {
                let success = if expected.contains("run: ") { "" } else { "run: success\n" };
                assert_eq!(states.join("\n") + "\n", format!("{expected}{success}"), "{said}");
                shown += 1;
            }
            _ => assert_eq!(states.last().map(String::as_str), Some("run: success"), "{said}"),
        }
    }
    assert!(shown > 3, "the page shows what its examples come to");
    let asked = asked.lock().unwrap().clone();
    let lines: Vec<&str> = asked.iter().filter_map(|request| request.lines().next()).collect();
    let expected = ["GET /v1/items?day=2026-03-27 ", "POST /v1/seen ", "GET /2026-03-27/manifest.json "];
    assert!(lines.len() == 3 && expected.iter().zip(&lines).all(|(start, line)| line.starts_with(start)), "{lines:?}");
    assert!(asked[1].ends_with(r#"{"ids": [7, 9]}"#), "{}", asked[1]);
    let mail = mails.recv_timeout(PATIENCE).unwrap();
    assert_eq!(mail.to, ["ann@example.com", "bob@example.com"]);
    assert!(mail.content.contains("Subject: Report of 2026-03-27\n"), "{}", mail.content);
}
