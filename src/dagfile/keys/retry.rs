//! The keys of a rule of `retry_on`.

use super::key;
use crate::keytable::{COUNT, ENDING_SIGNALS, Fallback, Kind, Table};

const FAILURE_CODE: Kind = Kind::Integer { min: 1, max: 255 };

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
            "out_of_memory",
            Kind::Literal(true),
            Fallback::Nothing,
            "It was ended since it took more than `memory` of its `limits`",
        ),
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
