//! `minflow connections …`: reads the environment and airflow.toml, as templates do. Passwords are never shown.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::failure::eprint;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome, settings};
use crate::secrets::{Connection, HIDDEN, Masker};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all connections, without their passwords
    List,
    /// Show one connection, without its password
    Get(GetArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow connections get warehouse -o json")]
pub struct GetArguments {
    conn_id: String,
}

const COLUMNS: [Column; 10] = [
    Column::text("conn_id"),
    Column::text("conn_type"),
    Column::text("host"),
    Column::text("schema"),
    Column::text("login"),
    Column::text("password"),
    Column::text("port"),
    Column::text("extra_dejson"),
    Column::text("description"),
    Column::text("source"),
];

pub fn run(globals: &Globals, command: &Command, output: &mut Output) -> Outcome {
    let secrets = settings::secrets(globals)?;
    let all = secrets.connections();
    let chosen: Vec<_> = match command {
        Command::List => all.iter().collect(),
        Command::Get(arguments) => {
            // The environment's are found by any case of their letters.
            let is_meant = |name: &str| name == arguments.conn_id || name == arguments.conn_id.to_lowercase();
            let Some(found) = all.iter().find(|listed| is_meant(&listed.name)) else {
                let known = all.iter().map(|listed| listed.name.as_str());
                return Err(Failure::unknown("conn_id", &arguments.conn_id, known, "minflow connections list"));
            };
            vec![found]
        }
    };
    let masker = secrets.masker();
    let (mut records, mut is_whole) = (Vec::new(), true);
    for listed in chosen {
        match &listed.value {
            Ok(connection) => records.push(record(&listed.name, connection, &listed.origin, &masker)),
            Err(error) => {
                is_whole = false;
                eprint(&format!("error: {}\nhelp: {}\n", masker.mask(&error.message), error.help));
            }
        }
    }
    match command {
        Command::List => output.list(&records, &COLUMNS)?,
        Command::Get(_) => records.iter().try_for_each(|record| output.record(record, &COLUMNS))?,
    }
    if is_whole { Ok(()) } else { Err(Failure::Told) }
}

fn record(conn_id: &str, connection: &Connection, origin: &str, masker: &Masker) -> Value {
    let masked = |text: &Option<String>| text.as_deref().map(|text| masker.mask(text).into_owned());
    let hidden = connection.password.as_ref().map(|_| HIDDEN);
    json!({
        "conn_id": conn_id,
        "conn_type": connection.conn_type,
        "description": masked(&connection.description),
        "host": masked(&connection.host),
        "schema": masked(&connection.schema),
        "login": masked(&connection.login),
        "password": hidden,
        "port": connection.port,
        "extra_dejson": masker.redact("", &connection.extra_dejson()),
        "get_uri": masker.mask(&shown_uri(connection)),
        "source": origin,
    })
}

/// The URI with the password hidden, however short that is, and without an extra.
fn shown_uri(connection: &Connection) -> String {
    let without = Connection { password: None, extra: None, ..connection.clone() };
    if connection.password.is_none() {
        return without.uri();
    }
    let with =
        Connection { login: Some(without.login.clone().unwrap_or_default()), password: Some(String::new()), ..without };
    // An empty password leaves its colon before the `@`, and no part before that has an `@` of its own.
    with.uri().replacen(":@", &format!(":{HIDDEN}@"), 1)
}
