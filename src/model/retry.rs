//! What a task says about its failed tries: `retry_on` and the backoff of its delay.

use std::time::Duration;

use regex_lite::{Error, Regex, RegexBuilder};

/// The largest program that a pattern may become, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 16;

/// How much of the last output patterns see, in bytes, whose programs have [`PROGRAM_BYTES`] together.
const SEEN_BYTES: usize = 1 << 16;

/// Matching costs programs times text in the worst case: with larger programs less text is looked at, so that no pattern holds its
/// thread for longer than a fraction of a second.
const PROGRAM_BYTES: usize = 1 << 14;

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
    /// Its `limits.memory`.
    OutOfMemory,
}

/// Compiles a pattern of `retry_on`: `^` and `$` are the ends of a line.
///
/// # Errors
/// It is no regular expression, or too large a one.
pub fn output_pattern(text: &str) -> Result<Regex, Error> {
    RegexBuilder::new(text).multi_line(true).size_limit(MAX_PATTERN_BYTES).build()
}

/// The patterns of `rules` that the end of `output` matches, in their order: of its last 64 KiB, or of less if the patterns are
/// large together.
pub fn matched(rules: &[RetryRule], output: &str) -> Vec<String> {
    let patterns: Vec<&String> = rules.iter().filter_map(|rule| rule.output.as_ref()).collect();
    let programs: usize = patterns.iter().map(|pattern| program_bytes(pattern)).sum();
    let seen = tail(output, SEEN_BYTES / programs.div_ceil(PROGRAM_BYTES).max(1));
    let is_match = |pattern: &String| output_pattern(pattern).is_ok_and(|regex| regex.is_match(seen));
    patterns.into_iter().filter(|pattern| is_match(pattern)).cloned().collect()
}

/// About what the program of a pattern takes: the least power of two that it fits into.
fn program_bytes(pattern: &str) -> usize {
    let fits = |limit: &usize| RegexBuilder::new(pattern).multi_line(true).size_limit(*limit).build().is_ok();
    std::iter::successors(Some(512), |limit| Some(limit * 2))
        .take_while(|&limit| limit <= MAX_PATTERN_BYTES)
        .find(fits)
        .unwrap_or(0)
}

/// The last `most` bytes, less what is left of a character or a line at their beginning.
fn tail(text: &str, most: usize) -> &str {
    let Some(cut) = text.len().checked_sub(most) else { return text };
    let start = (cut..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    if text[..start].is_empty() || text[..start].ends_with('\n') {
        return &text[start..];
    }
    text[start..].split_once('\n').map_or(&text[start..], |(_, lines)| lines)
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

    fn rule(output: &str) -> RetryRule {
        RetryRule { ended: None, output: Some(output.to_owned()), retries: Some(1), retry_delay: None }
    }

    #[test]
    fn patterns_that_are_large_together_see_less_of_the_output() {
        let output = format!("reset\n{}refused\n", "some line\n".repeat(6_000));
        let usual = [rule("^reset$"), rule("timed out"), rule("^refused$")];
        assert_eq!(matched(&usual, &output), ["^reset$", "^refused$"]);
        let large = [rule("^reset$"), rule("(a?){300}b"), rule("^refused$")];
        assert_eq!(matched(&large, &output), ["^refused$"]);
    }

    #[test]
    fn what_is_seen_begins_with_a_character_and_a_line() {
        assert_eq!(tail("one\ntwo\nthree", 20), "one\ntwo\nthree");
        assert_eq!(tail("one\ntwo\nthree", 9), "two\nthree");
        assert_eq!(tail("one\ntwo\nthree", 8), "three");
        assert_eq!(tail("aü", 1), "");
        assert_eq!(tail("a long line", 4), "line");
    }
}
