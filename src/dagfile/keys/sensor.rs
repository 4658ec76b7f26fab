//! The keys of `sensor`.

use super::decider::{ASKED_BASH, ASKED_PYTHON};
use super::operator::AWAITED_SQL;
use super::tool::AWAITED_HTTP;
use super::{LIST_OF_TEXT, key};
use crate::keytable::{Fallback, Kind, Table};

/// What a sensor can wait for, each a key of its table.
pub const SENSORS: &[&str] =
    &["file", "time_delta", "date", "time", "weekday", "bash", "python", "http", "sql", "task"];

/// Airflow's names.
pub const SENSOR_MODES: &[&str] = &["poke", "reschedule"];

pub static SENSOR: Table = Table {
    name: "sensor",
    keys: &[&[
        key(
            "file",
            Kind::Template,
            Fallback::Nothing,
            "Waits for a file, or for one in a folder; a path or a pattern (`*`, `?`, `[a-z]`, `**`), relative to the DAG file's folder. The XCom is the list of paths",
        ),
        key(
            "settle",
            Kind::Duration { min: 0 },
            Fallback::Toml("\"2s\""),
            "How long a `file` must not have changed, so that one which is still being written does not count",
        ),
        key(
            "time_delta",
            Kind::Duration { min: 0 },
            Fallback::Nothing,
            "Waits until so long after the end of the run's data interval, or after its run_after if it has none",
        ),
        key("date", Kind::Time, Fallback::Nothing, "Waits until then"),
        key(
            "time",
            Kind::TimeOfDay,
            Fallback::Nothing,
            "Waits until this time, in the DAG's zone, of the day on which the try begins",
        ),
        key(
            "weekday",
            LIST_OF_TEXT,
            Fallback::Nothing,
            "Waits for one of these days, such as `\"Mon\"` or `\"monday\"`, in the DAG's zone",
        ),
        key("bash", ASKED_BASH, Fallback::Nothing, "Waits until the script ends with exit code 0"),
        key(
            "python",
            ASKED_PYTHON,
            Fallback::Nothing,
            "Waits until the value of the script or function is true, which becomes the XCom; or a table `is_done` with `xcom_value`",
        ),
        key(
            "http",
            Kind::Table(&AWAITED_HTTP),
            Fallback::Nothing,
            "Waits until a request is answered as expected; the XCom is as that of the operator `http`",
        ),
        key(
            "sql",
            Kind::Table(&AWAITED_SQL),
            Fallback::Nothing,
            "Waits until the first value of a query is true, which becomes the XCom",
        ),
        key(
            "task",
            Kind::Table(&EXTERNAL_TASK),
            Fallback::Nothing,
            "Waits for tasks of another DAG, or for its run, with the same logical date",
        ),
        key(
            "poke_interval",
            Kind::Duration { min: 1 },
            Fallback::Toml("\"60s\""),
            "How long after a look in vain it looks again; what a clock tells is not looked for, but comes at its instant",
        ),
        key(
            "timeout",
            Kind::Duration { min: 0 },
            Fallback::Toml("\"7d\""),
            "How long it waits; then it looks a last time, and fails without another try",
        ),
        key(
            "mode",
            Kind::OneOf(SENSOR_MODES),
            Fallback::Toml("\"poke\""),
            "Whether each try has the whole `timeout` (`\"poke\"`), or all tries together (`\"reschedule\"`); it holds no slot while it waits, in either",
        ),
        key(
            "soft_fail",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether a sensor that has waited too long is skipped and has not failed",
        ),
        key(
            "exponential_backoff",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether the interval doubles from look to look, with a jitter",
        ),
        key(
            "max_wait",
            Kind::Duration { min: 1 },
            Fallback::Nothing,
            "The longest interval with `exponential_backoff`",
        ),
    ]],
};

/// The ends of a task that a sensor of another DAG can name.
const ENDS: Kind = Kind::List(&Kind::OneOf(&["success", "failed", "skipped", "upstream_failed"]));

pub static EXTERNAL_TASK: Table = Table {
    name: "sensor.task",
    keys: &[&[
        key("dag_id", Kind::Text, Fallback::Nothing, "The other DAG; one that does not exist yet is waited for"),
        key("task_id", Kind::Text, Fallback::Words("the whole run"), "One task of it"),
        key("task_ids", LIST_OF_TEXT, Fallback::Nothing, "Instead, several tasks"),
        key("group_id", Kind::Text, Fallback::Nothing, "Instead, all tasks of a group"),
        key(
            "execution_delta",
            Kind::Duration { min: 0 },
            Fallback::Toml("\"0s\""),
            "The other run's logical date is this one's less so much",
        ),
        key(
            "allowed_states",
            ENDS,
            Fallback::Toml("[\"success\"]"),
            "The sensor succeeds when all that it looks at is in one of these states",
        ),
        key(
            "failed_states",
            ENDS,
            Fallback::Toml("[]"),
            "It fails when something is in one of these; without them the failure of what it looks at is waited over",
        ),
        key("skipped_states", ENDS, Fallback::Toml("[]"), "It is skipped when something is in one of these"),
    ]],
};
