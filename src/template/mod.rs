//! Templates: Airflow's variables, macros and filters for Jinja (SEMANTICS 18, CONTRACTS 7).
//!
//! Knows how a template's text becomes the text that a task gets, and where in the DAG file a faulty template stands. Must not
//! know disks, threads, clocks or databases: XComs and earlier runs come through [`Lookup`],
//! template files through [`Files`], the environment through a function.
//! Called by whoever starts a try or reads DAG files, and by `tasks render`.

mod assets;
mod calendar;
mod check;
mod connection;
mod date;
mod datetime;
mod duration;
mod error;
mod filters;
mod locale;
mod macros;
mod relativedelta;
mod stored;
mod strftime;
mod variables;
mod xcom;
mod yaml;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::jinja::{self, Literals};
use crate::model::dag::Position;
use crate::model::{AssetDefinition, AssetEvent, AssetName};
use crate::model::{Dag, DagId, DagRun, RunId, RunKey, TaskIx, Template};
use crate::secrets::Connection;

pub use check::check;
pub use error::TemplateError;
pub use jinja::UndefinedKind;

/// What a template reads from the database and from the home's variables and connections. Who does not say otherwise answers as a home
/// does where nothing has run and nothing is kept.
pub trait Lookup: Send + Sync {
    /// An XCom of `run`; `map_index` is -1 unless the task is mapped. None where there is none.
    ///
    /// # Errors
    /// A sentence for the task's log: the database did not answer. So with all others.
    fn xcom(&self, run: RunKey, task_id: &str, map_index: i32, key: &str) -> Result<Option<Value>, String> {
        let _ = (run, task_id, map_index, key);
        Ok(None)
    }

    /// Those of all instances of a task, with their map indexes, in the order of these.
    ///
    /// # Errors
    /// As above.
    fn xcoms(&self, run: RunKey, task_id: &str, key: &str) -> Result<Vec<(i32, Value)>, String> {
        let _ = (run, task_id, key);
        Ok(Vec::new())
    }

    /// The same of the latest run that has any, among those whose logical date (or else the date from which they may run) lies
    /// before `before`.
    ///
    /// # Errors
    /// As above.
    fn earlier_xcoms(
        &self,
        dag_id: &DagId,
        task_id: &str,
        key: &str,
        before: Timestamp,
    ) -> Result<Vec<(i32, Value)>, String> {
        let _ = (dag_id, task_id, key, before);
        Ok(Vec::new())
    }

    /// The key of a run, by its names.
    ///
    /// # Errors
    /// As above.
    fn run_key(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<RunKey>, String> {
        let _ = (dag_id, run_id);
        Ok(None)
    }

    /// The latest run of the DAG in state success whose logical date lies before `before`.
    ///
    /// # Errors
    /// As above.
    fn previous_success(&self, dag_id: &DagId, before: Timestamp) -> Result<Option<DagRun>, String> {
        let _ = (dag_id, before);
        Ok(None)
    }

    /// The events of assets that have led to a run, oldest first.
    ///
    /// # Errors
    /// As above.
    fn triggering_events(&self, run: RunKey) -> Result<Vec<AssetEvent>, String> {
        let _ = run;
        Ok(Vec::new())
    }

    /// The newest events of an asset, by its name or uri, or of an alias; at most `limit`, oldest first.
    ///
    /// # Errors
    /// As above.
    fn asset_events(&self, name: &AssetName, limit: u32) -> Result<Vec<AssetEvent>, String> {
        let _ = (name, limit);
        Ok(Vec::new())
    }

    /// What is known of an asset, by its name or uri.
    ///
    /// # Errors
    /// As above.
    fn asset(&self, name: &AssetName) -> Result<Option<AssetDefinition>, String> {
        let _ = name;
        Ok(None)
    }

    /// The text of a variable, as `var.value` and `var.json` read it; None where there is none.
    ///
    /// # Errors
    /// A sentence for the task's log: it exists but cannot be had.
    fn variable(&self, key: &str) -> Result<Option<String>, String> {
        let _ = key;
        Ok(None)
    }

    /// A connection, as `conn` reads it; None where there is none.
    ///
    /// # Errors
    /// A sentence for the task's log: it exists but is no connection, or its password cannot be read.
    fn connection(&self, conn_id: &str) -> Result<Option<Connection>, String> {
        let _ = conn_id;
        Ok(None)
    }
}

/// Nothing has run, and nothing is kept.
#[derive(Clone, Copy, Debug)]
pub struct NoLookup;

impl Lookup for NoLookup {}

/// The value of an unmapped task, else the list of those of all instances; None where there is none.
pub fn joined(mut values: Vec<(i32, Value)>) -> Option<Value> {
    match values.first() {
        None => None,
        Some((-1, _)) => Some(values.swap_remove(0).1),
        Some(_) => Some(values.into_iter().map(|(_, value)| value).collect()),
    }
}

/// The template files that a template may take in.
pub trait Files: Send + Sync {
    /// The text of a file by its path relative to the DAG file's folder; None where there is no such file inside.
    ///
    /// # Errors
    /// A sentence for the task's log: the file is there and cannot be read.
    fn read(&self, name: &str) -> Result<Option<String>, String>;
}

/// There are none.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> Result<Option<String>, String> {
        Ok(None)
    }
}

/// A function or filter that is not built in; takes its arguments by place.
pub type Added = dyn Fn(&[Value]) -> Result<Value, String> + Send + Sync;

/// What templates have beside what is built in (Airflow: `user_defined_macros`, `user_defined_filters`).
#[derive(Default)]
pub struct Additions {
    pub functions: BTreeMap<String, Arc<Added>>,
    pub filters: BTreeMap<String, Arc<Added>>,
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
    /// The name of the host that runs it.
    pub host: Arc<str>,
    /// What this instance has beside the variables of every task, e.g. what a mapped one got: each is a variable of its name, and
    /// a single one is `item` too.
    pub variables: Arc<Map<String, Value>>,
    /// `core.dag_run_conf_overrides_params`.
    pub overrides_params: bool,
    /// When it is rendered.
    pub now: Timestamp,
    pub environment: Arc<ReadEnvironment>,
    pub lookup: Arc<dyn Lookup>,
    pub files: Arc<dyn Files>,
    pub additions: Arc<Additions>,
    /// What may be done with what is undefined.
    pub undefined: UndefinedKind,
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
/// The first fault in it: an undefined name, a syntax error, an operation that fails, a bound of work, memory or size.
pub fn render(template: &Template, context: &Context) -> Result<String, TemplateError> {
    render_text(&template.text, template.at, context).map(Cow::into_owned)
}

/// Renders a script: the text itself, or the template file that it names (Airflow: `template_ext`). A text is such a name if it is,
/// whole, a path ending in `.sh` or `.bash` of a file below the DAG file's folder.
///
/// # Errors
/// As [`render`], and that of reading the file.
pub fn render_script(template: &Template, context: &Context) -> Result<String, TemplateError> {
    let name = &template.text;
    if is_script_name(name) {
        let fault =
            |message| TemplateError::new(*jinja::Fault::new("TemplateNotFound", message), template.at, &context.file);
        if let Some(source) = context.files.read(name).map_err(fault)? {
            let root = variables::Root::new(context);
            let rendered = jinja::render(&source, Some(name), &root, context.undefined);
            return rendered.map_err(|fault| TemplateError::new(*fault, template.at, &context.file));
        }
    }
    render(template, context)
}

fn is_script_name(text: &str) -> bool {
    let has_ending = text.ends_with(".sh") || text.ends_with(".bash");
    has_ending
        && !text.starts_with(['/', '~', '-'])
        && !text.contains(|c: char| c.is_whitespace() || ";|&<>$`'\"(){}*?".contains(c))
}

/// The value that a template becomes: that of its only expression, else the text.
///
/// # Errors
/// As [`render`].
pub fn native(template: &Template, context: &Context) -> Result<Value, TemplateError> {
    native_value(template, context, Literals::Kept)
}

/// The same as Airflow's `render_template_as_native_obj` has it: a text that is one of Python's literals becomes its value.
///
/// # Errors
/// As [`render`].
pub fn native_literal(template: &Template, context: &Context) -> Result<Value, TemplateError> {
    native_value(template, context, Literals::Read)
}

fn native_value(template: &Template, context: &Context, literals: Literals) -> Result<Value, TemplateError> {
    let root = variables::Root::new(context);
    let value = jinja::native(&template.text, &root, context.undefined, literals);
    value.map_err(|fault| TemplateError::new(*fault, template.at, &context.file))
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

/// The params of a try: the DAG's, and those of its run's conf over them.
pub fn params(context: &Context) -> Map<String, Value> {
    crate::params::merged(&context.dag.params, &context.run.conf, context.overrides_params.into())
}

/// Whether the text holds anything to render. Jinja also strips one newline at the end of a text without any tag.
fn has_tags(text: &str) -> bool {
    text.match_indices('{').any(|(at, _)| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))
}

fn render_text<'t>(text: &'t str, at: Position, context: &Context) -> Result<Cow<'t, str>, TemplateError> {
    if !has_tags(text) && !text.contains('\r') {
        return Ok(Cow::Borrowed(text.strip_suffix('\n').unwrap_or(text)));
    }
    let root = variables::Root::new(context);
    match jinja::render(text, None, &root, context.undefined) {
        Ok(rendered) => Ok(Cow::Owned(rendered)),
        Err(fault) => Err(TemplateError::new(*fault, at, &context.file)),
    }
}

#[cfg(test)]
mod tests;
