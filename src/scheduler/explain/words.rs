//! A finding in one line, as commands, pages and the log show it.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::scheduler::explain::{Finding, Holder};

/// How many holders a line names.
const MAX_NAMED: usize = 3;

impl Finding {
    /// The sentence with its holders and instants, these in `zone`:
    /// "pool `db` 3/3; held by etl.load since 04:12:07, which usually ends at 04:13:10; should clear at 04:13:10".
    pub fn line(&self, now: Timestamp, zone: &TimeZone) -> String {
        let mut line = self.message.clone();
        let named = self.held_by.iter().take(MAX_NAMED).map(|holder| holder.words(now, zone));
        let named: Vec<String> = named.collect();
        if !named.is_empty() {
            let more = self.held_by.len() - named.len() + self.more_holders as usize;
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let _ = write!(line, "; held by {}{more}", named.join(", "));
        }
        if let Some(until) = self.until {
            let word = if self.is_expected { "should clear" } else { "until" };
            let _ = write!(line, "; {word} {}", at(until, now, zone));
        }
        line
    }
}

impl Holder {
    fn words(&self, now: Timestamp, zone: &TimeZone) -> String {
        let mut words = match &self.task_id {
            Some(task_id) => format!("{}.{task_id}", self.dag_id),
            None => self.run_id.to_string(),
        };
        if self.map_index >= 0 {
            let _ = write!(words, "[{}]", self.map_index);
        }
        match self.since {
            Some(since) => _ = write!(words, " since {}", at(since, now, zone)),
            None => _ = write!(words, " ({})", self.state),
        }
        if let Some(end) = self.expected_end {
            let _ = write!(words, ", typically ends in {}", seconds(end, now));
        }
        words
    }
}

/// Today's instants by their time alone.
fn at(instant: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (then, today) = (instant.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let pattern = if then.date() == today.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    then.strftime(pattern).to_string()
}

/// How far ahead, in the unit that suits it.
fn seconds(until: Timestamp, now: Timestamp) -> String {
    let seconds = until.duration_since(now).as_secs_f64().ceil() as i64;
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", (seconds + 59) / 60),
        _ => format!("{} h", (seconds + 3_599) / 3_600),
    }
}
