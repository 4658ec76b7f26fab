//! Templates: Airflow's variables, macros and filters on minijinja (SEMANTICS 18, CONTRACTS 7).
//!
//! Knows how a template's text becomes the text that a task gets, and where in the DAG file a faulty template stands. Must not
//! know disks, threads, clocks or databases: XComs and earlier runs come through [`Lookup`], the environment through a function.
//! Called by whoever starts a try or reads DAG files, and by `tasks render`.

mod arithmetic;
mod check;
mod datetime;
mod error;
mod filters;
mod macros;
mod methods;
mod outside;
mod python;
mod strftime;
mod variables;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

use crate::model::dag::Position;
use crate::model::{Dag, DagId, DagRun, RunKey, TaskIx, Template};
use crate::secrets::Connection;

pub use check::check;
pub use error::TemplateError;

/// How many instructions one template may take: some tenths of a second, far more than any honest template needs.
const FUEL: u64 = 2_000_000;
/// How deep macros may call each other.
const RECURSION: usize = 100;
/// The longest text that one template may become, in bytes.
const MAX_OUTPUT_BYTES: usize = 16 << 20;

/// What a template reads from the database and from the home's variables and connections.
pub trait Lookup: Send + Sync {
    /// An XCom of `run`. Without `map_index`: that of the unmapped task, else the list of all instances' values in order of
    /// their indexes. None where there is none.
    ///
    /// # Errors
    /// A sentence for the task's log: the database did not answer.
    fn xcom(&self, run: RunKey, task_id: &str, map_index: Option<i32>, key: &str) -> Result<Option<Value>, String>;

    /// The latest run of the DAG in state success whose logical date lies before `before`.
    ///
    /// # Errors
    /// A sentence for the task's log: the database did not answer.
    fn previous_success(&self, dag_id: &DagId, before: Timestamp) -> Result<Option<DagRun>, String>;

    /// The text of a variable, as `var.value` and `var.json` read it; None where there is none. Who keeps none has none.
    ///
    /// # Errors
    /// A sentence for the task's log: it exists but cannot be had.
    fn variable(&self, key: &str) -> Result<Option<String>, String> {
        let _ = key;
        Ok(None)
    }

    /// A connection, as `conn` reads it; None where there is none. Who keeps none has none.
    ///
    /// # Errors
    /// A sentence for the task's log: it exists but is no connection, or its password cannot be read.
    fn connection(&self, conn_id: &str) -> Result<Option<Connection>, String> {
        let _ = conn_id;
        Ok(None)
    }
}

/// Reads an environment variable, as `env.NAME` does.
pub type ReadEnvironment = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The try whose templates are rendered. Shared parts are counted, so that a render costs no copy of the DAG.
#[derive(Clone)]
pub struct Context {
    pub dag: Arc<Dag>,
    /// The DAG file as messages name it: relative to the home where it lies inside.
    pub file: Arc<str>,
    pub task: TaskIx,
    pub run: Arc<DagRun>,
    /// 1 for the first try.
    pub try_number: u32,
    pub max_tries: u32,
    /// -1 unless mapped.
    pub map_index: i32,
    pub run_dir: PathBuf,
    /// What this instance has beside the variables of every task, e.g. what a mapped one got: each is a variable of its name, and
    /// a single one is `item` too.
    pub variables: Arc<Map<String, Value>>,
    /// `core.dag_run_conf_overrides_params`.
    pub overrides_params: bool,
    pub environment: Arc<ReadEnvironment>,
    pub lookup: Arc<dyn Lookup>,
}

impl fmt::Debug for Context {
    // The environment holds secrets and stays out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("dag_id", &self.dag.dag_id)
            .field("run_id", &self.run.run_id)
            .field("task", &self.task)
            .field("try_number", &self.try_number)
            .finish_non_exhaustive()
    }
}

/// Renders one template. [`Template::at`] is the place of its first character.
///
/// # Errors
/// The first fault in it: an undefined name, a syntax error, an operation that fails, a limit of work or size.
pub fn render(template: &Template, context: &Context) -> Result<String, TemplateError> {
    render_text(&template.text, template.at, context).map(Cow::into_owned)
}

/// The value that a template becomes: that of its only expression, else the text.
///
/// # Errors
/// As [`render`].
pub fn native(template: &Template, context: &Context) -> Result<Value, TemplateError> {
    let text = &template.text;
    let inner = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    let is_alone = |inner: &&str| !["{{", "}}", "{%", "{#"].iter().any(|tag| inner.contains(tag));
    let Some(inner) = inner.filter(is_alone).filter(|inner| !inner.starts_with(['-', '+'])) else {
        return render(template, context).map(Value::String);
    };
    // What stands in the template stays in its place, for messages.
    let inner = inner.strip_prefix(' ').unwrap_or(inner);
    let question = format!("{{{{({inner}) | json }}}}");
    let printed = render_text(&question, template.at, context)?.into_owned();
    Ok(serde_json::from_str(&printed).unwrap_or(Value::String(printed)))
}

/// Renders every text inside `value`; keys stay as they are. `at` is where the value stands in the DAG file.
///
/// # Errors
/// As [`render`], of the first faulty text; its place is `at`.
pub fn render_value(value: &Value, at: Position, context: &Context) -> Result<Value, TemplateError> {
    Ok(match value {
        Value::String(text) => {
            // Where a text stands inside the value is not known, so the value's place is the best that can be told.
            let rendered = render_text(text, at, context).map_err(|error| TemplateError {
                line: at.line,
                column: at.column,
                ..error
            })?;
            Value::String(rendered.into_owned())
        }
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| render_value(item, at, context)).collect::<Result<_, _>>()?)
        }
        Value::Object(pairs) => Value::Object(
            pairs
                .iter()
                .map(|(key, item)| Ok((key.clone(), render_value(item, at, context)?)))
                .collect::<Result<_, TemplateError>>()?,
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

/// Whether the text holds anything to render. Jinja also strips one newline at the end of a text without any tag.
fn has_tags(text: &str) -> bool {
    text.match_indices('{').any(|(at, _)| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))
}

fn render_text<'t>(text: &'t str, at: Position, context: &Context) -> Result<Cow<'t, str>, TemplateError> {
    if !has_tags(text) {
        let stripped = text.strip_suffix('\n').unwrap_or(text);
        return Ok(Cow::Borrowed(
            stripped.strip_suffix('\r').filter(|_| stripped.len() < text.len()).unwrap_or(stripped),
        ));
    }
    let root = minijinja::Value::from_object(variables::Root::new(context));
    let mut source = Cow::Borrowed(text);
    let mut first_edit = usize::MAX;
    for attempt in 0.. {
        let mut out = Bounded { bytes: Vec::new(), is_full: false };
        let result = ENVIRONMENT
            .template_from_named_str(&context.file, &source)
            .and_then(|template| template.render_captured_to(root.clone(), &mut out).map(|_| ()));
        let error = match result {
            Ok(()) => return Ok(Cow::Owned(String::from_utf8(out.bytes).expect("minijinja writes UTF-8"))),
            Err(_) if out.is_full => return Err(TemplateError::too_long(text, at, context, MAX_OUTPUT_BYTES)),
            Err(error) => error,
        };
        match arithmetic::mend(&error, &source).filter(|_| attempt < arithmetic::MOST) {
            Some((mended, edit)) => {
                first_edit = first_edit.min(edit);
                source = Cow::Owned(mended);
            }
            None => return Err(TemplateError::new(&error, &source, first_edit, at, &context.file)),
        }
    }
    unreachable!("every attempt returns or is followed by another, {} at most", arithmetic::MOST)
}

/// The output, refused beyond [`MAX_OUTPUT_BYTES`].
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            self.is_full = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Built once: adding all filters costs more than most renders.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    // Spans and the names of undefined variables are kept only so.
    environment.set_debug(true);
    environment.set_formatter(python::print);
    environment.set_unknown_method_callback(methods::call);
    filters::add(&mut environment);
    environment
});

#[cfg(test)]
mod tests;
