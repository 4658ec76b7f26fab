//! How a try ended, as the last line of its log tells it.

use jiff::Timestamp;

use crate::model::SkipDecision;
use crate::scheduler::event::{Outcome, TryEnd};

pub fn farewell(end: &TryEnd) -> String {
    let took = end.started_at.map_or_else(String::new, |started_at: Timestamp| {
        format!(" after {:.3} s", end.ended_at.duration_since(started_at).as_secs_f64())
    });
    match &end.outcome {
        Outcome::Exited(code) => format!("ended with exit code {code}{took}{}", consequence(end.decision.as_ref())),
        Outcome::Signaled(signal) => format!("ended by signal {signal}{took}"),
        Outcome::TimedOut => format!("ended at its execution_timeout{took}"),
        Outcome::Exceeded { limit, exit_code: Some(code), .. } => format!("ended {limit}, with exit code {code}{took}"),
        Outcome::Exceeded { limit, .. } => format!("ended {limit}{took}"),
        Outcome::Killed { reason } => format!("ended by minflow ({reason}){took}"),
        Outcome::Faulted { reason } => format!("failed: {reason}"),
        Outcome::Asks(request) => format!("asks for a run of {}{took}", request.dag_id),
        Outcome::Skipped { reason } => format!("skipped: {reason}"),
        Outcome::GivenUp { reason } => format!("failed for good: {reason}"),
        Outcome::Deferred(wait) => wait.words(),
        Outcome::Unstarted { reason } => format!("not started, waits: {reason}"),
        Outcome::NeverBegun => "not started: minflow ended before it began".to_owned(),
        Outcome::Lost => "lost: the supervisor ended before this try did".to_owned(),
    }
}

/// What a decision means for the tasks after it, as the log tells it.
fn consequence(decision: Option<&SkipDecision>) -> String {
    const MAX_NAMED: usize = 20;
    let (words, ids) = match decision {
        None => return String::new(),
        Some(SkipDecision::Followed(ids)) => ("of the tasks directly after it run", ids),
        Some(SkipDecision::Skipped(ids)) => ("skipped are", ids),
    };
    let named: Vec<&str> = ids.iter().take(MAX_NAMED).map(|id| id.as_str()).collect();
    match ids.len() {
        0 => format!("; {words} none"),
        count @ ..=MAX_NAMED => format!("; {words} {count}: {}", named.join(", ")),
        count => format!("; {words} {count}: {}, …", named.join(", ")),
    }
}
