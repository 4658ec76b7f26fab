//! The keys of `sensor`.

use super::decider::{ASKED_BASH, ASKED_PYTHON};
use super::{LIST_OF_TEXT, key};
use crate::keytable::{Fallback, Kind, Table};

/// What a sensor can wait for, each a key of its table.
pub const SENSORS: [&str; 7] = ["file", "time_delta", "date", "time", "weekday", "bash", "python"];

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
