//! Operators whose work is told by a table alone: their fields are rendered, and a program of their own does the rest.

use serde_json::{Map, Value};

use crate::model::tool::{Tool, ToolKind};
use crate::operators::{Fault, Place, Program, docker, email, http, plugin};
use crate::template::{self, Context, TemplateError};

pub fn prepare(tool: &Tool, place: &Place<'_>) -> Result<Program, Fault> {
    let fields = render(tool, place.context)?;
    match &tool.kind {
        ToolKind::Docker => docker::prepare(&fields, place),
        ToolKind::Email => email::prepare(&fields, place),
        ToolKind::Http => http::prepare(&fields, place),
        ToolKind::Plugin(name) => plugin::prepare(name, fields, place),
    }
}

/// The fields by name, rendered so far as they are before the work begins.
///
/// # Errors
/// The first fault of a template in them.
pub fn render(tool: &Tool, context: &Context) -> Result<Map<String, Value>, TemplateError> {
    let rendered = |field: &crate::model::tool::ToolField| match &field.value {
        value if field.is_late || field.is_plain => Ok(value.clone()),
        Value::String(text) => {
            let template = crate::model::Template { text: text.clone(), at: field.at };
            template::render(&template, context).map(Value::String)
        }
        value => template::render_value(value, field.at, context),
    };
    tool.fields.iter().map(|field| Ok((field.name.clone(), rendered(field)?))).collect()
}
