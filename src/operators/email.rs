//! `email = …`: from rendered fields and a connection to a message and its server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::builtin::email::{EmailTask, Login, MailServer, Security};
use crate::builtin::http::Trust;
use crate::config::SMTP_CONNECTION;
use crate::operators::{Fault, Place, Program, builtin};
use crate::secrets::Connection;
use crate::template::Lookup;

/// As Airflow's.
const TIMEOUT: Duration = Duration::from_secs(30);

pub fn prepare(fields: &Map<String, Value>, place: &Place<'_>) -> Result<Program, Fault> {
    let context = place.context;
    let task = task(fields, context.lookup.as_ref(), place.home, &context.run_dir).map_err(Fault::Task)?;
    let task = EmailTask { verdict: builtin::verdict_path(place), ..task };
    builtin::program("email", &task, builtin::value_path(place), place)
}

/// What rendered fields ask for; where the verdict goes is left to the caller. `home` is where paths of connections begin, `folder`
/// where those of attached files do.
///
/// # Errors
/// A sentence: no such connection, or one that does not tell a mail server.
pub fn task(fields: &Map<String, Value>, lookup: &dyn Lookup, home: &Path, folder: &Path) -> Result<EmailTask, String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let id = text("connection").filter(|id| !id.is_empty()).unwrap_or(SMTP_CONNECTION);
    let connection = lookup.connection(id)?.ok_or_else(|| missing(id))?;
    let (server, from) = server(id, &connection, home)?;
    let list = |name: &str| match fields.get(name) {
        Some(Value::String(list)) => list.clone(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    };
    let files = fields.get("files").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    Ok(EmailTask {
        server,
        from,
        to: list("to"),
        cc: list("cc"),
        bcc: list("bcc"),
        subject: text("subject").unwrap_or_default().to_owned(),
        body: text("body").map(str::to_owned),
        html: text("html").map(str::to_owned),
        files: files.map(|file| folder.join(file)).collect(),
        verdict: PathBuf::new(),
    })
}

fn missing(id: &str) -> String {
    if id == SMTP_CONNECTION {
        return "no mail server is known: add `[smtp]` to airflow.toml, with `host` and `mail_from`, and if it wants a login `user` and `password_file`".to_owned();
    }
    let upper = id.to_uppercase();
    format!(
        "there is no connection `{id}`: add `[connections.{id}]` with conn_type = \"smtp\" to airflow.toml, or set AIRFLOW_CONN_{upper}"
    )
}

fn server(id: &str, connection: &Connection, home: &Path) -> Result<(MailServer, String), String> {
    let conn_type = connection.conn_type.as_deref().unwrap_or("smtp");
    if !["smtp", "email"].contains(&conn_type) {
        return Err(format!(
            "connection `{id}` is of the type `{conn_type}`, and `email` reads `smtp`: write for example `smtp://user:password@mail.example.com:587`"
        ));
    }
    let settings = match id {
        SMTP_CONNECTION => format!("`[smtp]`, or the connection `{id}`"),
        _ => format!("the connection `{id}`"),
    };
    let extra = Extra(connection.extra_dejson());
    let host = connection.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| "localhost".to_owned());
    let given = connection.port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    let security = security(id, &host, given, &extra)?;
    let port = given.unwrap_or(match security {
        Security::Ssl => 465,
        Security::Starttls => 587,
        Security::None => 25,
    });
    let trust = match extra.text("verify").as_deref() {
        None | Some("true" | "True" | "1") => Trust::Host,
        Some("false" | "False" | "0") => Trust::Anybody,
        Some(path) => Trust::File(home.join(path)),
    };
    let user = connection.login.clone().filter(|user| !user.is_empty());
    let from = extra.text("from_email").or_else(|| user.clone().filter(|user| user.contains('@')));
    let from = from.ok_or_else(|| match id {
        SMTP_CONNECTION => "nobody is named who sends: add `mail_from = \"minflow@example.com\"` to `[smtp]`, or `from_email` to the extra of the connection `smtp_default`".to_owned(),
        _ => format!("connection `{id}` does not say who sends: add `from_email` to its extra, such as \"minflow@example.com\""),
    })?;
    let password = connection.password.clone().unwrap_or_default();
    let login = user.map(|user| Login { user, password });
    let timeout = extra.timeout().unwrap_or(TIMEOUT);
    Ok((MailServer { settings, host, port, security, trust, login, timeout }, from))
}

fn security(id: &str, host: &str, port: Option<u16>, extra: &Extra) -> Result<Security, String> {
    if let Some(tls) = extra.text("tls") {
        return Security::from_name(&tls).ok_or_else(|| {
            format!("`tls` in the extra of connection `{id}` is `{tls}`: write \"starttls\", \"ssl\" or \"none\"")
        });
    }
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "::1");
    Ok(match (extra.is("disable_ssl"), extra.is("disable_tls")) {
        (true, true) => Security::None,
        (true, false) => Security::Starttls,
        (false, true) => Security::Ssl,
        (false, false) => match port {
            Some(465) => Security::Ssl,
            None | Some(25) if is_here => Security::None,
            _ => Security::Starttls,
        },
    })
}

/// The extra of a connection, whose values are texts where it comes from a URI.
struct Extra(Value);

impl Extra {
    fn text(&self, name: &str) -> Option<String> {
        let value = self.0.get(name).filter(|value| !value.is_null())?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)).filter(|text| !text.is_empty())
    }

    fn is(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| matches!(&*text.to_lowercase(), "true" | "1" | "yes" | "on" | "t" | "y"))
    }

    fn timeout(&self) -> Option<Duration> {
        let seconds = self.text("timeout")?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())
    }
}

#[cfg(test)]
#[path = "email_tests.rs"]
mod tests;
