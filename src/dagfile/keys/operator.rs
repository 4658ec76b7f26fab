//! The keys that name a task's operator, and the keys of the operators that run something.

use super::decider::{BRANCH, SHORT_CIRCUIT};
use super::key;
use super::sensor::SENSOR;
use super::tool::{DOCKER, EMAIL, HTTP};
use crate::keytable::{Fallback, Key, Kind, Table};
use crate::model::sql::SqlOutput;

/// The names of the operators, each the key of a task.
pub const OPERATORS: &[&str] = &[
    "bash",
    "python",
    "http",
    "email",
    "sql",
    "docker",
    "trigger_dag",
    "empty",
    "external_task_marker",
    "branch",
    "short_circuit",
    "latest_only",
    "sensor",
];

/// The states in which a run is over.
const RUN_ENDS: Kind = Kind::List(&Kind::OneOf(&["success", "failed"]));

pub static OPERATOR_KEYS: &[Key] = &[
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
    key("http", Kind::Table(&HTTP), Fallback::Nothing, "Operator: an HTTP request, whose answer is the XCom"),
    key("email", Kind::Table(&EMAIL), Fallback::Nothing, "Operator: sends a mail"),
    key("sql", Kind::Table(&SQL), Fallback::Nothing, "Operator: a script of SQL for a SQLite database"),
    key("docker", Kind::Table(&DOCKER), Fallback::Nothing, "Operator: runs a container, by the `docker` command"),
    key("trigger_dag", Kind::Table(&TRIGGER_DAG), Fallback::Nothing, "Operator: makes a run of another DAG"),
    key("empty", Kind::Literal(true), Fallback::Nothing, "Operator: does nothing"),
    key(
        "external_task_marker",
        Kind::Table(&EXTERNAL_TASK_MARKER),
        Fallback::Nothing,
        "Operator: does nothing; who clears it clears a task of another DAG too",
    ),
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
    key("sensor", Kind::Table(&SENSOR), Fallback::Nothing, "Operator: waits until something is so, without a process"),
];

pub static TRIGGER_DAG: Table = Table {
    name: "trigger_dag",
    keys: &[&[
        key("dag_id", Kind::Template, Fallback::Nothing, "The DAG that gets a run"),
        key(
            "conf",
            Kind::Either(&[Kind::Template, Kind::Map("name", &Kind::Any)]),
            Fallback::Toml("{}"),
            "The run's conf: a table whose texts are templates, or a template that becomes one as JSON",
        ),
        key(
            "logical_date",
            Kind::Template,
            Fallback::Words("when the run is made"),
            "The run's logical date, or `\"none\"`",
        ),
        key("run_id", Kind::Template, Fallback::Words("`manual__` and the logical date"), "The run's name"),
        key(
            "reset_dag_run",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether a run that is there already is done over again; else the task fails, without a retry",
        ),
        key(
            "skip_when_already_exists",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether the task is skipped when the run is there already",
        ),
        key(
            "wait_for_completion",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether the task waits for the run's end; it takes no slot meanwhile",
        ),
        key(
            "poke_interval",
            Kind::Duration { min: 1 },
            Fallback::Toml("\"60s\""),
            "Known from Airflow, where the run is looked at so often; here its end is known at once",
        ),
        key(
            "allowed_states",
            RUN_ENDS,
            Fallback::Toml("[\"success\"]"),
            "The ends of the awaited run with which the task succeeds",
        ),
        key(
            "failed_states",
            RUN_ENDS,
            Fallback::Toml("[\"failed\"]"),
            "The ends of the awaited run with which the task fails",
        ),
    ]],
};

pub static EXTERNAL_TASK_MARKER: Table = Table {
    name: "external_task_marker",
    keys: &[&[
        key("dag_id", Kind::Text, Fallback::Nothing, "The other DAG"),
        key("task_id", Kind::Text, Fallback::Nothing, "Its task, usually the sensor that waits for this one"),
        key(
            "execution_delta",
            Kind::Duration { min: 0 },
            Fallback::Toml("\"0s\""),
            "The other run's logical date is this one's plus so much: that of the sensor's `execution_delta`",
        ),
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
        key(
            "venv",
            Kind::Table(&VENV),
            Fallback::Nothing,
            "Packages that it is to find: a virtual environment is made of them, once for all tasks that ask for the same",
        ),
    ]],
};

pub static VENV: Table = Table {
    name: "venv",
    keys: &[&[
        key(
            "requirements",
            Kind::Either(&[Kind::Text, Kind::List(&Kind::Template)]),
            Fallback::Toml("[]"),
            "The packages, as lines of a requirements file; or such a file, relative to the DAG file's folder, which is not rendered",
        ),
        key("python", Kind::Template, Fallback::Toml("\"python3\""), "The Python that it is made of"),
    ]],
};

/// A script, and where it runs.
const SCRIPT: &[Key] = &[
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
];

pub static SQL: Table = Table {
    name: "sql",
    keys: &[
        SCRIPT,
        &[
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
            key(
                "read_only",
                Kind::Bool,
                Fallback::Toml("false"),
                "Whether the database must exist and cannot be written",
            ),
        ],
    ],
};

/// `sql` of a sensor.
pub static AWAITED_SQL: Table = Table {
    name: "sql of a sensor",
    keys: &[
        SCRIPT,
        &[key(
            "timeout",
            Kind::Duration { min: 1 },
            Fallback::Toml("\"60s\""),
            "For a look, to the end of the script; one that takes longer fails the try",
        )],
    ],
};
