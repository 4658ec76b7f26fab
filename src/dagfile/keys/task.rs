//! The keys of a task, whatever its operator.

use super::limits::LIMITS;
use super::mapping::{EXPAND, EXPAND_KWARGS, PARTIAL};
use super::needs::NEEDS;
use super::operator::OPERATOR_KEYS;
use super::retry::RETRY_RULE;
use super::{CALLBACKS, LIST_OF_TEXT, key};
use crate::keytable::{COUNT, Fallback, KILL_SIGNALS, Key, Kind, POSITIVE, Table};
use crate::model::Hook;

/// Airflow's names.
pub const TRIGGER_RULES: &[&str] = &[
    "all_success",
    "all_failed",
    "all_done",
    "all_done_min_one_success",
    "all_done_setup_success",
    "all_skipped",
    "always",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "one_done",
    "one_failed",
    "one_success",
];

const OUTPUTS: &[&str] = &["text", "json", "none"];
const KILL_TREES: &[&str] = &["tree", "strict"];
const WEIGHT_RULES: &[&str] = &["downstream", "upstream", "absolute", "critical_path"];
const EXIT_CODE: Kind = Kind::Integer { min: 0, max: 255 };

pub static A_TASK: Kind = Kind::Table(&TASK);

pub static DEFAULT_ARGS: Table = Table { name: "default_args", keys: &[&SHARED] };

pub static TASK: Table = Table { name: "a task", keys: &[OPERATOR_KEYS, OWN, &SHARED] };

/// Keys that make no sense as a default for all tasks.
const OWN: &[Key] = &[
    key("depends_on", LIST_OF_TEXT, Fallback::Toml("[]"), "The tasks and groups that come directly before this one"),
    EXPAND,
    EXPAND_KWARGS,
    PARTIAL,
    key("setup", Kind::Bool, Fallback::Toml("false"), "Whether the task prepares what a teardown clears away"),
    key(
        "teardown_of",
        LIST_OF_TEXT,
        Fallback::Toml("[]"),
        "The setups that come directly before this task and whose work it clears away, whatever has become of the tasks between",
    ),
    key(
        "on_failure_fail_dagrun",
        Kind::Bool,
        Fallback::Toml("false"),
        "Whether the failure of a teardown counts for the state of the run",
    ),
];

/// Those that a task has.
pub const TASK_HOOKS: [Hook; 5] = [Hook::OnExecute, Hook::OnSuccess, Hook::OnFailure, Hook::OnRetry, Hook::OnSkipped];

static SHARED: [Key; 40] = [
    key(
        "inlets",
        LIST_OF_TEXT,
        Fallback::Toml("[]"),
        "Assets that the task reads, by name or uri: `{{ inlet_events }}` has their events",
    ),
    key(
        "outlets",
        LIST_OF_TEXT,
        Fallback::Toml("[]"),
        "Assets that the task produces, by name or uri: its success is an event of each",
    ),
    key(
        "trigger_rule",
        Kind::OneOf(TRIGGER_RULES),
        Fallback::Toml("\"all_success\""),
        "What the tasks before must have come to",
    ),
    key(
        "retries",
        COUNT,
        Fallback::Words("`core.default_task_retries`"),
        "How often a failed try is followed by another",
    ),
    key(
        "retry_delay",
        Kind::Duration { min: 0 },
        Fallback::Words("`core.default_task_retry_delay`"),
        "How long after a failed try the next one starts",
    ),
    key(
        "retry_exponential_backoff",
        Kind::Either(&[Kind::Bool, Kind::Number { min: 0 }]),
        Fallback::Toml("false"),
        "By what the delay is multiplied from one try to the next; `true`: 2",
    ),
    key(
        "max_retry_delay",
        Kind::Duration { min: 0 },
        Fallback::Nothing,
        "The longest delay with `retry_exponential_backoff`; 0: a day",
    ),
    key(
        "retry_on",
        Kind::List(&Kind::Table(&RETRY_RULE)),
        Fallback::Toml("[]"),
        "Rules for certain failures, of which the first that fits decides whether and when another try follows",
    ),
    key(
        "needs",
        Kind::Table(&NEEDS),
        Fallback::Nothing,
        "What is reserved of the host before an instance starts: no more starts at once than `[admission]` has to give away",
    ),
    key(
        "execution_timeout",
        Kind::Duration { min: 1 },
        Fallback::Nothing,
        "A try that takes longer is ended and fails",
    ),
    key(
        "grace",
        Kind::Duration { min: 0 },
        Fallback::Words("`core.killed_task_cleanup_time`"),
        "How long after `kill_signal` the task is killed",
    ),
    key(
        "kill_signal",
        Kind::Signal(KILL_SIGNALS),
        Fallback::Toml("\"TERM\""),
        "The signal that asks the task's processes to end",
    ),
    key(
        "kill_tree",
        Kind::OneOf(KILL_TREES),
        Fallback::Toml("\"tree\""),
        "How what the task has started is found when it is to end: by what tells it from others, or `strict`, which misses nothing",
    ),
    key(
        "leave_running",
        Kind::Bool,
        Fallback::Toml("false"),
        "Whether what the task has started stays when its own process ends by itself",
    ),
    key(
        "limits",
        Kind::Table(&LIMITS),
        Fallback::Nothing,
        "What a try may use of the host, and what it does to new files",
    ),
    key(
        "run_as",
        Kind::Text,
        Fallback::Words("the user as whom minflow runs"),
        "The user as whom the task runs, with its groups and its home; only where minflow runs as root",
    ),
    key("pool", Kind::Text, Fallback::Toml("\"default_pool\""), "The pool whose slots the task takes while it runs"),
    key("pool_slots", POSITIVE, Fallback::Toml("1"), "How many slots it takes"),
    key(
        "max_active_tis_per_dag",
        POSITIVE,
        Fallback::Nothing,
        "How many instances of the task may be active at once, in all runs of its DAG together",
    ),
    key(
        "max_active_tis_per_dagrun",
        POSITIVE,
        Fallback::Nothing,
        "How many instances of a mapped task may be active at once in one run",
    ),
    key(
        "priority_weight",
        Kind::Integer { min: -(1 << 31), max: 1 << 31 },
        Fallback::Toml("1"),
        "Of the tasks that wait for a slot, those with more weight start first",
    ),
    key(
        "weight_rule",
        Kind::OneOf(WEIGHT_RULES),
        Fallback::Toml("\"downstream\""),
        "Whose weights add up to the task's own: all tasks after it, all before it, or none. `critical_path`: its own weight times the seconds that the longest path from it to the end of the DAG usually takes",
    ),
    key(
        "env",
        Kind::Map("variable", &Kind::Template),
        Fallback::Toml("{}"),
        "Environment variables, added to those that minflow was started with",
    ),
    key(
        "cwd",
        Kind::Template,
        Fallback::Words("the run's own folder"),
        "The folder in which the task runs; a relative one starts at the DAG file's folder",
    ),
    key(
        "output",
        Kind::OneOf(OUTPUTS),
        Fallback::Toml("\"text\""),
        "What becomes the XCom: the last non-empty line of output (at most 64 KiB), that line parsed as JSON, or nothing",
    ),
    key(
        "skip_on_exit_code",
        Kind::Either(&[EXIT_CODE, Kind::List(&EXIT_CODE), Kind::Literal(false)]),
        Fallback::Toml("99"),
        "Exit codes that mean: skipped",
    ),
    key(
        "depends_on_past",
        Kind::Bool,
        Fallback::Toml("false"),
        "Whether the task waits for its own success in the DAG's run before",
    ),
    key(
        "wait_for_downstream",
        Kind::Bool,
        Fallback::Toml("false"),
        "As `depends_on_past`, and for the tasks directly after it in that run, too",
    ),
    key(
        "ignore_first_depends_on_past",
        Kind::Bool,
        Fallback::Toml("true"),
        "Whether a run before that does not have the task yet is as good as one where it has succeeded",
    ),
    key(
        "wait_for_past_depends_before_skipping",
        Kind::Bool,
        Fallback::Toml("false"),
        "Whether the task is skipped only once `depends_on_past` lets it go on",
    ),
    key(
        "start_date",
        Kind::Time,
        Fallback::Words("the DAG's `start_date`"),
        "Runs with an earlier logical date do without the task",
    ),
    key(
        "end_date",
        Kind::Time,
        Fallback::Words("the DAG's `end_date`"),
        "Runs with a later logical date do without the task",
    ),
    key(
        "map_index_template",
        Kind::Template,
        Fallback::Nothing,
        "What an instance of a mapped task is called beside its number; rendered when it has ended",
    ),
    key("on_execute", CALLBACKS, Fallback::Toml("[]"), "Callbacks for when a try of it has begun"),
    key("on_success", CALLBACKS, Fallback::Toml("[]"), "Callbacks for when it has succeeded"),
    key("on_failure", CALLBACKS, Fallback::Toml("[]"), "Callbacks for when it has failed and no try is left"),
    key("on_retry", CALLBACKS, Fallback::Toml("[]"), "Callbacks for when a try has failed and another follows"),
    key("on_skipped", CALLBACKS, Fallback::Toml("[]"), "Callbacks for when it has skipped itself, by its exit code"),
    key("doc_md", Kind::Text, Fallback::Toml("\"\""), "Documentation, in Markdown"),
    key("owner", Kind::Text, Fallback::Words("the DAG's `owner`"), "Who answers for the task"),
];
