//! `sql = …`: the built-in operator, with its task on standard input.

use std::path::PathBuf;

use serde_json::Value;

use crate::builtin::sql::SqlTask;
use crate::model::sql::{Sql, SqlDatabase, SqlScript};
use crate::operators::{Fault, Place, Program, builtin, script_path, text};
use crate::secrets::Connection;
use crate::template::{self, Context, TemplateError};

const MEMORY: &str = ":memory:";

pub fn prepare(sql: &Sql, place: &Place<'_>) -> Result<Program, Fault> {
    let task = task(sql, place)?;
    builtin::program("sql", &task, task.value.clone(), place)
}

/// # Errors
/// The fault of a template, a script that cannot be read, a connection that is none.
pub fn task(sql: &Sql, place: &Place<'_>) -> Result<SqlTask, Fault> {
    let (script, name) = script(sql, place)?;
    let (database, is_read_only) = match &sql.database {
        SqlDatabase::Path(path) => (located(&template::render(path, place.context)?, place.dag_folder)?, false),
        SqlDatabase::Connection(id) => of_connection(&template::render(id, place.context)?, place)?,
    };
    Ok(SqlTask {
        script,
        name,
        database,
        is_read_only: sql.is_read_only || is_read_only,
        is_autocommit: sql.is_autocommit,
        parameters: parameters(sql, place.context)?,
        output: sql.output,
        value: builtin::value_path(place),
        verdict: builtin::verdict_path(place),
        timeout: sql.timeout,
    })
}

/// # Errors
/// The fault of a template in them.
pub fn parameters(sql: &Sql, context: &Context) -> Result<Value, TemplateError> {
    template::render_value(&sql.parameters, sql.parameters_at, context)
}

/// The rendered script, and what it is called.
fn script(sql: &Sql, place: &Place<'_>) -> Result<(String, String), Fault> {
    match &sql.script {
        SqlScript::Text(script) => Ok((template::render(script, place.context)?, "sql".to_owned())),
        SqlScript::File(name) => {
            let path = PathBuf::from(script_path(name, place)?);
            let content = std::fs::read_to_string(&path).map_err(|error| Fault::of_file("read", &path, &error))?;
            Ok((render_file(content, name, place.context)?, name.clone()))
        }
    }
}

/// A template's fault in a file is named by the file's lines.
fn render_file(content: String, name: &str, context: &Context) -> Result<String, TemplateError> {
    let first = crate::model::dag::Position { line: 1, column: 1 };
    let context = Context { file: name.into(), ..context.clone() };
    template::render(&crate::model::Template { text: content, at: first }, &context)
}

fn located(path: &str, folder: &std::path::Path) -> Result<String, Fault> {
    match path {
        "" => Err(Fault::Task("the database's path is empty: correct `database`".to_owned())),
        MEMORY => Ok(path.to_owned()),
        _ => text(folder.join(path)),
    }
}

/// The path of a connection, and whether it is to be read only.
fn of_connection(id: &str, place: &Place<'_>) -> Result<(String, bool), Fault> {
    let found = place.context.lookup.connection(id).map_err(Fault::Task)?;
    let Some(connection) = found else {
        let upper = id.to_uppercase();
        return Err(Fault::Task(format!(
            "there is no connection `{id}`: add it to [connections] of airflow.toml, or set AIRFLOW_CONN_{upper}"
        )));
    };
    let conn_type = connection.conn_type.as_deref().unwrap_or_default();
    if conn_type != "sqlite" {
        return Err(Fault::Task(format!(
            "connection `{id}` is of the type `{conn_type}`, and `sql` reads `sqlite` alone: write for example `sqlite:////srv/data/sales.db`"
        )));
    }
    let is_read_only = connection.extra_dejson()["mode"] == "ro";
    // A connection stands in airflow.toml, whose paths start at the home.
    Ok((located(&path_of(&connection), place.home)?, is_read_only))
}

/// Airflow writes a path as the host, percent-encoded, or as what follows it.
fn path_of(connection: &Connection) -> String {
    let host = connection.host.as_deref().unwrap_or_default();
    match (host, connection.schema.as_deref().unwrap_or_default()) {
        ("", schema) => schema.to_owned(),
        (host, "") => host.to_owned(),
        (host, schema) => format!("{host}/{schema}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connections_path_is_its_host_or_what_follows_it() {
        let cases = [
            ("sqlite:////srv/data/a.db", "/srv/data/a.db"),
            ("sqlite:///data/a.db", "data/a.db"),
            ("sqlite://%2Fsrv%2FA.db", "/srv/A.db"),
            ("sqlite://data/a.db", "data/a.db"),
            ("sqlite://%3Amemory%3A", ":memory:"),
            ("sqlite://", ""),
        ];
        for (uri, path) in cases {
            assert_eq!(path_of(&Connection::from_uri(uri).unwrap()), path, "{uri}");
        }
    }
}
