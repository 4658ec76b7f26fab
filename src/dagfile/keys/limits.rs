//! The keys of `limits`.

use super::key;
use crate::keytable::{Fallback, Kind, Table};

/// Less and no shell begins.
const LEAST_MEMORY: u64 = 4 << 20;
/// The log and the XComs of a task are files, too.
const LEAST_FILE: u64 = 64 << 10;
/// A shell has its three, its script, and one for each pipe.
const LEAST_OPEN_FILES: i64 = 16;
/// Linux gives a process no more (`fs.nr_open`).
const MOST_OPEN_FILES: i64 = 1 << 20;
/// Linux has no more numbers for processes.
const MOST_PROCESSES: i64 = 1 << 22;

const ENFORCE: &[&str] = &["prefer", "require"];

pub static LIMITS: Table = Table {
    name: "`limits`",
    keys: &[&[
        key(
            "memory",
            Kind::Size { min: LEAST_MEMORY },
            Fallback::Nothing,
            "The most memory that its processes take together; with more the task is ended, as `out_of_memory`",
        ),
        key(
            "cpus",
            Kind::Number { min: 0 },
            Fallback::Nothing,
            "How many processors its processes keep busy together, for example 0.5",
        ),
        key(
            "cpu_time",
            Kind::Duration { min: 1 },
            Fallback::Nothing,
            "The most time that its processes keep processors busy for; then the task is ended, as `cpu_time`",
        ),
        key(
            "processes",
            Kind::Integer { min: 1, max: MOST_PROCESSES },
            Fallback::Nothing,
            "How many processes and threads it has at once",
        ),
        key(
            "open_files",
            Kind::Integer { min: LEAST_OPEN_FILES, max: MOST_OPEN_FILES },
            Fallback::Nothing,
            "How many files each of its processes has open",
        ),
        key(
            "file_size",
            Kind::Size { min: LEAST_FILE },
            Fallback::Nothing,
            "How large each file may become that it writes, its log included; who writes more is ended, as `file_size`",
        ),
        key(
            "nice",
            Kind::Integer { min: -20, max: 19 },
            Fallback::Nothing,
            "Its priority for processors, from -20 (first; needs root) to 19 (last)",
        ),
        key(
            "ionice",
            Kind::Either(&[Kind::Integer { min: 0, max: 7 }, Kind::OneOf(&["idle"])]),
            Fallback::Nothing,
            "Its priority for disks, from 0 (first) to 7 (last), or `idle`: when nobody else wants them",
        ),
        key(
            "umask",
            Kind::Text,
            Fallback::Nothing,
            "The bits that new files do not get, as three octal digits: `\"027\"` lets the group read and others nothing",
        ),
        key(
            "enforce",
            Kind::OneOf(ENFORCE),
            Fallback::Toml("\"prefer\""),
            "Where the host cannot enforce a limit: `prefer` says so in the log and goes on, `require` does not start the task",
        ),
    ]],
};
