//! Mails of tasks and callbacks, given to a server of the test's own.

use serde_json::json;

use crate::harness::{Home, PATIENCE, until};
use crate::smtp::{Manner, fixtures, serve};

const LOGIN: Option<(&str, &[&str])> = Some(("PLAIN", &["AGFubgBzM2NyZXRwYXNzd29yZA=="]));

/// The section of a server with STARTTLS and a login.
fn section(port: u16) -> String {
    let certificate = fixtures().join("certificate.pem");
    let certificate = certificate.display();
    format!(
        "[smtp]\nhost = 'localhost'\nport = {port}\nverify = '{certificate}'\nuser = 'ann'\npassword_file = 'password'\nmail_from = 'minflow <minflow@example.com>'\n"
    )
}

#[test]
fn a_task_sends_what_tasks_before_it_have_made_by_tls_and_shows_no_password() {
    let (port, mails) = serve(Manner { offers_starttls: true, login: LOGIN, ..Manner::default() });
    let home = Home::new();
    home.write("airflow.toml", section(port));
    home.write("password", "s3cretpassword\n");
    home.dag(
        "report",
        r#"
chain = ["make >> send"]
[tasks.make]
bash = "echo a,b > $MINFLOW_RUN_DIR/report.csv; echo 42"
[tasks.send]
email = { to = ["ann@example.com", "{{ params.also }}"], subject = "{{ dag.dag_id }} of {{ run_id }}", body = "rows: {{ xcom('make') }}", files = ["report.csv"] }
[params]
also = "bob@example.com"
"#,
    );
    let _minflow = home.start();
    let ran = home.run_dag("report", "r");
    let log = home.log("report", "r", "send", 1);
    assert_eq!(ran.code, Some(0), "{ran:?} {log}");
    let mail = mails.recv_timeout(PATIENCE).unwrap();
    assert_eq!(mail.to, ["ann@example.com", "bob@example.com"]);
    assert!(mail.was_encrypted, "the password was told to everybody");
    for part in ["Subject: report of r\n", "From: minflow <minflow@example.com>\n", "rows: 42", "report.csv"] {
        assert!(mail.content.contains(part), "{part}\n{}", mail.content);
    }
    assert!(log.contains("the server has taken it: 250 2.0.0 queued as 4711"), "{log}");
    let shown = home.cli("connections list --output json");
    assert!(!log.contains("s3cretpassword") && !shown.out.contains("s3cretpassword"), "{log} {shown:?}");
}

#[test]
fn a_refused_login_is_not_tried_again_and_its_reason_hides_the_password() {
    let refuses = &[("AUTH", "535 5.7.8 wrong: s3cretpassword")];
    let (port, mails) = serve(Manner { offers_starttls: true, login: LOGIN, refuses, ..Manner::default() });
    let home = Home::new();
    home.write("airflow.toml", section(port));
    home.write("password", "s3cretpassword");
    home.dag("d", "[tasks.send]\nretries = 3\nretry_delay = 0\nemail = { to = 'ann@example.com', subject = 's' }");
    let _minflow = home.start();
    assert_eq!(home.run_dag("d", "r").code, Some(1));
    let task = home.task("d", "r", "send");
    assert_eq!((&task["state"], &task["try_number"]), (&json!("failed"), &json!(1)));
    let reason = task["reason"].as_str().unwrap();
    assert!(reason.contains("refuses the login of `ann`: 535 5.7.8 wrong: ***; correct user and password"), "{reason}");
    assert!(!home.log("d", "r", "send", 1).contains("s3cretpassword"));
    assert!(mails.try_recv().is_err());
}

#[test]
fn one_line_in_defaults_mails_every_failure_as_cron_did() {
    let (port, mails) = serve(Manner { offers_starttls: true, login: LOGIN, ..Manner::default() });
    let home = Home::new();
    let rest =
        "[notifiers.mail]\nkind = 'email'\nto = ['ops@example.com']\n[defaults]\non_failure = [{ notify = 'mail' }]\n";
    home.write("airflow.toml", format!("{}{rest}", section(port)));
    home.write("password", "s3cretpassword");
    home.dag("d", "[tasks.t]\nbash = 'echo no such table; exit 3'");
    let mut minflow = home.start();
    assert_eq!(home.run_dag("d", "r").code, Some(1));
    let mail = mails.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&*mail.from, &*mail.to), ("minflow@example.com", &["ops@example.com".to_owned()][..]));
    for part in ["Subject: d has failed\n", "no such table", "exit"] {
        assert!(mail.content.contains(part), "{part}\n{}", mail.content);
    }
    minflow.stop();
    assert!(mails.try_recv().is_err(), "it was sent twice");
}

#[test]
fn a_notifier_that_cannot_mail_says_in_its_log_what_to_add() {
    let home = Home::new();
    home.write("airflow.toml", "[notifiers.mail]\nkind = 'email'\nto = 'ops@example.com'\n");
    home.dag("d", "on_failure = [{ notify = 'mail' }]\n[tasks.t]\nbash = 'exit 3'");
    let minflow = home.start();
    assert_eq!(home.run_dag("d", "r").code, Some(1));
    until("the callback's failure", || {
        minflow.said().contains("no mail server is known: add `[smtp]` to airflow.toml").then_some(())
    });
}
