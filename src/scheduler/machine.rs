//! The only place where a task instance or a run changes state: live, in simulation and in recovery.
//!
//! Total functions of (state, event). They know nothing of why an event happens, of dates or of counters. A transition that is
//! not in SEMANTICS 1 is an [`IllegalTransition`]; whoever meets one has a bug, and can name it.

use std::fmt;

use crate::model::{RunState, TaskState};

/// What happens to a task instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// Its dependencies are met: it waits for a slot from now on.
    Schedule,
    /// Its dependencies are met, and there is nothing to run (operator `empty`).
    SucceedEmpty,
    /// A pass decided it by the states of others: `skipped`, `upstream_failed` or `removed`.
    Mark(TaskState),
    /// A branch or a short circuit before it has decided against it.
    PassOver,
    /// It was given its slots.
    Enqueue,
    /// Nothing could be started and nothing is wrong with it: it waits again, within the same try.
    Requeue,
    /// Its process began.
    Start,
    Succeed,
    Skip,
    /// Its try failed, or never began, and no try is left.
    Fail,
    /// Its try failed, or never began, and another one follows.
    Retry,
    /// It waits without a process (mode `poke`).
    Defer,
    /// It waits without a process (mode `reschedule`).
    Reschedule,
    /// What it waited for is to be looked at by a process.
    Resume,
    /// Its run is over before it (`dagrun_timeout`, `fail_fast`, a DAG that is gone).
    RunEnded,
    /// Its task is no longer in the definition.
    Vanish,
    /// Its task is in the definition again.
    Return,
    /// It is done over again.
    Clear,
    /// It is done over again, but a process of it still lives and is ended first.
    Restart,
    /// The process that a clear has ended is gone.
    Halted,
    /// A user has set its state: `success`, `failed` or `skipped`.
    Set(TaskState),
}

/// What happens to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// It may run: fewer than `max_active_runs` do.
    Promote,
    Succeed,
    /// By a pass, a timeout, or because its DAG is gone.
    Fail,
    /// It, or some of its tasks, are done over again after its end.
    Clear,
    /// A user has set its state: `success` or `failed`.
    Set(RunState),
}

/// An event that the state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IllegalTransition {
    Task(TaskState, TaskEvent),
    Run(RunState, RunEvent),
}

impl fmt::Display for IllegalTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(state, event) => write!(f, "apply `{event:?}` to a task instance in state `{state}`"),
            Self::Run(state, event) => write!(f, "apply `{event:?}` to a run in state `{state}`"),
        }
    }
}

impl std::error::Error for IllegalTransition {}

/// The state of a task instance after `event` (SEMANTICS 1, Transitions).
///
/// # Errors
/// The state does not allow the event.
pub const fn next_task(state: TaskState, event: TaskEvent) -> Result<TaskState, IllegalTransition> {
    use TaskEvent as E;
    use TaskState as S;
    match (state, event) {
        (S::None | S::UpForRetry | S::UpForReschedule, E::Schedule) => Ok(S::Scheduled),
        (S::None | S::UpForRetry | S::UpForReschedule, E::SucceedEmpty) => Ok(S::Success),
        // A deadlock's scan marks instances in any unfinished state, running ones too (SEMANTICS 5).
        (from, E::Mark(to @ (S::Skipped | S::UpstreamFailed | S::Removed))) if !from.is_finished() => Ok(to),
        // What runs goes on, and what is over stays as it is.
        (from, E::PassOver) if !from.is_finished() && !matches!(from, S::Running) => Ok(S::Skipped),
        (S::Scheduled, E::Enqueue) => Ok(S::Queued),
        // A look of a sensor that was cut off is made again.
        (S::Queued | S::Running, E::Requeue) => Ok(S::Scheduled),
        (S::Queued, E::Start) => Ok(S::Running),
        (S::Running | S::Deferred | S::UpForReschedule, E::Succeed) => Ok(S::Success),
        (S::Running | S::Deferred | S::UpForReschedule, E::Skip) => Ok(S::Skipped),
        (S::Running, E::Defer) => Ok(S::Deferred),
        (S::Running, E::Reschedule) => Ok(S::UpForReschedule),
        (S::Deferred, E::Resume) => Ok(S::Scheduled),
        // From `queued` too: a template's error, a missing interpreter, a start that nobody saw end.
        (S::Queued | S::Running | S::Deferred | S::UpForReschedule, E::Fail) => Ok(S::Failed),
        (S::Queued | S::Running | S::Deferred | S::UpForReschedule, E::Retry) => Ok(S::UpForRetry),
        (from, E::RunEnded) if !from.is_finished() => Ok(S::Skipped),
        (S::None | S::Scheduled | S::UpForRetry | S::UpForReschedule | S::Deferred, E::Vanish) => Ok(S::Removed),
        (S::Removed, E::Return) => Ok(S::None),
        // What executes is ended first.
        (from, E::Clear) if !from.is_executing() && !matches!(from, S::Restarting) => Ok(S::None),
        (from, E::Restart) if !matches!(from, S::Restarting) => Ok(S::Restarting),
        (S::Restarting, E::Halted) => Ok(S::None),
        (from, E::Set(to @ (S::Success | S::Failed | S::Skipped))) if from as u8 != to as u8 => Ok(to),
        _ => Err(IllegalTransition::Task(state, event)),
    }
}

/// The state of a run after `event` (SEMANTICS 1, DAG-run states).
///
/// # Errors
/// The state does not allow the event.
pub const fn next_run(state: RunState, event: RunEvent) -> Result<RunState, IllegalTransition> {
    match (state, event) {
        (RunState::Queued, RunEvent::Promote) => Ok(RunState::Running),
        (RunState::Running, RunEvent::Succeed) => Ok(RunState::Success),
        (RunState::Queued | RunState::Running, RunEvent::Fail) => Ok(RunState::Failed),
        (RunState::Success | RunState::Failed, RunEvent::Clear) => Ok(RunState::Queued),
        (from, RunEvent::Set(to @ (RunState::Success | RunState::Failed))) if from as u8 != to as u8 => Ok(to),
        _ => Err(IllegalTransition::Run(state, event)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &[TaskEvent] = &[
        TaskEvent::Schedule,
        TaskEvent::SucceedEmpty,
        TaskEvent::Mark(TaskState::Skipped),
        TaskEvent::Mark(TaskState::UpstreamFailed),
        TaskEvent::Mark(TaskState::Removed),
        TaskEvent::PassOver,
        TaskEvent::Enqueue,
        TaskEvent::Requeue,
        TaskEvent::Start,
        TaskEvent::Succeed,
        TaskEvent::Skip,
        TaskEvent::Fail,
        TaskEvent::Retry,
        TaskEvent::Defer,
        TaskEvent::Reschedule,
        TaskEvent::Resume,
        TaskEvent::RunEnded,
        TaskEvent::Vanish,
        TaskEvent::Return,
        TaskEvent::Clear,
        TaskEvent::Restart,
        TaskEvent::Halted,
        TaskEvent::Set(TaskState::Success),
        TaskEvent::Set(TaskState::Failed),
        TaskEvent::Set(TaskState::Skipped),
        TaskEvent::Set(TaskState::Running),
    ];

    #[test]
    fn the_way_of_a_task_that_fails_once_and_then_succeeds() {
        let mut state = TaskState::None;
        for event in [
            TaskEvent::Schedule,
            TaskEvent::Enqueue,
            TaskEvent::Start,
            TaskEvent::Retry,
            TaskEvent::Schedule,
            TaskEvent::Enqueue,
            TaskEvent::Requeue,
            TaskEvent::Enqueue,
            TaskEvent::Start,
            TaskEvent::Succeed,
        ] {
            state = next_task(state, event).unwrap();
        }
        assert_eq!(state, TaskState::Success);
    }

    #[test]
    fn nothing_but_its_return_or_a_user_moves_a_finished_instance() {
        for &state in TaskState::ALL.iter().filter(|state| state.is_finished()) {
            for &event in EVENTS {
                let returns = state == TaskState::Removed && event == TaskEvent::Return;
                let is_user = match event {
                    TaskEvent::Clear | TaskEvent::Restart => true,
                    TaskEvent::Set(to) => to != state && to != TaskState::Running,
                    _ => false,
                };
                let moves = returns || is_user;
                assert_eq!(next_task(state, event).is_ok(), moves, "{state} {event:?}");
            }
        }
    }

    #[test]
    fn a_mark_is_one_of_three_states() {
        for &to in TaskState::ALL {
            let is_mark = matches!(to, TaskState::Skipped | TaskState::UpstreamFailed | TaskState::Removed);
            assert_eq!(next_task(TaskState::None, TaskEvent::Mark(to)).is_ok(), is_mark, "{to}");
        }
    }

    #[test]
    fn an_executing_instance_does_not_vanish() {
        for state in [TaskState::Queued, TaskState::Running] {
            assert_eq!(next_task(state, TaskEvent::Vanish), Err(IllegalTransition::Task(state, TaskEvent::Vanish)));
        }
    }

    #[test]
    fn a_cleared_instance_whose_process_lives_restarts_and_waits_for_nothing_but_its_end() {
        let restarting = next_task(TaskState::Running, TaskEvent::Restart).unwrap();
        assert_eq!(restarting, TaskState::Restarting);
        for &event in EVENTS {
            let expected = match event {
                TaskEvent::Halted => Some(TaskState::None),
                TaskEvent::Mark(to) => Some(to),
                TaskEvent::PassOver | TaskEvent::RunEnded => Some(TaskState::Skipped),
                TaskEvent::Set(to) if to != TaskState::Running => Some(to),
                _ => None,
            };
            assert_eq!(next_task(restarting, event).ok(), expected, "{event:?}");
        }
    }

    #[test]
    fn what_executes_is_not_cleared_before_its_process_is_gone() {
        for state in [TaskState::Queued, TaskState::Running, TaskState::Restarting] {
            assert_eq!(next_task(state, TaskEvent::Clear), Err(IllegalTransition::Task(state, TaskEvent::Clear)));
        }
    }

    #[test]
    fn a_user_sets_a_run_to_another_end_and_to_nothing_else() {
        for &from in RunState::ALL {
            for &to in RunState::ALL {
                let is_allowed = to.is_finished() && from != to;
                assert_eq!(next_run(from, RunEvent::Set(to)).is_ok(), is_allowed, "{from} {to}");
            }
        }
    }

    #[test]
    fn only_a_queued_instance_starts_so_that_no_try_starts_twice() {
        for &state in TaskState::ALL {
            assert_eq!(next_task(state, TaskEvent::Start).is_ok(), state == TaskState::Queued, "{state}");
        }
    }

    #[test]
    fn a_run_that_is_over_can_be_done_again_and_no_other() {
        for &state in RunState::ALL {
            assert_eq!(next_run(state, RunEvent::Clear).is_ok(), state.is_finished(), "{state}");
        }
    }

    #[test]
    fn a_run_ends_once() {
        assert_eq!(next_run(RunState::Queued, RunEvent::Promote), Ok(RunState::Running));
        assert_eq!(next_run(RunState::Running, RunEvent::Succeed), Ok(RunState::Success));
        assert_eq!(next_run(RunState::Queued, RunEvent::Fail), Ok(RunState::Failed));
        for ended in [RunState::Success, RunState::Failed] {
            for event in [RunEvent::Promote, RunEvent::Succeed, RunEvent::Fail] {
                assert_eq!(next_run(ended, event), Err(IllegalTransition::Run(ended, event)));
            }
        }
    }
}
