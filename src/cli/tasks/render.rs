//! `minflow tasks render`

use std::io::Write;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::cli::home::{Definition, Home};
use crate::cli::output::{Format, Output};
use crate::cli::{Failure, Globals, Outcome, settings};
use crate::clock::{Clock, SystemClock};
use crate::executor::asked::Asked;
use crate::executor::mapped::{self, Stop, Values};
use crate::executor::paths;
use crate::model::{
    Bash, DagRun, Operator, Requirements, RunKey, RunState, RunType, Script, SqlDatabase, SqlScript, TaskIx, Venv,
};
use crate::operators::{self, TemplateFolder};
use crate::store::ReaderPool;
use crate::supervisor::procfs::host_name;
use crate::template::{self, Context, Lookup, NoLookup, TemplateError, UndefinedKind};
use crate::timetable::Timetable;

#[derive(Debug, Args)]
#[command(after_help = "XComs are read from the run that is named; a run that is made up has none.\n\n\
    Example:\n  minflow tasks render time_zones extract 2026-11-21")]
pub struct Arguments {
    dag_id: String,
    task_id: String,
    /// The run: its run_id or its logical date; a date without a run makes one up [default: now]
    logical_date_or_run_id: Option<String>,
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    map_index: Option<i32>,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let definition = home.definition(&arguments.dag_id)?;
    let task = definition.task(&arguments.task_id)?;
    let run = run_of(&home, &definition, arguments.logical_date_or_run_id.as_deref())?;
    let map_index = definition.map_index(task, arguments.map_index)?;
    let mut context = context(&home, &definition, task, run);
    context.map_index = map_index;
    context.variables = match mapped::variables(&context, &Values::default(), 0) {
        Ok(variables) => Arc::new(variables),
        Err(Stop::Refused) => {
            let message = "the filter of its mapping refuses its element: this instance is skipped";
            return Err(Failure::refused(message, "name another with --map-index"));
        }
        Err(Stop::Fault(reason)) => {
            let message = home.secrets.masker().mask(&reason);
            return Err(Failure::refused(message, "name a run in which the tasks before it are done"));
        }
    };
    let fields = render(&context).map_err(|error| {
        let place = format!("{}:{}:{}", error.path, error.line, error.column);
        let message = format!("{place}: {}", error.message);
        Failure::refused(home.secrets.masker().mask(&message), error.help)
    })?;
    let masker = home.secrets.masker();
    let fields: Map<String, Value> =
        fields.into_iter().map(|(name, value)| (name.clone(), masker.redact(&name, &value))).collect();
    if matches!(output.format, Format::Json | Format::Yaml) {
        return Ok(output.record(&Value::Object(fields), &[])?);
    }
    for (name, value) in &fields {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(output, "# {name}\n{}\n", text.trim_end_matches('\n'))?;
    }
    Ok(())
}

/// The run that the user named, else one made up for the date.
///
/// # Errors
/// `text` is neither a run of this DAG nor a date.
pub fn run_of(home: &Home, definition: &Definition, text: Option<&str>) -> Result<DagRun, Failure> {
    let Some(text) = text else { return Ok(made_up(definition, SystemClock.now())) };
    if let Some(run) = home.find_run(&definition.dag.dag_id, text)? {
        return Ok(run);
    }
    match crate::cli::instants::parse(text, &home.zone()) {
        Some(date) => Ok(made_up(definition, date)),
        None => home.run(&definition.dag.dag_id, text),
    }
}

/// A manual run that nobody has triggered.
fn made_up(definition: &Definition, date: Timestamp) -> DagRun {
    let dag = &definition.dag;
    let interval = Timetable::of(dag).ok().and_then(|timetable| timetable.infer_manual(date));
    let suffix = date.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.f+00:00");
    DagRun {
        key: RunKey(0),
        dag_id: dag.dag_id.clone(),
        run_id: format!("manual__{suffix}").into(),
        run_type: RunType::Manual,
        state: RunState::Running,
        run_after: date,
        logical_date: Some(date),
        data_interval: interval,
        queued_at: None,
        start_date: Some(date),
        end_date: None,
        conf: Map::new(),
        reason: None,
        lag: None,
        backfill: None,
        is_released: false,
        clear_number: 0,
    }
}

fn context(home: &Home, definition: &Definition, ix: TaskIx, run: DagRun) -> Context {
    let dag = &definition.dag;
    let task = dag.task(ix);
    let lookup: Arc<dyn Lookup> = match &home.reader {
        Some(_) => Arc::new(ReaderPool::new(&home.config.database.path)),
        None => Arc::new(NoLookup),
    };
    let lookup = Arc::new(Asked::of(lookup, home.secrets.clone()));
    let dag_file = home.config.core.dags_folder.join(&definition.file);
    Context {
        dag: dag.clone(),
        file: settings::shown(&dag_file, &home.config.home).to_string_lossy().into(),
        task: ix,
        run_dir: paths::run_dir(&home.config.home, &run.dag_id, &run.run_id),
        run: Arc::new(run),
        host: host_name().into(),
        try_number: 1,
        max_tries: task.retries,
        map_index: -1,
        variables: Arc::default(),
        overrides_params: home.config.core.dag_run_conf_overrides_params,
        environment: Arc::new(|name: &str| std::env::var(name).ok()),
        now: SystemClock.now(),
        lookup,
        files: Arc::new(TemplateFolder::new(dag_file.parent().unwrap_or(&home.config.core.dags_folder))),
        additions: Arc::default(),
        undefined: UndefinedKind::Strict,
    }
}

/// The rendered fields by name, in the order in which a DAG file has them.
fn render(context: &Context) -> Result<Map<String, Value>, TemplateError> {
    let task = context.dag.task(context.task);
    let text = |template| template::render(template, context).map(Value::String);
    let mut fields = Map::new();
    let operator = &task.operator;
    if let Some(expr) = operator.expr() {
        fields.insert("expr".to_owned(), text(expr)?);
    }
    if let Some(Bash { script: Script::Text(script) }) = operator.bash() {
        let script = template::render_script(script, context)?;
        fields.insert("bash".to_owned(), Value::String(script));
    }
    if let Some(python) = operator.python() {
        if let Script::Text(script) = &python.script {
            fields.insert("python".to_owned(), text(script)?);
        }
        for (name, value) in
            [("args", Value::Array(python.args.clone())), ("kwargs", Value::Object(python.kwargs.clone()))]
        {
            fields.insert(name.to_owned(), template::render_value(&value, python.arguments_at, context)?);
        }
        fields.insert("interpreter".to_owned(), text(&python.interpreter)?);
        if let Some(Venv { requirements: Requirements::List(lines) }) = &python.venv {
            let lines = lines.iter().map(text).collect::<Result<_, _>>()?;
            fields.insert("requirements".to_owned(), Value::Array(lines));
        }
    }
    if let Some(sql) = operator.sql() {
        if let SqlScript::Text(script) = &sql.script {
            fields.insert("sql".to_owned(), text(script)?);
        }
        match &sql.database {
            SqlDatabase::Path(path) => fields.insert("database".to_owned(), text(path)?),
            SqlDatabase::Connection(id) => fields.insert("connection".to_owned(), text(id)?),
        };
        fields.insert("parameters".to_owned(), operators::sql::parameters(sql, context)?);
    }
    if let Some(tool) = operator.tool() {
        fields.extend(operators::tool::render(tool, context)?);
    }
    if let Operator::TriggerDag(trigger) = operator {
        fields.insert("dag_id".to_owned(), text(&trigger.dag_id)?);
        fields.insert("conf".to_owned(), template::render_value(&trigger.conf, trigger.conf_at, context)?);
        for (name, template) in [("logical_date", &trigger.logical_date), ("run_id", &trigger.run_id)] {
            if let Some(template) = template {
                fields.insert(name.to_owned(), text(template)?);
            }
        }
    }
    for (name, value) in &task.env {
        fields.insert(format!("env.{name}"), text(value)?);
    }
    if let Some(cwd) = &task.cwd {
        fields.insert("cwd".to_owned(), text(cwd)?);
    }
    Ok(fields)
}
