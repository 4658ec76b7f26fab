//! Airflow's trigger rules: whether a task instance may run, given counts of the states around it (SEMANTICS 3, 20).
//!
//! Pure over counters. Who is upstream of whom, and which counts are as of when, is [`progress`](super::progress)'s affair.

use crate::model::{TaskState, TriggerRule};

/// How many of a set of instances there are, and how many of them ended how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// The number of tasks, or of their instances where one of them is mapped; unfinished ones included.
    pub total: u32,
    pub success: u32,
    pub failed: u32,
    pub skipped: u32,
    pub upstream_failed: u32,
    pub removed: u32,
}

impl Counts {
    /// How many are finished.
    pub const fn done(&self) -> u32 {
        self.success + self.failed + self.skipped + self.upstream_failed + self.removed
    }

    /// How many are not.
    pub const fn pending(&self) -> u32 {
        self.total.saturating_sub(self.done())
    }

    /// Both together.
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            total: self.total + other.total,
            success: self.success + other.success,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            upstream_failed: self.upstream_failed + other.upstream_failed,
            removed: self.removed + other.removed,
        }
    }

    /// One of the instances has gone from one state to another.
    pub const fn shift(&mut self, old: TaskState, new: TaskState) {
        if let Some(count) = self.of(old) {
            *count -= 1;
        }
        if let Some(count) = self.of(new) {
            *count += 1;
        }
    }

    /// One more of them, in this state.
    pub const fn add(&mut self, state: TaskState) {
        self.total += 1;
        if let Some(count) = self.of(state) {
            *count += 1;
        }
    }

    /// The count of a finished state; null for the others, which nobody counts.
    pub const fn of(&mut self, state: TaskState) -> Option<&mut u32> {
        match state {
            TaskState::Success => Some(&mut self.success),
            TaskState::Failed => Some(&mut self.failed),
            TaskState::Skipped => Some(&mut self.skipped),
            TaskState::UpstreamFailed => Some(&mut self.upstream_failed),
            TaskState::Removed => Some(&mut self.removed),
            _ => None,
        }
    }
}

/// All that a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    pub rule: TriggerRule,
    /// -1 unless mapped.
    pub map_index: i32,
    /// The direct upstream instances.
    pub upstream: Counts,
    /// Those of them that are setups.
    pub upstream_setups: Counts,
    /// The relevant setups that are upstream but not directly. Empty for a teardown.
    pub indirect_setups: Counts,
    /// Of a teardown: unfinished instances between its setups and itself.
    pub unfinished_in_scope: u32,
}

impl Inputs {
    /// How many indirect setups have not succeeded. To a mapped instance a removed one is as good as none.
    pub const fn setups_pending(&self) -> u32 {
        let setups = &self.indirect_setups;
        let excused = if self.map_index >= 0 { setups.removed } else { 0 };
        setups.total.saturating_sub(setups.success + excused)
    }
}

/// What the rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Run,
    Wait(Unmet),
    /// It never runs: this is its state from now on.
    Mark(TaskState),
}

/// What an instance waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The rule over the direct upstream instances.
    Upstream,
    /// A setup further up.
    Setups,
    /// Of a teardown: the work between its setups and itself.
    Scope,
}

/// Applies the rule. A mark wins over everything else, and needs no other upstream to end where Airflow does not demand it.
pub fn evaluate(inputs: &Inputs) -> Decision {
    if inputs.upstream.total == 0 || inputs.rule == TriggerRule::Always {
        return Decision::Run;
    }
    if let Some(state) = setup_mark(inputs).or_else(|| mark(inputs)) {
        return Decision::Mark(state);
    }
    if inputs.setups_pending() > 0 {
        Decision::Wait(Unmet::Setups)
    } else if !is_met(inputs) {
        Decision::Wait(Unmet::Upstream)
    } else if inputs.unfinished_in_scope > 0 {
        Decision::Wait(Unmet::Scope)
    } else {
        Decision::Run
    }
}

/// The setup constraint is `all_success` over the indirect setups, for every rule but `always`.
fn setup_mark(inputs: &Inputs) -> Option<TaskState> {
    all_success_mark(&inputs.indirect_setups, inputs.map_index)
}

fn all_success_mark(of: &Counts, map_index: i32) -> Option<TaskState> {
    if of.failed + of.upstream_failed > 0 {
        Some(TaskState::UpstreamFailed)
    } else if of.skipped > 0 {
        Some(TaskState::Skipped)
    } else if of.removed > 0 && of.success > 0 && map_index >= 0 && map_index as u32 >= of.success {
        Some(TaskState::Removed)
    } else {
        None
    }
}

/// The side effects of the rules: Airflow's `flag_upstream_failed`, in its order.
fn mark(inputs: &Inputs) -> Option<TaskState> {
    use TaskState::{Skipped, UpstreamFailed};
    let up = &inputs.upstream;
    let setups = &inputs.upstream_setups;
    let failures = up.failed + up.upstream_failed;
    let all_done = up.done() >= up.total;
    // The first condition that holds names the state.
    let first = |marks: &[(bool, TaskState)]| marks.iter().find(|(holds, _)| *holds).map(|&(_, state)| state);
    match inputs.rule {
        TriggerRule::AllSuccess => all_success_mark(up, inputs.map_index),
        TriggerRule::AllFailed => first(&[(up.success + up.skipped > 0, Skipped)]),
        TriggerRule::OneSuccess => {
            first(&[(all_done && up.done() == up.skipped, Skipped), (all_done && up.success == 0, UpstreamFailed)])
        }
        TriggerRule::OneFailed => first(&[(all_done && failures == 0, Skipped)]),
        TriggerRule::OneDone => first(&[(all_done && up.success + up.failed == 0, Skipped)]),
        TriggerRule::NoneFailed => first(&[(failures > 0, UpstreamFailed)]),
        TriggerRule::NoneFailedMinOneSuccess => first(&[
            (failures > 0, UpstreamFailed),
            (up.skipped == up.total, Skipped),
            (all_done && up.success == 0, UpstreamFailed),
        ]),
        TriggerRule::NoneSkipped => first(&[(up.skipped > 0, Skipped)]),
        TriggerRule::AllSkipped => first(&[(up.success + failures > 0, Skipped)]),
        TriggerRule::AllDoneMinOneSuccess => first(&[
            (up.skipped > 0, Skipped),
            (up.success == 0 && up.success + failures + up.removed + up.skipped >= up.total, UpstreamFailed),
        ]),
        TriggerRule::AllDoneSetupSuccess => first(&[
            (all_done && setups.total > 0 && setups.skipped >= setups.total, Skipped),
            (all_done && setups.total > 0 && setups.success == 0, UpstreamFailed),
        ]),
        TriggerRule::AllDone | TriggerRule::Always => None,
    }
}

/// The column "runs iff" of SEMANTICS 3. Sums stand on both sides so that nothing goes below zero.
fn is_met(inputs: &Inputs) -> bool {
    let up = &inputs.upstream;
    let setups = &inputs.upstream_setups;
    let failures = up.failed + up.upstream_failed;
    let all_done = up.done() >= up.total;
    match inputs.rule {
        TriggerRule::AllSuccess => up.success + up.removed >= up.total,
        TriggerRule::AllFailed => failures + up.removed >= up.total,
        TriggerRule::AllDone => all_done,
        TriggerRule::OneSuccess => up.success > 0,
        TriggerRule::OneFailed => failures > 0,
        TriggerRule::OneDone => up.success + up.failed > 0,
        TriggerRule::NoneFailed => up.success + up.skipped + up.removed >= up.total,
        TriggerRule::NoneFailedMinOneSuccess => up.success + up.skipped + up.removed >= up.total && up.success > 0,
        TriggerRule::NoneSkipped => all_done && up.skipped == 0,
        TriggerRule::AllSkipped => up.skipped >= up.total,
        TriggerRule::AllDoneMinOneSuccess => {
            up.skipped == 0 && up.success + failures + up.removed >= up.total && up.success > 0
        }
        TriggerRule::AllDoneSetupSuccess => all_done && (setups.total == 0 || setups.success > 0),
        TriggerRule::Always => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `s`uccess, `f`ailed, s`k`ipped, `u`pstream_failed, `r`emoved, `.` unfinished.
    fn counts(letters: &str) -> Counts {
        let mut counts = Counts { total: letters.len() as u32, ..Counts::default() };
        for letter in letters.chars() {
            let state = match letter {
                's' => TaskState::Success,
                'f' => TaskState::Failed,
                'k' => TaskState::Skipped,
                'u' => TaskState::UpstreamFailed,
                'r' => TaskState::Removed,
                _ => TaskState::Running,
            };
            if let Some(count) = counts.of(state) {
                *count += 1;
            }
        }
        counts
    }

    fn inputs(rule: TriggerRule, upstream: &str) -> Inputs {
        Inputs {
            rule,
            map_index: -1,
            upstream: counts(upstream),
            upstream_setups: Counts::default(),
            indirect_setups: Counts::default(),
            unfinished_in_scope: 0,
        }
    }

    #[test]
    fn each_rule_decides_as_airflow_does() {
        use TaskState::{Skipped, UpstreamFailed};
        use TriggerRule as R;
        const RUN: Decision = Decision::Run;
        const WAIT: Decision = Decision::Wait(Unmet::Upstream);
        const SKIP: Decision = Decision::Mark(Skipped);
        const FAIL: Decision = Decision::Mark(UpstreamFailed);
        for (rule, upstream, expected) in [
            (R::AllSuccess, "", RUN),
            (R::AllSuccess, "s.", WAIT),
            (R::AllSuccess, "kf.", FAIL),
            (R::AllSuccess, "k.", SKIP),
            (R::AllSuccess, "rr", RUN),
            (R::AllFailed, "fur", RUN),
            (R::AllFailed, "k.", SKIP),
            (R::AllDone, "sfkur", RUN),
            (R::AllDone, "sf.", WAIT),
            (R::OneSuccess, "s.", RUN),
            (R::OneSuccess, "kk", SKIP),
            (R::OneSuccess, "kf", FAIL),
            (R::OneFailed, "u.", RUN),
            (R::OneFailed, "ss", SKIP),
            (R::OneDone, "u.", WAIT),
            (R::OneDone, "uk", SKIP),
            (R::OneDone, "f.", RUN),
            (R::NoneFailed, "skr", RUN),
            (R::NoneFailed, "f.", FAIL),
            (R::NoneFailedMinOneSuccess, "kr", FAIL),
            (R::NoneFailedMinOneSuccess, "kk", SKIP),
            (R::NoneFailedMinOneSuccess, "sk", RUN),
            (R::NoneSkipped, "k.", SKIP),
            (R::NoneSkipped, "sf", RUN),
            (R::AllSkipped, "kr", WAIT),
            (R::AllSkipped, "s.", SKIP),
            (R::AllSkipped, "kk", RUN),
            (R::AllDoneMinOneSuccess, "sfr", RUN),
            (R::AllDoneMinOneSuccess, "fr", FAIL),
            (R::AllDoneSetupSuccess, "fs", RUN),
            (R::AllDoneSetupSuccess, "f.", WAIT),
            (R::Always, "..", RUN),
        ] {
            assert_eq!(evaluate(&inputs(rule, upstream)), expected, "{rule} over `{upstream}`");
        }
    }

    #[test]
    fn a_mapped_instance_beyond_what_is_left_upstream_is_removed() {
        let at = |map_index| Inputs { map_index, ..inputs(TriggerRule::AllSuccess, "sr") };
        assert_eq!(evaluate(&at(0)), Decision::Run);
        assert_eq!(evaluate(&at(1)), Decision::Mark(TaskState::Removed));
    }

    #[test]
    fn an_indirect_setup_holds_every_rule_but_always() {
        let held = |rule, setup| Inputs { indirect_setups: counts(setup), ..inputs(rule, "s") };
        assert_eq!(evaluate(&held(TriggerRule::AllDone, ".")), Decision::Wait(Unmet::Setups));
        assert_eq!(evaluate(&held(TriggerRule::AllDone, "f")), Decision::Mark(TaskState::UpstreamFailed));
        assert_eq!(evaluate(&held(TriggerRule::AllDone, "k")), Decision::Mark(TaskState::Skipped));
        assert_eq!(evaluate(&held(TriggerRule::Always, "f")), Decision::Run);
    }

    #[test]
    fn a_teardown_follows_its_setups_and_waits_for_its_scope() {
        let teardown = |setups, unfinished_in_scope| Inputs {
            upstream_setups: counts(setups),
            unfinished_in_scope,
            ..inputs(TriggerRule::AllDoneSetupSuccess, "ff")
        };
        assert_eq!(evaluate(&teardown("s", 0)), Decision::Run);
        assert_eq!(evaluate(&teardown("s", 1)), Decision::Wait(Unmet::Scope));
        assert_eq!(evaluate(&teardown("k", 0)), Decision::Mark(TaskState::Skipped));
        assert_eq!(evaluate(&teardown("f", 0)), Decision::Mark(TaskState::UpstreamFailed));
    }
}
