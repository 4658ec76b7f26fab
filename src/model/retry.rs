//! What a task says about its failed tries: `retry_on` and the backoff of its delay.

use std::time::Duration;

use regex_lite::{Error, Regex, RegexBuilder};

/// The largest program that a pattern may become, in bytes: it bounds what matching 64 KiB of output costs.
const MAX_PATTERN_BYTES: usize = 1 << 16;

/// One rule of `retry_on`. All of its conditions must hold, and it has at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryRule {
    /// None: however it ended.
    pub ended: Option<EndedBy>,
    /// A regular expression that the last output matches, as [`output_pattern`] reads it.
    pub output: Option<String>,
    /// In place of the task's own.
    pub retries: Option<u32>,
    /// In place of the task's own, and then without backoff (Airflow: the delay of a retry policy).
    pub retry_delay: Option<Duration>,
}

/// How a try failed, as a rule can name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// One of these.
    ExitCode(Vec<i32>),
    /// A signal's number that minflow did not send.
    Signal(i32),
    /// Its `execution_timeout`.
    Timeout,
}

/// Compiles a pattern of `retry_on`: `^` and `$` are the ends of a line.
///
/// # Errors
/// It is no regular expression, or too large a one.
pub fn output_pattern(text: &str) -> Result<Regex, Error> {
    RegexBuilder::new(text).multi_line(true).size_limit(MAX_PATTERN_BYTES).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_sees_lines_and_cannot_grow_without_bound() {
        let pattern = output_pattern("^curl: .*(timed out|reset)$").unwrap();
        assert!(pattern.is_match("start\ncurl: (28) connection timed out\nbye\n"));
        assert!(!pattern.is_match("said curl: (28) connection timed out\n"));
        assert!(output_pattern("(oops").is_err());
        assert!(output_pattern("((a{1000}){1000}){1000}").is_err());
    }
}
