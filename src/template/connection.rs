//! A connection as templates see it.

use std::any::Any;

use crate::jinja::fault::{Res, value_error};
use crate::jinja::{Args, Object, Value, Vm, json};
use crate::secrets::Connection;

/// What `conn.ID` gives.
pub(super) struct ConnectionValue {
    pub(super) id: String,
    pub(super) of: Connection,
}

impl Object for ConnectionValue {
    fn type_name(&self) -> &str {
        "Connection"
    }

    fn text(&self) -> String {
        // The rest holds a password.
        self.id.clone()
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        let text = |text: &Option<String>| text.as_deref().map_or(Value::None, Value::text);
        Ok(Some(match name {
            "conn_id" => Value::text(&*self.id),
            "conn_type" => text(&self.of.conn_type),
            "host" => text(&self.of.host),
            "login" => text(&self.of.login),
            "password" => text(&self.of.password),
            "schema" => text(&self.of.schema),
            "port" => self.of.port.map_or(Value::None, Value::int),
            "extra" => text(&self.of.extra),
            "extra_dejson" => json::from_json(&self.of.extra_dejson()),
            "description" => text(&self.of.description),
            _ => return Ok(None),
        }))
    }

    fn methods(&self) -> &'static [&'static str] {
        &["get_uri", "get_extra_dejson"]
    }

    fn call_method(&self, _: &mut Vm<'_>, name: &str, args: Args) -> Res<Value> {
        args.none(name)?;
        match name {
            "get_uri" => Ok(Value::text(self.of.uri())),
            "get_extra_dejson" => Ok(json::from_json(&self.of.extra_dejson())),
            _ => value_error(format!("a connection has no method `{name}`")),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
