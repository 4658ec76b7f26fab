//! `var` and `conn`: variables and connections, as far as [`Lookup`] has them.
//!
//! [`Lookup`]: crate::template::Lookup

use std::any::Any;
use std::sync::Arc;

use crate::jinja::arguments::needed;
use crate::jinja::fault::{Fault, Res};
use crate::jinja::{Args, Object, Value, Vm, json, print};
use crate::template::Context;
use crate::template::connection::ConnectionValue;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `var`.
    Variables,
    /// `var.value`.
    Texts,
    /// `var.json`.
    Jsons,
    /// `conn`.
    Connections,
}

/// What is asked for by name.
pub(super) struct Stored {
    context: Arc<Context>,
    kind: Kind,
}

impl Stored {
    pub(super) fn variables(context: &Arc<Context>) -> Value {
        Value::object(Self { context: context.clone(), kind: Kind::Variables })
    }

    pub(super) fn connections(context: &Arc<Context>) -> Value {
        Value::object(Self { context: context.clone(), kind: Kind::Connections })
    }

    fn find(&self, name: &str) -> Res<Option<Value>> {
        let unanswered = |sentence| Fault::new("LookupError", sentence);
        if self.kind == Kind::Connections {
            let found = self.context.lookup.connection(name).map_err(unanswered)?;
            return Ok(found.map(|of| Value::object(ConnectionValue { id: name.to_owned(), of })));
        }
        let found = self.context.lookup.variable(name).map_err(unanswered)?;
        match (found, self.kind) {
            (Some(text), Kind::Jsons) => json::loads(&text).map(Some).map_err(|fault| {
                let message =
                    format!("variable `{name}` is no JSON ({}); read it as `var.value.{name}`", fault.message);
                Fault::new(fault.class, message)
            }),
            (Some(text), _) => Ok(Some(Value::text(text))),
            (None, _) => Ok(None),
        }
    }

    fn missing(&self, name: &str) -> Box<Fault> {
        let upper = name.to_uppercase();
        match self.kind {
            Kind::Connections => Fault::new(
                "AirflowNotFoundException",
                format!(
                    "there is no connection `{name}`; add it to [connections] of airflow.toml, or set AIRFLOW_CONN_{upper}"
                ),
            ),
            _ => Fault::new(
                "AirflowRuntimeError",
                format!(
                    "there is no variable `{name}`; add it to [variables] of airflow.toml, or set AIRFLOW_VAR_{upper}"
                ),
            ),
        }
    }
}

impl Object for Stored {
    fn type_name(&self) -> &str {
        if self.kind == Kind::Connections { "ConnectionAccessor" } else { "VariableAccessor" }
    }

    fn text(&self) -> String {
        if self.kind == Kind::Connections { "<ConnectionAccessor>" } else { "<VariableAccessor>" }.to_owned()
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        if self.kind == Kind::Variables {
            let kind = match name {
                "value" => Kind::Texts,
                "json" => Kind::Jsons,
                _ => return Ok(None),
            };
            return Ok(Some(Value::object(Self { context: self.context.clone(), kind })));
        }
        self.find(name)?.map(Some).ok_or_else(|| self.missing(name))
    }

    fn methods(&self) -> &'static [&'static str] {
        if self.kind == Kind::Variables { &[] } else { &["get"] }
    }

    fn call_method(&self, _: &mut Vm<'_>, _: &str, args: Args) -> Res<Value> {
        let [name, default] = args.bind("get", ["conn_or_key", "default"])?;
        let name = print::text(&needed(name, "get", "key")?)?;
        match self.find(&name)?.or(default) {
            Some(found) => Ok(found),
            None if self.kind == Kind::Connections => Ok(Value::None),
            None => Err(self.missing(&name)),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
