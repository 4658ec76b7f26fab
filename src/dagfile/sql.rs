//! The operator `sql`.

use std::ops::Range;
use std::time::Duration;

use serde_json::Value;

use super::Reader;
use crate::keytable::{self, Fields};
use crate::model::dag::{Operator, Position, Template};
use crate::model::sql::{Sql, SqlDatabase, SqlOutput, SqlScript};

const EXAMPLE: &str = "write for example `sql = { database = \"data/sales.db\", file = \"load_sales.sql\" }`";

/// Of a look of a sensor.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);

impl Reader<'_, '_> {
    /// `key` is where `sql` stands.
    pub(super) fn sql(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Operator {
        Operator::Sql(Box::new(Sql {
            output: fields.text("output").and_then(SqlOutput::from_name).unwrap_or_default(),
            is_autocommit: fields.bool("autocommit").unwrap_or(false),
            is_read_only: fields.bool("read_only").unwrap_or(false),
            ..self.sql_script(key, fields)
        }))
    }

    /// `key` is where `sql` of a sensor stands. A look changes nothing.
    pub(super) fn awaited_sql(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Sql {
        let timeout = Some(fields.duration("timeout").unwrap_or(LOOK_TIMEOUT));
        Sql { output: SqlOutput::Value, is_read_only: true, timeout, ..self.sql_script(key, fields) }
    }

    /// What all have that run SQL.
    fn sql_script(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Sql {
        let script = match (fields.get("sql"), fields.get("file")) {
            (Some(script), None) => SqlScript::Text(self.template(script)),
            (None, Some(file)) => SqlScript::File(self.file(file)),
            (given, _) => {
                let message =
                    if given.is_some() { "`sql` and `file` cannot stand together" } else { "there is no SQL to run" };
                let help = if given.is_some() { "keep one of them" } else { EXAMPLE };
                self.faults.add(key.clone(), "bad-operator", message, help);
                SqlScript::File(String::new())
            }
        };
        let database = match (fields.get("database"), fields.get("connection")) {
            (Some(path), None) => SqlDatabase::Path(self.template(path)),
            (None, Some(id)) => SqlDatabase::Connection(self.template(id)),
            (given, _) => {
                let message = match given {
                    Some(_) => "`database` and `connection` cannot stand together",
                    None => "there is no database to run the SQL in",
                };
                let help = if given.is_some() { "keep one of them" } else { EXAMPLE };
                self.faults.add(key, "bad-operator", message, help);
                SqlDatabase::Path(Template { text: String::new(), at: Position::default() })
            }
        };
        let parameters = fields.get("parameters");
        Sql {
            script,
            database,
            parameters: parameters.and_then(|value| keytable::json(value.get_ref())).unwrap_or(Value::Null),
            parameters_at: parameters.map(|value| self.position(value)).unwrap_or_default(),
            output: SqlOutput::default(),
            is_autocommit: false,
            is_read_only: false,
            timeout: None,
        }
    }
}
