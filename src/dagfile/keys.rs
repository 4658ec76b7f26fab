//! The table of keys of a DAG file. The parser, its messages, `schemas/dag.schema.json` and `docs/dag-format.md` follow from it.

use crate::keytable::{COUNT, ENDING_SIGNALS, Fallback, KILL_SIGNALS, Key, Kind, POSITIVE, Table};
use crate::model::sql::SqlOutput;

const fn key(name: &'static str, kind: Kind, default: Fallback, description: &'static str) -> Key {
    Key { name, kind, default, description }
}

/// The names of the operators, each the key of a task.
pub const OPERATORS: [&str; 7] = ["bash", "python", "sql", "empty", "branch", "short_circuit", "latest_only"];

/// The days of the week as a branch names them, or their first three letters.
pub const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

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

/// Before the duration of `catchup`.
pub const WINDOW: &str = "window:";

const OUTPUTS: &[&str] = &["text", "json", "none"];
const WEIGHT_RULES: &[&str] = &["downstream", "upstream", "absolute"];
const LIST_OF_TEXT: Kind = Kind::List(&Kind::Text);
const EXIT_CODE: Kind = Kind::Integer { min: 0, max: 255 };
const FAILURE_CODE: Kind = Kind::Integer { min: 1, max: 255 };

/// A whole DAG file.
pub static DAG: Table = Table {
    name: "a DAG file",
    keys: &[&[
        key(
            "dag_id",
            Kind::Text,
            Fallback::Words("the file's name without `.toml`"),
            "The DAG's name: letters, digits, `_`, `.` and `-`, at most 200 bytes",
        ),
        key("description", Kind::Text, Fallback::Toml("\"\""), "One line that tells people what the DAG is for"),
        key(
            "owner",
            Kind::Text,
            Fallback::Toml("\"airflow\""),
            "Who answers for the DAG, and for its tasks unless they say otherwise",
        ),
        key("doc_md", Kind::Text, Fallback::Toml("\"\""), "Longer documentation, in Markdown"),
        key("tags", LIST_OF_TEXT, Fallback::Toml("[]"), "Labels to find the DAG by"),
        key(
            "schedule",
            Kind::Either(&[Kind::Text, Kind::Table(&SCHEDULE)]),
            Fallback::Words("none: runs only when triggered"),
            "When runs are due: cron fields, a preset such as `@daily`, `@once`, `@continuous`, or a table",
        ),
        key(
            "timezone",
            Kind::Zone,
            Fallback::Words("`core.default_timezone`"),
            "The zone of the schedule and of local times in the file",
        ),
        key("start_date", Kind::Time, Fallback::Nothing, "No run is due before it"),
        key("end_date", Kind::Time, Fallback::Nothing, "No run is due after it"),
        key(
            "catchup",
            Kind::Either(&[Kind::Bool, Kind::OneOfOr { names: &["all", "latest"], prefix: WINDOW }]),
            Fallback::Words("`scheduler.catchup_by_default`"),
            "Which missed runs are made up for: all since `start_date` (`true`, `\"all\"`), the newest (`false`, `\"latest\"`), or those due within a time",
        ),
        key(
            "data_interval",
            Kind::Bool,
            Fallback::Words("`scheduler.create_cron_data_intervals`"),
            "Whether a run of `cron` or `every` covers the time up to the next tick, and is due at its end",
        ),
        key(
            "run_immediately",
            Kind::Either(&[Kind::Bool, Kind::Duration { min: 0 }]),
            Fallback::Toml("false"),
            "Whether a new DAG starts with the run just missed; a duration: if it was due no longer ago",
        ),
        key(
            "max_active_runs",
            POSITIVE,
            Fallback::Words("`core.max_active_runs_per_dag`"),
            "How many runs may be running at once",
        ),
        key(
            "max_active_tasks",
            POSITIVE,
            Fallback::Words("`core.max_active_tasks_per_dag`"),
            "How many tasks of one run may be running at once",
        ),
        key(
            "max_consecutive_failed_dag_runs",
            COUNT,
            Fallback::Toml("0"),
            "After so many failed runs in a row the DAG is paused; 0: never",
        ),
        key("dagrun_timeout", Kind::Duration { min: 1 }, Fallback::Nothing, "A run that takes longer fails"),
        key(
            "fail_fast",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether the first task that fails for good ends the run: what runs is stopped, what has not run is skipped, but for teardowns",
        ),
        key(
            "is_paused_upon_creation",
            Kind::Bool,
            Fallback::Words("`core.dags_are_paused_at_creation`"),
            "Whether the DAG is paused when it is first seen",
        ),
        key(
            "params",
            Kind::Map("param", &Kind::Either(&[Kind::Plain, Kind::Schema])),
            Fallback::Toml("{}"),
            "Values for templates, `{{ params.NAME }}`, which a trigger may override; a table is a JSON Schema with a `default`",
        ),
        key(
            "default_args",
            Kind::Table(&DEFAULT_ARGS),
            Fallback::Toml("{}"),
            "Keys for every task that does not give them itself",
        ),
        key(
            "chain",
            LIST_OF_TEXT,
            Fallback::Toml("[]"),
            "Dependencies as arrows between tasks and groups: `\"a >> [b, c] >> d\"`, `\"d << b\"`; lists on both sides connect each with each",
        ),
        key("tasks", Kind::Map("task_id", &A_TASK), Fallback::Nothing, "The tasks, at least one, here or in groups"),
        key("groups", Kind::Map("group_id", &A_GROUP), Fallback::Nothing, "Groups of tasks"),
    ]],
};

static A_TASK: Kind = Kind::Table(&TASK);
// A group may hold groups, so the two name each other.
static A_GROUP: Kind = Kind::Table(&GROUP);

pub static GROUP: Table = Table { name: "a group", keys: &[&GROUP_KEYS] };

static GROUP_KEYS: [Key; 9] = [
    key("tasks", Kind::Map("task_id", &A_TASK), Fallback::Nothing, "Its tasks"),
    key("groups", Kind::Map("group_id", &A_GROUP), Fallback::Nothing, "Groups inside it"),
    key("depends_on", LIST_OF_TEXT, Fallback::Toml("[]"), "The tasks and groups that come before its first tasks"),
    key(
        "default_args",
        Kind::Table(&DEFAULT_ARGS),
        Fallback::Toml("{}"),
        "Keys for every task inside it that does not give them itself; they win over those of the groups around it and of the DAG",
    ),
    EXPAND,
    EXPAND_KWARGS,
    PARTIAL,
    key(
        "prefix_group_id",
        Kind::Bool,
        Fallback::Toml("true"),
        "Whether what it holds has its id and a dot before its own",
    ),
    key("tooltip", Kind::Text, Fallback::Toml("\"\""), "One line that tells people what the group is for"),
];

pub static SCHEDULE: Table = Table {
    name: "schedule",
    keys: &[&[
        key("cron", Kind::Text, Fallback::Nothing, "Cron fields or a preset"),
        key("crons", LIST_OF_TEXT, Fallback::Nothing, "Several of them: a run is due when any of them says so"),
        key("every", Kind::Period, Fallback::Nothing, "A period, fixed or in months and years of the calendar"),
        key("events", Kind::List(&Kind::Time), Fallback::Nothing, "Runs are due at these times, at most 10,000"),
        key(
            "timezone",
            Kind::Zone,
            Fallback::Words("the DAG's `timezone`"),
            "The zone of the cron fields, and of `events` without an offset",
        ),
        key(
            "interval",
            Kind::Duration { min: 0 },
            Fallback::Toml("0"),
            "How much time before its tick a run's data interval covers",
        ),
    ]],
};

pub static DEFAULT_ARGS: Table = Table { name: "default_args", keys: &[&SHARED] };

pub static TASK: Table = Table { name: "a task", keys: &[&OPERATOR_KEYS, OWN, &SHARED] };

static OPERATOR_KEYS: [Key; 7] = [
    key(
        "bash",
        Kind::Either(&[Kind::Template, Kind::Table(&BASH)]),
        Fallback::Nothing,
        "Operator: a script for `bash -c` (`sh` where there is no bash)",
    ),
    key(
        "python",
        Kind::Either(&[Kind::Template, Kind::Table(&PYTHON)]),
        Fallback::Nothing,
        "Operator: a Python script, whose variable `result` is the XCom, or a function of a file",
    ),
    key("sql", Kind::Table(&SQL), Fallback::Nothing, "Operator: a script of SQL for a SQLite database"),
    key("empty", Kind::Literal(true), Fallback::Nothing, "Operator: does nothing"),
    key(
        "branch",
        Kind::Table(&BRANCH),
        Fallback::Nothing,
        "Operator: of the tasks directly after it only those run that it chooses, or that come after a chosen one",
    ),
    key(
        "short_circuit",
        Kind::Table(&SHORT_CIRCUIT),
        Fallback::Nothing,
        "Operator: the tasks after it are skipped unless its answer is true",
    ),
    key(
        "latest_only",
        Kind::Literal(true),
        Fallback::Nothing,
        "Operator: the tasks directly after it are skipped in a scheduled run that is not the latest",
    ),
];

const EXPAND: Key = key(
    "expand",
    Kind::Map("variable", &Kind::Elements),
    Fallback::Nothing,
    "Makes an instance for each element: variables of templates, each with its elements; of several each with each, the last fastest",
);
const EXPAND_KWARGS: Key = key(
    "expand_kwargs",
    Kind::Elements,
    Fallback::Nothing,
    "Makes an instance for each element, which is a table of variables",
);
const PARTIAL: Key = key(
    "partial",
    Kind::Map("variable", &Kind::Any),
    Fallback::Toml("{}"),
    "Variables that are the same for all instances",
);

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

static SHARED: [Key; 26] = [
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
    key("pool", Kind::Text, Fallback::Toml("\"default_pool\""), "The pool whose slots the task takes while it runs"),
    key("pool_slots", POSITIVE, Fallback::Toml("1"), "How many slots it takes"),
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
        "Whose weights add up to the task's own: all tasks after it, all before it, or none",
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
    key("doc_md", Kind::Text, Fallback::Toml("\"\""), "Documentation, in Markdown"),
    key("owner", Kind::Text, Fallback::Words("the DAG's `owner`"), "Who answers for the task"),
];

pub static INPUT: Table = Table {
    name: "an input",
    keys: &[&[
        key(
            "xcom",
            Kind::Text,
            Fallback::Nothing,
            "The elements are what this task gives, which becomes one that comes before; of a mapped one what its instances give",
        ),
        key("key", Kind::Text, Fallback::Toml("\"return_value\""), "The key of that XCom"),
        key(
            "zip",
            Kind::List(&Kind::Elements),
            Fallback::Nothing,
            "Inputs that are taken side by side: an element is a list of one of each, as many as the shortest has",
        ),
        key(
            "fillvalue",
            Kind::Any,
            Fallback::Nothing,
            "Stands in `zip` for what the shorter ones lack: there are as many elements as the longest has",
        ),
        key("concat", Kind::List(&Kind::Elements), Fallback::Nothing, "Inputs that are taken one after the other"),
        key("values", Kind::Elements, Fallback::Nothing, "The elements themselves, a list or a table"),
        key(
            "map",
            Kind::Template,
            Fallback::Nothing,
            "What becomes of each element, the variable `item`, before its instance gets it",
        ),
        key(
            "filter",
            Kind::Template,
            Fallback::Nothing,
            "Whether an instance runs; where it comes to something false, empty or 0 it is skipped",
        ),
    ]],
};

pub static RETRY_RULE: Table = Table {
    name: "a rule of `retry_on`",
    keys: &[&[
        key(
            "exit_code",
            Kind::Either(&[FAILURE_CODE, Kind::List(&FAILURE_CODE)]),
            Fallback::Nothing,
            "The try ended with this exit code, or one of these",
        ),
        key(
            "signal",
            Kind::Signal(ENDING_SIGNALS),
            Fallback::Nothing,
            "It was ended by this signal, and not by minflow; what a script of bash starts and a signal ends has the exit code 128 and the signal's number",
        ),
        key("timeout", Kind::Literal(true), Fallback::Nothing, "It came to its `execution_timeout`"),
        key(
            "output",
            Kind::Text,
            Fallback::Nothing,
            "A regular expression that matches something in the last 64 KiB of its output (in less, if the task's patterns are large together); `^` and `$` are the ends of a line",
        ),
        key(
            "retries",
            COUNT,
            Fallback::Words("the task's `retries`"),
            "How often the task is tried again in all if it fails so; 0: not again",
        ),
        key(
            "retry_delay",
            Kind::Duration { min: 0 },
            Fallback::Words("the task's delay"),
            "How long after it the next try starts, without backoff",
        ),
    ]],
};

const IDS: Kind = Kind::Either(&[Kind::Text, LIST_OF_TEXT]);
const ASKED_BASH: Kind = Kind::Either(&[Kind::Template, Kind::Table(&BASH)]);
const ASKED_PYTHON: Kind = Kind::Either(&[Kind::Template, Kind::Table(&PYTHON)]);

pub static BRANCH: Table = Table {
    name: "branch",
    keys: &[&[
        key("expr", Kind::Template, Fallback::Nothing, "What it becomes is the choice; no process is started"),
        key("bash", ASKED_BASH, Fallback::Nothing, "A script whose last non-empty line is the choice"),
        key("python", ASKED_PYTHON, Fallback::Nothing, "A script or function whose value is the choice"),
        key(
            "weekday",
            LIST_OF_TEXT,
            Fallback::Nothing,
            "Chooses by the day it is in the DAG's zone: `if_true` on these, such as `\"Mon\"` or `\"monday\"`",
        ),
        key(
            "between",
            Kind::List(&Kind::Bound),
            Fallback::Nothing,
            "Chooses by the time it is: `if_true` from the first to the second, both included",
        ),
        key("if_true", IDS, Fallback::Toml("[]"), "The choice then: the ids of tasks or groups"),
        key("if_false", IDS, Fallback::Toml("[]"), "The choice else"),
    ]],
};

pub static SHORT_CIRCUIT: Table = Table {
    name: "short_circuit",
    keys: &[&[
        key("expr", Kind::Template, Fallback::Nothing, "What it becomes is the answer; no process is started"),
        key("bash", ASKED_BASH, Fallback::Nothing, "A script whose exit code or last non-empty line is the answer"),
        key("python", ASKED_PYTHON, Fallback::Nothing, "A script or function whose value is the answer"),
        key(
            "ignore_downstream_trigger_rules",
            Kind::Bool,
            Fallback::Toml("true"),
            "Whether all tasks after it are skipped, or only those directly after it, and the others by their trigger rules",
        ),
    ]],
};

pub static SQL: Table = Table {
    name: "sql",
    keys: &[&[
        key("sql", Kind::Template, Fallback::Nothing, "The script: one statement, or several with `;` between them"),
        key(
            "file",
            Kind::Text,
            Fallback::Nothing,
            "A script's file instead, relative to the DAG file's folder; it is rendered",
        ),
        key(
            "database",
            Kind::Template,
            Fallback::Nothing,
            "The database's file, relative to the DAG file's folder, or `:memory:`; made if there is none",
        ),
        key(
            "connection",
            Kind::Template,
            Fallback::Nothing,
            "Instead, the id of a connection of the type `sqlite`, whose path is relative to home",
        ),
        key(
            "parameters",
            Kind::Either(&[Kind::List(&Kind::Any), Kind::Map("name", &Kind::Any)]),
            Fallback::Nothing,
            "Values for the script: a list for `?`, a table for `:name`; its texts are templates",
        ),
        key(
            "output",
            Kind::OneOf(SqlOutput::NAMES),
            Fallback::Toml("\"rows\""),
            "What of the last statement becomes the XCom: all rows, the first row, its first value, or nothing",
        ),
        key(
            "autocommit",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether each statement is committed by itself; else the script is one transaction",
        ),
        key("read_only", Kind::Bool, Fallback::Toml("false"), "Whether the database must exist and cannot be written"),
    ]],
};

pub static BASH: Table = Table {
    name: "bash",
    keys: &[&[
        key("command", Kind::Template, Fallback::Nothing, "The script"),
        key(
            "file",
            Kind::Text,
            Fallback::Nothing,
            "A script's file, relative to the DAG file's folder; it is not rendered",
        ),
    ]],
};

pub static PYTHON: Table = Table {
    name: "python",
    keys: &[&[
        key(
            "file",
            Kind::Text,
            Fallback::Nothing,
            "A Python file, relative to the DAG file's folder; it is not rendered",
        ),
        key(
            "function",
            Kind::Text,
            Fallback::Words("none: the file runs as a script"),
            "The function of the file to call; what it returns is the XCom",
        ),
        key(
            "args",
            Kind::List(&Kind::Any),
            Fallback::Toml("[]"),
            "The function's arguments; texts in them are templates",
        ),
        key(
            "kwargs",
            Kind::Map("name", &Kind::Any),
            Fallback::Toml("{}"),
            "The function's arguments by name; texts in them are templates",
        ),
        key("interpreter", Kind::Template, Fallback::Toml("\"python3\""), "The Python to use"),
    ]],
};
