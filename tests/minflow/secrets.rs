//! Variables and connections: from airflow.toml, the environment and files of passwords into templates; and hidden wherever
//! minflow shows something.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{Home, Minflow};

const AIRFLOW: &str = r#"
[variables]
greeting = "hello"
api_token = "token-of-the-file"
limits = { rows = 5, columns = ["a", "b"] }

[connections]
warehouse = "postgresql://etl:p%40ssw0rd@DB.example.com:5432/sales?sslmode=require"
unreadable = { conn_type = "http", host = "h", password_file = "secrets/missing" }

[connections.crm]
conn_type = "http"
host = "https://crm.example.com"
login = "reports"
port = 8443
password_file = "secrets/crm"
extra = { region = "eu", api_key = "key-in-extra" }
"#;

const DAG: &str = r#"
[tasks.show]
env = { API_TOKEN = "{{ var.value.api_token }}" }
bash = '''
echo "{{ var.value.greeting }}, {{ var.json.limits.rows }} rows of {{ var.json.get("limits")["columns"] }}"
echo "{{ var.value.get("nothing", "a default") }}, {{ conn.get("nothing") }}, {{ conn.get("nothing", 7) }}"
echo "{{ conn.crm.login }}:{{ conn.crm.password }} {{ conn.crm.host }} {{ conn.crm.port }} {{ conn.crm.extra_dejson.region }}"
echo "{{ conn.warehouse.get_uri() }} {{ conn.warehouse.conn_type }} {{ conn.warehouse.schema }} {{ conn.warehouse }}"
echo "$API_TOKEN" '{{ conn.crm.extra }}'
'''

[tasks.quotes]
cwd = "/nowhere/{{ conn.crm.password }}"
bash = "true"

[tasks.awaits]
sensor = { file = "/nowhere/{{ conn.crm.password }}/*", timeout = 1 }

[tasks.misses]
bash = "echo {{ var.value.gretting }}"

[tasks.cannot_read]
bash = "echo {{ conn.unreadable.password }}"

[tasks.is_no_json]
bash = "echo {{ var.json.greeting }}"
"#;

const TOKEN: (&str, &str) = ("AIRFLOW_VAR_API_TOKEN", "token-of-the-environment");

fn home() -> Home {
    let home = Home::new();
    home.write("airflow.toml", AIRFLOW);
    home.write("secrets/crm", "first-password\n");
    home.dag("world", DAG);
    home
}

fn start(home: &Home) -> Minflow {
    let mut command = home.command("run --port 0");
    command.env(TOKEN.0, TOKEN.1);
    home.start_as(command)
}

/// Runs a command with the token in its environment, and gives all that it says.
fn said(home: &Home, words: &str) -> String {
    let mut command: Command = home.command(words);
    let done = command.env(TOKEN.0, TOKEN.1).stdin(Stdio::null()).output().unwrap();
    String::from_utf8([done.stdout, done.stderr].concat()).unwrap()
}

fn assert_hidden(text: &str) {
    let secrets = ["token-of-", "-password", "p@ssw0rd", "p%40ssw0rd", "key-in-extra"];
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} is shown: {text}");
    }
}

#[test]
fn a_task_gets_what_its_templates_ask_for_and_nobody_is_shown_its_secrets() {
    let home = home();
    let minflow = start(&home);
    let ran = home.run_dag("world", "first");
    assert_hidden(&ran.err);
    let log = home.log("world", "first", "show", 1);
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains("] minflow: ")).collect();
    let expected = [
        "hello, 5 rows of ['a', 'b']",
        "a default, None, 7",
        "reports:first-password https://crm.example.com 8443 eu",
        "postgres://etl:p%40ssw0rd@db.example.com:5432/sales?sslmode=require postgres sales warehouse",
        "token-of-the-environment {\"region\": \"eu\", \"api_key\": \"key-in-extra\"}",
    ];
    assert_eq!(lines, expected, "{log}");
    let shown = said(&home, "tasks logs world show first");
    assert_hidden(&shown);
    assert!(shown.contains("reports:*** https://crm"), "{shown}");
    let rendered = said(&home, "tasks render world show first");
    assert_hidden(&rendered);
    assert!(rendered.contains("# env.API_TOKEN\n***\n") && rendered.contains("postgres://etl:***@"), "{rendered}");

    let reason = |task: &str| home.task("world", "first", task)["reason"].as_str().unwrap().to_owned();
    let quotes = reason("quotes");
    assert!(quotes.contains("/nowhere/***"), "{quotes}");
    let awaits = reason("awaits");
    assert!(awaits.ends_with("it still waits for /nowhere/***/*"), "{awaits}");
    let misses = reason("misses");
    assert!(misses.contains("no variable `gretting`; add it to [variables]"), "{misses}");
    let unreadable = reason("cannot_read");
    assert!(unreadable.contains("connection `unreadable` (airflow.toml:9): its `password_file` `"), "{unreadable}");
    let no_json = reason("is_no_json");
    assert!(no_json.contains("variable `greeting` is no JSON"), "{no_json}");
    let (_, status) = minflow.get("/status");
    assert_hidden(&status.to_string());
    assert!(status["recent_failures"].to_string().contains("/nowhere/***"), "{status}");
    assert_hidden(&minflow.said());

    // A try that comes later reads what the file holds then.
    home.write("secrets/crm", "second-password");
    home.run_dag("world", "second");
    assert!(home.log("world", "second", "show", 1).contains("reports:second-password "));
    assert!(home.task("world", "second", "quotes")["reason"].as_str().unwrap().contains("/nowhere/***"));
}

#[test]
fn the_faults_of_a_dag_file_do_not_repeat_a_secret() {
    let home = home();
    home.dag("careless", "[tasks.one]\nbash = \"true\"\nretries = \"first-password\"\n");
    let minflow = start(&home);
    let errors = crate::harness::until("the import error", || {
        let errors = home.json("dags list-import-errors");
        (!errors.as_array().unwrap().is_empty()).then(|| errors.to_string())
    });
    for text in [errors, said(&home, "validate"), minflow.get("/status").1.to_string(), minflow.said()] {
        assert_hidden(&text);
        assert!(text.contains("careless"), "{text}");
    }
}

#[test]
fn a_trial_hides_secrets_too() {
    let home = home();
    let shown = said(&home, "tasks test world show");
    assert_hidden(&shown);
    assert!(shown.contains("reports:*** https://crm.example.com 8443 eu"), "{shown}");
}

#[test]
fn variables_are_listed_with_their_sources_and_read_one_by_one() {
    let home = home();
    let mut command = home.command("variables list -o json");
    let done = command.env(TOKEN.0, TOKEN.1).env("AIRFLOW_VAR_MORE", "5").output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        listed,
        json!([
            { "key": "api_token", "val": "***", "source": "AIRFLOW_VAR_API_TOKEN" },
            { "key": "greeting", "val": "hello", "source": "airflow.toml:3" },
            { "key": "limits", "val": "{\"rows\": 5, \"columns\": [\"a\", \"b\"]}", "source": "airflow.toml:5" },
            { "key": "more", "val": "5", "source": "AIRFLOW_VAR_MORE" },
        ])
    );
    assert_eq!(home.cli("variables get greeting").texts(), (Some(0), "hello\n", ""));
    assert_eq!(home.cli("variables get api_token").texts(), (Some(0), "***\n", ""));
    assert_eq!(home.cli("variables get nothing --default x").texts(), (Some(0), "x\n", ""));
    assert_eq!(home.cli("variables get limits --json").out, "{\"rows\":5,\"columns\":[\"a\",\"b\"]}\n");
    let unknown =
        "error: unknown variable `greting`\nhelp: did you mean `greeting`? `minflow variables list` lists them all\n";
    assert_eq!(home.cli("variables get greting").texts(), (Some(1), "", unknown));
    let no_json =
        "error: variable `greeting` is no JSON: see line 1, column 1\nhelp: leave out --json to see its text\n";
    assert_eq!(home.cli("variables get greeting -j").texts(), (Some(1), "", no_json));
}

#[test]
fn connections_are_shown_without_their_passwords() {
    let home = home();
    let shown = home.cli("connections list -o json");
    assert_hidden(&shown.out);
    assert_eq!(shown.code, Some(1), "one of them cannot be read");
    assert!(shown.err.starts_with("error: connection `unreadable` (airflow.toml:9): its `password_file`"), "{shown:?}");
    let ids: Vec<_> = shown.json().as_array().unwrap().iter().map(|one| one["conn_id"].clone()).collect();
    assert_eq!(ids, ["crm", "warehouse"]);
    assert_eq!(
        home.json("connections get crm"),
        json!({
            "conn_id": "crm", "conn_type": "http", "description": null, "host": "https://crm.example.com",
            "schema": null, "login": "reports", "password": "***", "port": 8443,
            "extra_dejson": { "region": "eu", "api_key": "***" },
            "get_uri": "http://https://reports:***@crm.example.com:8443", "source": "airflow.toml:11",
        })
    );
    assert_eq!(home.json("connections get warehouse")["get_uri"], "postgres://etl:***@db.example.com:5432/sales");
    let unknown = home.cli("connections get crn");
    assert!(unknown.err.contains("unknown conn_id `crn`\nhelp: did you mean `crm`?"), "{unknown:?}");
}

#[test]
fn a_connection_that_does_not_parse_is_named_at_its_place_and_stops_the_start() {
    let home = home();
    home.write("airflow.toml", "[connections]\nbad = \"spark://u:hunter2@local[*]\"\n");
    let ran = home.cli("run --port 0");
    assert_eq!((ran.code, &*ran.out), (Some(3), ""), "{ran:?}");
    assert!(ran.err.starts_with("airflow.toml:2:7: bad-connection: this is no connection"), "{ran:?}");
    assert!(!ran.err.contains("hunter2"), "{ran:?}");
}
