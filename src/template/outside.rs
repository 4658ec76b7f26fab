//! `var` and `conn`: variables and connections as templates read them (SEMANTICS 18).

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value, from_args};
use minijinja::{Error, ErrorKind, State};

use crate::secrets::Connection;
use crate::template::Context;
use crate::template::python::from_json;

/// `var`
pub(super) fn variables(context: &Arc<Context>) -> Value {
    Value::from_object(Door { context: context.clone(), to: To::Variables })
}

/// `conn`
pub(super) fn connections(context: &Arc<Context>) -> Value {
    Value::from_object(Door { context: context.clone(), to: To::Connections })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// `var`, whose parts are the two that follow.
    Variables,
    Texts,
    Json,
    Connections,
}

struct Door {
    context: Arc<Context>,
    to: To,
}

fn refused(sentence: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, sentence.into())
}

impl Door {
    /// None: there is no such variable or connection.
    fn find(&self, name: &str) -> Result<Option<Value>, Error> {
        let lookup = &self.context.lookup;
        if self.to == To::Connections {
            let found = lookup.connection(name).map_err(refused)?;
            return Ok(found.map(|connection| Value::from_object(Shown { conn_id: name.to_owned(), connection })));
        }
        let Some(text) = lookup.variable(name).map_err(refused)? else { return Ok(None) };
        if self.to == To::Texts {
            return Ok(Some(Value::from(text)));
        }
        let parsed = serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            refused(format!(
                "variable `{name}` is no JSON (line {line}, column {column}); read it as `var.value.{name}`"
            ))
        })?;
        Ok(Some(from_json(parsed)))
    }

    fn missing(&self, name: &str) -> Error {
        let upper = name.to_uppercase();
        refused(match self.to {
            To::Connections => {
                format!(
                    "there is no connection `{name}`; add it to [connections] of airflow.toml, or set AIRFLOW_CONN_{upper}"
                )
            }
            _ => format!(
                "there is no variable `{name}`; add it to [variables] of airflow.toml, or set AIRFLOW_VAR_{upper}"
            ),
        })
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.to {
            To::Variables => "<var>",
            To::Texts => "<var.value>",
            To::Json => "<var.json>",
            To::Connections => "<conn>",
        })
    }
}

impl Object for Door {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        let door = |to| Some(Value::from_object(Self { context: self.context.clone(), to }));
        match (self.to, name) {
            (To::Variables, "value") => door(To::Texts),
            (To::Variables, "json") => door(To::Json),
            (To::Variables, _) => None,
            _ => Some(
                self.find(name).and_then(|found| found.ok_or_else(|| self.missing(name))).unwrap_or_else(Value::from),
            ),
        }
    }

    fn call_method(self: &Arc<Self>, _state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        if method != "get" || self.to == To::Variables {
            return Err(Error::from(ErrorKind::UnknownMethod));
        }
        let (name, default): (String, Option<Value>) = from_args(args)?;
        match (self.find(&name)?, default) {
            (Some(found), _) | (None, Some(found)) => Ok(found),
            // As in Airflow a missing connection is None, and a missing variable an error.
            (None, None) if self.to == To::Connections => Ok(Value::from(())),
            (None, None) => Err(self.missing(&name)),
        }
    }
}

/// One connection.
struct Shown {
    conn_id: String,
    connection: Connection,
}

impl fmt::Debug for Shown {
    // Printed whole it is its id: the rest holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.conn_id)
    }
}

impl Object for Shown {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        let connection = &self.connection;
        let text = |text: &Option<String>| text.as_deref().map_or(Value::from(()), Value::from);
        Some(match name {
            "conn_id" => Value::from(&*self.conn_id),
            "conn_type" => text(&connection.conn_type),
            "description" => text(&connection.description),
            "host" => text(&connection.host),
            "login" => text(&connection.login),
            "password" => text(&connection.password),
            "schema" => text(&connection.schema),
            "port" => connection.port.map_or(Value::from(()), Value::from),
            "extra" => text(&connection.extra),
            "extra_dejson" => from_json(connection.extra_dejson()),
            _ => return None,
        })
    }

    fn call_method(self: &Arc<Self>, _state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "get_uri" => {
                from_args::<()>(args)?;
                Ok(Value::from(self.connection.uri()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}
