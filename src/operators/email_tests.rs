use serde_json::json;

use super::*;

/// One connection under two names, and nothing else.
struct One(&'static str);

impl Lookup for One {
    fn connection(&self, id: &str) -> Result<Option<Connection>, String> {
        if id == "none" || self.0.is_empty() {
            return Ok(None);
        }
        Connection::parse(self.0).map(Some).map_err(|error| error.message)
    }
}

fn made(connection: &'static str, fields: Value) -> Result<EmailTask, String> {
    task(fields.as_object().unwrap(), &One(connection), Path::new("/home"), Path::new("/run"))
}

#[test]
fn port_and_tls_follow_from_each_other_unless_both_are_given() {
    let cases = [
        ("smtp://h?from_email=a%40b", "h", 587, Security::Starttls),
        ("smtp://h:465?from_email=a%40b", "h", 465, Security::Ssl),
        ("smtp://h:25?from_email=a%40b", "h", 25, Security::Starttls),
        ("smtp://localhost?from_email=a%40b", "localhost", 25, Security::None),
        ("smtp://localhost:587?from_email=a%40b", "localhost", 587, Security::Starttls),
        ("smtp://h?from_email=a%40b&tls=ssl", "h", 465, Security::Ssl),
        ("smtp://h:465?from_email=a%40b&tls=starttls", "h", 465, Security::Starttls),
        ("smtp://h?from_email=a%40b&tls=none", "h", 25, Security::None),
        ("email://h?from_email=a%40b&disable_ssl=true", "h", 587, Security::Starttls),
        ("smtp://h?from_email=a%40b&disable_tls=True", "h", 465, Security::Ssl),
        ("smtp://h:2525?from_email=a%40b&disable_ssl=true&disable_tls=true", "h", 2525, Security::None),
    ];
    for (connection, host, port, security) in cases {
        let server = made(connection, json!({})).unwrap().server;
        assert_eq!((&*server.host, server.port, server.security), (host, port, security), "{connection}");
    }
}

#[test]
fn a_connection_gives_sender_login_trust_and_timeout() {
    let task = made("smtp://me%40example.com:pass@h?timeout=7&verify=ca.pem", json!({})).unwrap();
    let server = task.server;
    assert!(server.login.is_some_and(|login| login.user == "me@example.com" && login.password == "pass"));
    assert_eq!(task.from, "me@example.com");
    assert_eq!((server.timeout, server.trust), (Duration::from_secs(7), Trust::File("/home/ca.pem".into())));
    let task = made("smtp://me:pass@h?from_email=minflow%40example.com&verify=false", json!({})).unwrap();
    assert_eq!((&*task.from, task.server.trust), ("minflow@example.com", Trust::Anybody));
    assert_eq!(task.server.timeout, TIMEOUT);
}

#[test]
fn lists_and_texts_of_addresses_mean_the_same_and_files_lie_in_the_folder_of_the_run() {
    let fields =
        json!({ "to": ["a@b", "c@d"], "cc": "e@f, g@h", "subject": "s", "html": "<p>", "files": ["x.csv", "/y"] });
    let task = made("smtp://h?from_email=a%40b", fields).unwrap();
    assert_eq!((&*task.to, &*task.cc, &*task.bcc), ("a@b, c@d", "e@f, g@h", ""));
    assert_eq!(task.files, [PathBuf::from("/run/x.csv"), PathBuf::from("/y")]);
    assert_eq!((task.body, task.html.as_deref()), (None, Some("<p>")));
}

#[test]
fn a_server_that_is_not_told_is_asked_for_with_what_to_write() {
    let cases = [
        ("", json!({}), "no mail server is known: add `[smtp]` to airflow.toml, with `host` and `mail_from`"),
        ("smtp://h", json!({ "connection": "none" }), "there is no connection `none`: add `[connections.none]`"),
        ("smtp://h", json!({}), "nobody is named who sends: add `mail_from = "),
        ("smtp://me:pass@h", json!({ "connection": "c" }), "connection `c` does not say who sends: add `from_email`"),
        ("http://h", json!({ "connection": "c" }), "connection `c` is of the type `http`, and `email` reads `smtp`"),
        ("smtp://h?tls=yes", json!({ "connection": "c" }), "`tls` in the extra of connection `c` is `yes`: write"),
    ];
    for (connection, fields, expected) in cases {
        let message = made(connection, fields).unwrap_err();
        assert!(message.starts_with(expected), "{message}");
    }
}
