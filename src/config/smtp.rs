//! `[smtp]`: the mail server of all mails that name no other. It is kept as a connection, so that its password has the sources and the
//! secrecy of every other.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use super::keys;
use crate::keytable::{Faults, Fields};
use crate::secrets::{Connection, Credential, GivenConnection, dumps};

/// The connection of mails that name none (Airflow's name).
pub const SMTP_CONNECTION: &str = "smtp_default";
const PASSWORDS: [&str; 3] = ["password", "password_file", "password_env"];

/// Adds the faults that the table of keys cannot express.
pub(super) fn check(sections: &DeTable<'_>, faults: &mut Faults<'_>) {
    let Some(section) = sections.get("smtp") else { return };
    let Some(table) = section.get_ref().as_table() else { return };
    let fields = Fields::new(&keys::SMTP, table);
    for (span, _) in PASSWORDS.iter().filter_map(|name| fields.entry(name)).skip(1) {
        faults.add(span, "conflict", "the password is given twice", "keep one of the two");
    }
    for name in ["host", "mail_from", "user", "password_file", "password_env"] {
        if let (Some(""), Some(value)) = (fields.text(name), fields.get(name)) {
            faults.add(value.span(), "bad-value", format!("`{name}` is empty"), "give it a value, or leave it out");
        }
    }
    if let (Some(from), Some(value)) = (fields.text("mail_from"), fields.get("mail_from"))
        && !from.is_empty()
        && !from.contains('@')
    {
        let help = "write for example `mail_from = \"minflow@example.com\"`";
        faults.add(value.span(), "bad-value", format!("`{from}` is no address"), help);
    }
    let connections = sections.get("connections").and_then(|section| section.get_ref().as_table());
    let other = connections.and_then(|connections| connections.iter().find(|(id, _)| id.get_ref() == SMTP_CONNECTION));
    if let Some((id, _)) = other {
        let message = format!("`[smtp]` is the connection `{SMTP_CONNECTION}`, which is given here, too");
        faults.add(id.span(), "conflict", message, "keep one of the two");
    }
}

/// The connection that checked settings tell.
pub(super) fn connection(settings: &BTreeMap<&str, &Value>, origin: &str, home: &Path) -> GivenConnection {
    let text = |name: &str| settings.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    let mut extra = Map::new();
    for (name, known) in [("mail_from", "from_email"), ("tls", "tls"), ("verify", "verify")] {
        extra.extend(settings.get(name).map(|&value| (known.to_owned(), value.clone())));
    }
    let timeout = settings.get("timeout").and_then(|value| super::load::duration(value));
    extra.extend(timeout.map(|timeout| ("timeout".to_owned(), json!(timeout.as_secs()))));
    let of_file = text("password_file").map(|path| Credential::File(home.join(path)));
    GivenConnection {
        connection: Connection {
            conn_type: Some("smtp".to_owned()),
            description: None,
            host: text("host"),
            login: text("user"),
            password: text("password"),
            schema: None,
            port: settings.get("port").and_then(|port| port.as_i64()),
            extra: Some(dumps(&Value::Object(extra))),
        },
        credential: of_file.or_else(|| text("password_env").map(Credential::Environment)),
        origin: origin.to_owned(),
    }
}
