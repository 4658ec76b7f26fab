//! What a start makes of rows that cannot be: a run that has one fails, with the reason, and all others are gone on with.
//!
//! Knows what holds of every instance that a minflow has written (`machine` and the ways to it). Rows that cannot even be read are the
//! store's to deal with.

use crate::model::{Instance, TaskState};
use crate::scheduler::machine::{self, RunEvent, TaskEvent};
use crate::scheduler::waits::is_waiting;
use crate::scheduler::world::{Now, RunIx, World};

/// What no minflow has written, as it fits after "an impossible row: ".
fn fault_of(row: &Instance) -> Option<String> {
    let has_try = row.state.is_executing() || row.state == TaskState::Restarting || is_waiting(row.state);
    let (task, state) = (&row.task_id, row.state.as_str());
    if has_try && row.try_number == 0 {
        return Some(format!("`{task}` is `{state}`, and no try of it was ever begun"));
    }
    if has_try && row.version.is_none() {
        return Some(format!("`{task}` is `{state}`, and its try names no version of its DAG"));
    }
    if is_waiting(row.state) && row.deferral.is_none() {
        return Some(format!("`{task}` is `{state}`, and waits for nothing"));
    }
    None
}

impl World {
    /// Fails the runs that have such a row. Their processes are ended as those that no instance waits for.
    pub(super) fn fail_impossible(&mut self, now: Now) {
        let live = self.runs.iter().enumerate().filter_map(|(at, run)| Some((RunIx(at as u32), run.as_ref()?)));
        let faults: Vec<(RunIx, String)> = live
            .filter_map(|(ix, run)| Some((ix, run.instances.iter().find_map(|entry| fault_of(&entry.row))?)))
            .collect();
        for (run, fault) in faults {
            let row = &self.run(run).row;
            log::error!("the run `{}` of `{}` fails: an impossible row: {fault}", row.run_id, row.dag_id);
            for slot in self.run(run).slots_in_order() {
                if let Ok(next) = machine::next_task(self.run(run).entry(slot).row.state, TaskEvent::RunEnded) {
                    self.mark(run, slot, next, now);
                }
            }
            self.end_run(run, RunEvent::Fail, Some(&format!("an impossible row: {fault}")), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceKey, RunKey, VersionKey};

    #[test]
    fn what_a_minflow_writes_is_possible_and_what_it_never_writes_is_not() {
        let row = |state, try_number, version| Instance {
            state,
            try_number,
            version,
            ..Instance::new(InstanceKey(1), RunKey(1), "t", "default_pool", "bash")
        };
        let version = Some(VersionKey(1));
        for state in [TaskState::Queued, TaskState::Running, TaskState::Restarting] {
            assert_eq!(fault_of(&row(state, 1, version)), None);
            let told = fault_of(&row(state, 0, version)).unwrap();
            assert!(told.starts_with("`t` is `") && told.ends_with("was ever begun"), "{told}");
            assert!(fault_of(&row(state, 1, None)).unwrap().ends_with("names no version of its DAG"));
        }
        assert!(fault_of(&row(TaskState::Deferred, 1, version)).unwrap().ends_with("waits for nothing"));
        for state in [TaskState::None, TaskState::Success, TaskState::Removed, TaskState::Skipped] {
            assert_eq!(fault_of(&row(state, 0, None)), None);
        }
    }
}
