//! The keys of a whole DAG file, and of its schedule.

use super::group::A_GROUP;
use super::task::{A_TASK, DEFAULT_ARGS};
use super::{CALLBACKS, LIST_OF_TEXT, key};
use crate::config::keys::ASSET;
use crate::keytable::{COUNT, Fallback, Kind, POSITIVE, Table};

/// Before the duration of `catchup`.
pub const WINDOW: &str = "window:";

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
            "on_success",
            CALLBACKS,
            Fallback::Words("that of `[defaults]` in airflow.toml"),
            "Callbacks for the end of a run that has succeeded",
        ),
        key(
            "on_failure",
            CALLBACKS,
            Fallback::Words("that of `[defaults]` in airflow.toml"),
            "Callbacks for the end of a run that has failed",
        ),
        key(
            "deadlines",
            Kind::List(&Kind::Table(&DEADLINE)),
            Fallback::Toml("[]"),
            "By when a run must have succeeded; each is missed once",
        ),
        key(
            "expect_by",
            Kind::Text,
            Fallback::Nothing,
            "A time of day in the DAG's zone by which a run of the day must have succeeded, whether or not one has begun",
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
        key(
            "assets",
            Kind::Map("name", &Kind::Table(&ASSET)),
            Fallback::Nothing,
            "Assets, for all DAG files; two files may define the same one only in the same way",
        ),
        key("tasks", Kind::Map("task_id", &A_TASK), Fallback::Nothing, "The tasks, at least one, here or in groups"),
        key("groups", Kind::Map("group_id", &A_GROUP), Fallback::Nothing, "Groups of tasks"),
    ]],
};

pub static DEADLINE: Table = Table {
    name: "a deadline",
    keys: &[&[
        key(
            "reference",
            Kind::Either(&[Kind::Text, Kind::Time]),
            Fallback::Nothing,
            "From when it counts: `\"logical_date\"`, `\"queued_at\"`, `\"average_runtime\"` (from the run's creation, for as long as runs take), or a date-time",
        ),
        key(
            "interval",
            Kind::Duration { min: 0 },
            Fallback::Toml("0"),
            "How long after that the run must have succeeded",
        ),
        key(
            "max_runs",
            POSITIVE,
            Fallback::Toml("10"),
            "`average_runtime`: of how many of the newest runs that have ended",
        ),
        key("min_runs", POSITIVE, Fallback::Words("`max_runs`"), "`average_runtime`: with fewer there is no deadline"),
        key(
            "callback",
            Kind::Either(&[Kind::Table(&crate::config::keys::CALLBACK), CALLBACKS]),
            Fallback::Words("the DAG's `on_failure`"),
            "Whom to call when it is missed: a callback or a list of them",
        ),
    ]],
};

pub static SCHEDULE: Table = Table {
    name: "schedule",
    keys: &[&[
        key("cron", Kind::Text, Fallback::Nothing, "Cron fields or a preset"),
        key("crons", LIST_OF_TEXT, Fallback::Nothing, "Several of them: a run is due when any of them says so"),
        key(
            "assets",
            Kind::Either(&[Kind::Text, LIST_OF_TEXT]),
            Fallback::Nothing,
            "A run is due when these assets have had events: `a & (b | c)`, names or quoted uris; of a list all must; a `cron`, `crons`, `every` or `events` may stand beside it",
        ),
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
