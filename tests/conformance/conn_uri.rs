//! Kind `conn_uri`: what a connection's URI or JSON says, and the URI that says it. Of Airflow's two readers it is the task SDK's.

use minflow::secrets::{Connection, ConnectionError};
use serde_json::{Value, json};

use crate::harness;

fn fields(connection: &Connection) -> Value {
    json!({
        "conn_type": connection.conn_type,
        "host": connection.host,
        "login": connection.login,
        "password": connection.password,
        "schema": connection.schema,
        "port": connection.port,
        "extra": connection.extra,
        "extra_dejson": connection.extra_dejson(),
    })
}

fn with_uri(connection: &Connection) -> Value {
    let mut all = fields(connection);
    all["get_uri"] = connection.uri().into();
    all
}

fn built(fields: &Value) -> Result<Value, ConnectionError> {
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    let connection = Connection {
        conn_type: text("conn_type"),
        description: None,
        host: text("host"),
        login: text("login"),
        password: text("password"),
        schema: text("schema"),
        port: fields["port"].as_i64(),
        extra: text("extra"),
    };
    let uri = connection.uri();
    Ok(json!({ "uri": uri, "reparsed": self::fields(&Connection::from_uri(&uri)?) }))
}

fn check(row: &Value) -> Result<(), String> {
    let result = match row["kind"].as_str().unwrap() {
        "parse" => Connection::from_uri(row["uri"].as_str().unwrap()).map(|connection| with_uri(&connection)),
        "json" => Connection::from_json(row["json"].as_str().unwrap()).map(|connection| fields(&connection)),
        "build" => built(&row["fields"]),
        other => panic!("an unknown kind of case: {other}"),
    };
    let expected = &row["sdk"];
    let is_error = expected.get("error").is_some();
    match result {
        Ok(got) if got == *expected => Ok(()),
        Err(_) if is_error => Ok(()),
        other => Err(format!("{}: {other:?} instead of {expected}", row["id"])),
    }
}

#[test]
fn conn_uri() {
    harness::conform("conn_uri", "conn_uri", &harness::cases("conn_uri"), check);
}
