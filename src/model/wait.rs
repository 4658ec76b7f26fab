//! What a deferred instance waits for: all that is needed to go on after a restart without rendering again.
//!
//! The database keeps it as JSON with a version; the scheduler, the triggerer and the workers hold the same shape.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::sensor::{Pace, SensorMode};

/// An instance that has no process and goes on when something is so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    pub awaited: Awaited,
    pub mode: SensorMode,
    /// When the clock of `timeout` began.
    pub since: Timestamp,
    /// After which it is given up for good; None: never.
    pub timeout: Option<Duration>,
    /// After which its try ends as one whose process takes too long, counted from the start of the try; None: never.
    pub execution_timeout: Option<Duration>,
    /// When it is given up it is skipped, and has not failed.
    pub soft_fail: bool,
    pub pace: Pace,
}

/// What must come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaited {
    /// The wall clock shows this instant, or a later one.
    Instant(Timestamp),
    /// A file that matches the absolute pattern and has not changed for `settle`.
    File { pattern: String, settle: Duration },
    /// A worker has looked, and looks again so long after this instant.
    Look { from: Timestamp, after: Duration },
}

impl Wait {
    /// As the database has it.
    ///
    /// # Panics
    /// Never: it has no map keys but texts.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&Stored::V1(self)).expect("a wait has no maps but those with text keys")
    }

    /// # Errors
    /// No minflow of this version wrote it.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let Stored::V1(wait) = serde_json::from_str(text)?;
        Ok(wait)
    }

    /// Shown as the instance's `reason`: fits after its state.
    pub fn words(&self) -> String {
        match &self.awaited {
            Awaited::Instant(at) => format!("waits until {at}"),
            Awaited::File { pattern, .. } => format!("waits for {pattern}"),
            Awaited::Look { from, after } => match from.checked_add(*after) {
                Ok(at) => format!("looks again at {at}"),
                Err(_) => "looks no more".to_owned(),
            },
        }
    }
}

/// A shape that changes gets another version, and the one before stays readable.
#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum Stored<W> {
    #[serde(rename = "1")]
    V1(W),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_the_same_after_it_was_stored() {
        let wait = Wait {
            awaited: Awaited::Instant("2026-11-21T06:00:00Z".parse().unwrap()),
            mode: SensorMode::Reschedule,
            since: "2026-11-20T23:59:59.000001Z".parse().unwrap(),
            timeout: Some(Duration::from_secs(604_800)),
            execution_timeout: None,
            soft_fail: true,
            pace: Pace { poke_interval: Duration::from_secs(60), is_exponential: true, max_wait: None },
        };
        let text = wait.to_json();
        assert!(text.starts_with("{\"version\":\"1\","), "{text}");
        assert_eq!(Wait::from_json(&text).unwrap(), wait);
        assert!(Wait::from_json(&text.replace("\"1\"", "\"2\"")).is_err(), "another version's");
    }
}
