//! Tries that an earlier minflow has left and nobody has: they are lost, or begin anew.
//!
//! Knows what shows that a try was begun; which tries nobody can have begun is told by `adopt`, and what lives of them has been ended (`lost`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::executor::reclaim::Remains;
use crate::executor::{Shared, environment, paths, try_log, worker};
use crate::scheduler::event::{Outcome, TryEnd};
use crate::scheduler::port::Stray;

/// Of a try that no supervisor can have begun. What shows otherwise is believed: a process of it, and a log that tells of more than of
/// what comes before a start.
pub(super) fn put_back(shared: &Shared, stray: &Stray, count: usize) -> TryEnd {
    if count > 0 || !is_of_no_start(&log_of(shared, stray)) {
        return lost(shared, stray, count);
    }
    TryEnd::new(stray.key, Outcome::NeverBegun, shared.clock.now())
}

/// Of a try of which nobody knows whether it was begun; `count` processes of it have been ended.
pub(super) fn lost(shared: &Shared, stray: &Stray, count: usize) -> TryEnd {
    let ended = TryEnd::new(stray.key, Outcome::Lost, shared.clock.now());
    let text = format!("lost: minflow ended before this try did; {count} of its processes still ran and were ended");
    try_log::close_left(&log_of(shared, stray), &text, ended.ended_at);
    ended
}

fn log_of(shared: &Shared, stray: &Stray) -> PathBuf {
    let (run, try_number) = (&stray.run, stray.key.try_number);
    let logs = &shared.settings.logs;
    paths::log_path(logs, &run.dag_id, &run.run_id, &stray.task_id, stray.map_index, try_number)
}

/// What may live of it.
pub(super) fn remains(shared: &Shared, stray: &Stray) -> Remains {
    Remains {
        mark: environment::mark(&shared.settings.owner, stray.key),
        log: Some(log_of(shared, stray)),
        process: stray.process.clone(),
        kill_signal: stray.kill_signal,
        grace: stray.grace,
    }
}

fn is_of_no_start(log: &Path) -> bool {
    match fs::read(log) {
        Ok(text) => text.split_inclusive(|&byte| byte == b'\n').all(is_said_before),
        // None is compressed before its try is over.
        Err(error) => error.kind() == io::ErrorKind::NotFound && !paths::compressed(log).exists(),
    }
}

/// Whether it is a line of minflow's, whole or cut off, by which a try is prepared or put off.
fn is_said_before(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let Some((_, said)) = line.split_once(try_log::OWN) else { return false };
    line.starts_with('[') && [worker::BEGINS, "not started"].iter().any(|words| said.starts_with(words))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_log_tells_whether_its_try_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("attempt=1.log");
        assert!(is_of_no_start(&log));
        let own = |text: &str| try_log::line(text, Timestamp::UNIX_EPOCH);
        let begins = own("begins try 1 of task t of DAG d, run r");
        let tells = |text: &str| {
            fs::write(&log, text).unwrap();
            !is_of_no_start(&log)
        };
        assert!(!tells("") && !tells(&begins) && !tells(&[&*begins, &begins].concat()));
        assert!(!tells(&[&*begins, &own("not started, waits: no processes"), &begins].concat()));
        for more in ["\n", "said\n", &own("ended with exit code 0 after 0.001 s"), "[1] minflow: x\n"] {
            assert!(tells(&format!("{begins}{more}")), "{more}");
        }
        fs::remove_file(&log).unwrap();
        fs::write(paths::compressed(&log), "").unwrap();
        assert!(!is_of_no_start(&log));
    }
}
