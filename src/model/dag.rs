//! A DAG's definition, checked and with every default filled in.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::asset::{AssetDefinition, AssetExpression};
use crate::model::callback::{Callback, Hook, TaskCallbacks};
use crate::model::deadline::Deadline;
use crate::model::decider::{Branch, Question, ShortCircuit};
use crate::model::graph::{Graph, TaskIx};
use crate::model::ids::{AssetName, DagId, PoolName, TaskId};
use crate::model::limits::Limits;
use crate::model::mapping::{Group, GroupIx, Mapping};
use crate::model::needs::Needs;
use crate::model::retry::RetryRule;
use crate::model::sensor::{Sensor, SensorKind};
use crate::model::sql::Sql;
use crate::model::tool::Tool;
use crate::model::trigger_dag::{ExternalTaskMarker, TriggerDag};

/// One DAG as its file defines it. `tasks[i]` is the task at `TaskIx(i)` of `graph`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dag {
    pub dag_id: DagId,
    pub description: String,
    pub owner: String,
    pub doc_md: String,
    pub tags: Vec<String>,
    pub schedule: Schedule,
    /// A run is due, too, when these have had events.
    pub asset_schedule: Option<AssetExpression>,
    /// Those that its file defines, by name.
    pub assets: Vec<AssetDefinition>,
    /// The zone of the schedule and of local times in the file.
    pub timezone: TimeZone,
    pub start_date: Option<Timestamp>,
    pub end_date: Option<Timestamp>,
    pub catchup: Catchup,
    pub run_immediately: RunImmediately,
    /// At least 1.
    pub max_active_runs: u32,
    /// At least 1. Per run, as in Airflow 3.
    pub max_active_tasks: u32,
    /// After so many failed runs in a row the DAG is paused; 0: never.
    pub max_consecutive_failed_dag_runs: u32,
    pub dagrun_timeout: Option<Duration>,
    /// The first task that fails for good ends the run.
    pub fail_fast: bool,
    pub is_paused_upon_creation: bool,
    /// Called once at the end of a run.
    pub on_success: Vec<Callback>,
    pub on_failure: Vec<Callback>,
    pub deadlines: Vec<Deadline>,
    /// By this time of day, in the DAG's zone, a run of the day is to have succeeded.
    pub expect_by: Option<Time>,
    /// Defaults by name, in the order of the file.
    pub params: Map<String, Value>,
    /// The JSON Schemas of those that have one, by name, in the order of the file; such a param may lack a default.
    pub param_schemas: Map<String, Value>,
    pub tasks: Vec<Task>,
    /// In the order of the file, each behind the one that holds it.
    pub groups: Vec<Group>,
    /// Those of groups and tasks.
    pub mappings: Vec<Mapping>,
    /// Shared with the runs that follow this definition.
    pub graph: Arc<Graph>,
}

impl Dag {
    /// What a file gives that says nothing but its tasks.
    pub fn new(dag_id: DagId, tasks: Vec<Task>, graph: Graph) -> Self {
        Self {
            dag_id,
            description: String::new(),
            owner: "airflow".to_owned(),
            doc_md: String::new(),
            tags: Vec::new(),
            schedule: Schedule::Never,
            asset_schedule: None,
            assets: Vec::new(),
            timezone: TimeZone::UTC,
            start_date: None,
            end_date: None,
            catchup: Catchup::Latest,
            run_immediately: RunImmediately::No,
            max_active_runs: 16,
            max_active_tasks: 16,
            max_consecutive_failed_dag_runs: 0,
            dagrun_timeout: None,
            fail_fast: false,
            is_paused_upon_creation: false,
            on_success: Vec::new(),
            on_failure: Vec::new(),
            deadlines: Vec::new(),
            expect_by: None,
            params: Map::new(),
            param_schemas: Map::new(),
            tasks,
            groups: Vec::new(),
            mappings: Vec::new(),
            graph: graph.into(),
        }
    }

    /// No run is due before it: the first date of the DAG and its tasks (SEMANTICS 6.4).
    pub fn earliest(&self) -> Option<Timestamp> {
        self.tasks.iter().filter_map(|task| task.start_date).chain(self.start_date).min()
    }

    /// No run is due after it: the DAG's date, or when the last task ends if all of them do (SEMANTICS 6.4).
    pub fn latest(&self) -> Option<Timestamp> {
        let of_tasks =
            self.tasks.iter().map(|task| task.end_date).try_fold(None, |last, end| Some(last.max(Some(end?))));
        of_tasks.flatten().max(self.end_date)
    }

    /// The same, but nobody is called.
    pub fn without_callbacks(mut self) -> Self {
        self.on_success.clear();
        self.on_failure.clear();
        self.deadlines.iter_mut().for_each(|deadline| deadline.callbacks.clear());
        for task in &mut self.tasks {
            task.callbacks = None;
        }
        self
    }

    pub fn task(&self, task: TaskIx) -> &Task {
        &self.tasks[task.index()]
    }

    /// The zone of the schedule's wall times: its own, else the DAG's.
    pub fn schedule_zone(&self) -> &TimeZone {
        match &self.schedule {
            Schedule::Cron(crons) => crons.timezone.as_ref().unwrap_or(&self.timezone),
            _ => &self.timezone,
        }
    }

    pub fn find(&self, task_id: &str) -> Option<TaskIx> {
        let at = self.tasks.iter().position(|task| &*task.task_id == task_id)?;
        Some(TaskIx(at as u32))
    }
}

/// When runs are due; the timetable makes instants of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Only by hand.
    Never,
    /// `@once`.
    Once,
    /// `@continuous`: the next run as soon as the one before is over.
    Continuous,
    Cron(Crons),
    Every(Every),
    /// At these instants, in ascending order, each once.
    Events(Vec<Timestamp>),
}

/// Cron expressions or presets, of which any may fire.
#[derive(Clone, Debug, PartialEq)]
pub struct Crons {
    /// As written; at least one.
    pub expressions: Vec<String>,
    /// The zone of their fields; None: the DAG's.
    pub timezone: Option<TimeZone>,
    pub intervals: Intervals,
}

/// `{ every = … }`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    pub period: Period,
    pub intervals: Intervals,
}

/// A positive distance in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// At least one second.
    Fixed(Duration),
    /// Months of the calendar, at least one, and what is added after them.
    Calendar { months: u32, rest: Duration },
}

/// Which data interval a run has, and so when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intervals {
    /// Airflow 3: due at its tick, with the interval of this length that ends there; zero by default.
    Trigger(Duration),
    /// Airflow 2: from its tick to the next one, when it is due.
    Data,
}

/// Which missed runs are made up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catchup {
    /// `false` or `"latest"`: the newest alone.
    Latest,
    /// `true` or `"all"`.
    All,
    /// Those that fell due no longer ago than this.
    Window(Duration),
}

/// Airflow's `run_immediately`: whether a DAG that is seen for the first time starts the run just missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunImmediately {
    No,
    Yes,
    /// If it was due no longer ago than this.
    Within(Duration),
}

/// One task. Its trigger rule, role and weights are in the DAG's graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// With the ids of its groups, unless they say otherwise: `group.task`.
    pub task_id: TaskId,
    /// The innermost group that holds it.
    pub group: Option<GroupIx>,
    pub operator: Operator,
    pub owner: String,
    pub doc_md: String,
    pub retries: u32,
    pub retry_delay: Duration,
    /// Of each delay to the one before; 0 and 1: they are all `retry_delay`.
    pub retry_exponential_backoff: f64,
    /// Bounds a delay that grows; None and zero: a day does.
    pub max_retry_delay: Option<Duration>,
    /// The first that fits decides, else the task's own retries and delay.
    pub retry_on: Vec<RetryRule>,
    /// What is reserved of the host while an instance is under way.
    pub needs: Option<Needs>,
    pub execution_timeout: Option<Duration>,
    /// Between the kill signal and SIGKILL.
    pub grace: Duration,
    /// A signal's number, e.g. 15.
    pub kill_signal: i32,
    pub kill_tree: KillTree,
    /// Whether what it has started outlives its own process, if that ends by itself.
    pub leave_running: bool,
    /// None: it has none.
    pub limits: Option<Box<Limits>>,
    /// The user as whom it runs; None: as minflow does.
    pub run_as: Option<Box<RunAs>>,
    pub pool: PoolName,
    /// At least 1.
    pub pool_slots: u32,
    /// How many of its instances may be active at once, in all runs and in each; none: any number.
    pub max_active_tis_per_dag: Option<u32>,
    pub max_active_tis_per_dagrun: Option<u32>,
    /// Added to the inherited environment, in the order of the file.
    pub env: Vec<(String, Template)>,
    /// None: the run_dir.
    pub cwd: Option<Template>,
    pub output: Output,
    pub skip_on_exit_code: Vec<i32>,
    /// Rendered when an instance has ended: what it is called beside its number.
    pub map_index_template: Option<Template>,
    /// What it reads.
    pub inlets: Vec<AssetName>,
    /// What it produces: its success is an event of each.
    pub outlets: Vec<AssetName>,
    /// Waits for its own instance in the run before.
    pub depends_on_past: bool,
    /// Waits for the instances right after that one too.
    pub wait_for_downstream: bool,
    pub ignore_first_depends_on_past: bool,
    /// It is not skipped before its own instance in the run before allows it.
    pub wait_for_past_depends_before_skipping: bool,
    /// Runs with an earlier logical date have no instance of it. Not before the DAG's.
    pub start_date: Option<Timestamp>,
    /// Runs with a later logical date have no instance of it. Not after the DAG's.
    pub end_date: Option<Timestamp>,
    /// None: it has none.
    pub callbacks: Option<Box<TaskCallbacks>>,
}

/// `run_as = …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// The name of a user, who need not exist.
    pub user: String,
    /// For messages.
    pub at: Position,
}

/// How the processes that a task has started are known when they are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillTree {
    /// By parentage, session, mark in the environment, and open log.
    Tree,
    /// It gets a subreaper of its own, which none of them escapes.
    Strict,
}

impl Task {
    /// Whether it is a sensor whose looks need nothing of the task but what is asked, and so take no worker. With an environment, a
    /// folder, limits or a user of its own each look is a process of its own.
    pub fn asks_service(&self) -> bool {
        let asks = matches!(&self.operator, Operator::Sensor(sensor) if sensor.kind.is_service());
        asks && self.env.is_empty() && self.cwd.is_none() && self.limits.is_none() && self.run_as.is_none()
    }

    /// What a file gives that says nothing but the operator.
    pub fn new(task_id: TaskId, operator: Operator) -> Self {
        Self {
            task_id,
            group: None,
            operator,
            owner: "airflow".to_owned(),
            doc_md: String::new(),
            retries: 0,
            retry_delay: Duration::from_secs(300),
            retry_exponential_backoff: 0.0,
            max_retry_delay: None,
            retry_on: Vec::new(),
            needs: None,
            execution_timeout: None,
            grace: Duration::from_secs(5),
            kill_signal: 15,
            kill_tree: KillTree::Tree,
            leave_running: false,
            limits: None,
            run_as: None,
            pool: "default_pool".into(),
            pool_slots: 1,
            max_active_tis_per_dag: None,
            max_active_tis_per_dagrun: None,
            env: Vec::new(),
            cwd: None,
            output: Output::Text,
            skip_on_exit_code: vec![99],
            map_index_template: None,
            inlets: Vec::new(),
            outlets: Vec::new(),
            depends_on_past: false,
            wait_for_downstream: false,
            ignore_first_depends_on_past: true,
            wait_for_past_depends_before_skipping: false,
            start_date: None,
            end_date: None,
            callbacks: None,
        }
    }

    pub fn callbacks(&self, hook: Hook) -> &[Callback] {
        self.callbacks.as_ref().map_or(&[], |callbacks| callbacks.of(hook))
    }
}

/// What a task does.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    Bash(Bash),
    Python(Python),
    /// Boxed, since it is the largest and not the most frequent.
    Sql(Box<Sql>),
    TriggerDag(Box<TriggerDag>),
    /// Boxed as well.
    Tool(Box<Tool>),
    /// Does nothing, and starts no process.
    Empty,
    ExternalTaskMarker(Box<ExternalTaskMarker>),
    Branch(Branch),
    ShortCircuit(ShortCircuit),
    /// Lets the tasks after it run in the latest run of a schedule alone.
    LatestOnly,
    /// Succeeds when something is so. Boxed, as `Sql` is.
    Sensor(Box<Sensor>),
}

impl Operator {
    /// The key that names it in a DAG file.
    pub fn name(&self) -> &str {
        match self {
            Self::Bash(_) => "bash",
            Self::Python(_) => "python",
            Self::Sql(_) => "sql",
            Self::Tool(tool) => tool.kind.name(),
            Self::TriggerDag(_) => "trigger_dag",
            Self::Empty => "empty",
            Self::ExternalTaskMarker(_) => "external_task_marker",
            Self::Branch(_) => "branch",
            Self::ShortCircuit(_) => "short_circuit",
            Self::LatestOnly => "latest_only",
            Self::Sensor(_) => "sensor",
        }
    }

    /// It succeeds as soon as it may run.
    pub const fn is_idle(&self) -> bool {
        matches!(self, Self::Empty | Self::ExternalTaskMarker(_))
    }

    /// Of an operator that decides by asking.
    pub const fn question(&self) -> Option<&Question> {
        match self {
            Self::Branch(Branch::Ask(question)) => Some(question),
            Self::ShortCircuit(ShortCircuit { question, .. }) => Some(question),
            _ => None,
        }
    }

    /// The template that answers without a process.
    pub const fn expr(&self) -> Option<&Template> {
        match self.question() {
            Some(Question::Expr(template)) => Some(template),
            _ => None,
        }
    }

    /// What it has a shell do.
    pub fn bash(&self) -> Option<&Bash> {
        match (self, self.question()) {
            (Self::Sensor(sensor), _) => match &sensor.kind {
                SensorKind::Bash(bash) => Some(bash),
                _ => None,
            },
            (Self::Bash(bash), _) | (_, Some(Question::Bash(bash))) => Some(bash),
            _ => None,
        }
    }

    /// What it has Python do.
    pub fn python(&self) -> Option<&Python> {
        match (self, self.question()) {
            (Self::Sensor(sensor), _) => match &sensor.kind {
                SensorKind::Python(python) => Some(python),
                _ => None,
            },
            (Self::Python(python), _) | (_, Some(Question::Python(python))) => Some(python),
            _ => None,
        }
    }

    /// What it asks a database.
    pub fn sql(&self) -> Option<&Sql> {
        match self {
            Self::Sql(sql) => Some(sql),
            Self::Sensor(sensor) => match &sensor.kind {
                SensorKind::Sql(sql) => Some(sql),
                _ => None,
            },
            _ => None,
        }
    }

    /// What it asks of an operator whose work is told by a table.
    pub fn tool(&self) -> Option<&Tool> {
        match self {
            Self::Tool(tool) => Some(tool),
            Self::Sensor(sensor) => match &sensor.kind {
                SensorKind::Http(tool) => Some(tool),
                _ => None,
            },
            _ => None,
        }
    }
}

/// `bash = …`
#[derive(Clone, Debug, PartialEq)]
pub struct Bash {
    pub script: Script,
}

/// `python = …`
#[derive(Clone, Debug, PartialEq)]
pub struct Python {
    pub script: Script,
    /// The function of `Script::File` to call; None runs the file as a script.
    pub function: Option<String>,
    /// JSON whose texts are templates.
    pub args: Vec<Value>,
    pub kwargs: Map<String, Value>,
    /// Where `args` and `kwargs` stand in the DAG file, for messages.
    pub arguments_at: Position,
    /// With a `venv` the one that it is made of.
    pub interpreter: Template,
    /// The packages that it is to find.
    pub venv: Option<Venv>,
}

/// `venv = …` of `python`
#[derive(Clone, Debug, PartialEq)]
pub struct Venv {
    pub requirements: Requirements,
}

/// What a virtual environment has beside the library of its Python.
#[derive(Clone, Debug, PartialEq)]
pub enum Requirements {
    /// As lines of a requirements file.
    List(Vec<Template>),
    /// Such a file, relative to the DAG file's folder. It is not rendered.
    File(String),
}

/// A script, given in the DAG file or as a file of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    Text(Template),
    /// A path, relative to the DAG file's folder. It is not rendered, and neither is the file.
    File(String),
}

/// Text that is rendered before use, with the place where it stands in the DAG file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    pub text: String,
    pub at: Position,
}

/// A place in a DAG file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// What becomes of a task's output (the XCom `return_value`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The last non-empty line.
    Text,
    /// That line, parsed.
    Json,
    None,
}
