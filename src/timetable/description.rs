//! What a schedule's summary means, in English words.
//!
//! Knows the texts that [`Timetable::summary`](super::Timetable::summary) gives, so that a list of DAGs needs nothing else.

use super::Cron;

/// A summary in words, in the wall time of the schedule's zone; as it is if it is in words already.
pub fn describe(summary: &str) -> String {
    match summary {
        "@once" => return "once, as soon as it is seen".to_owned(),
        "@continuous" => return "again as soon as the run before is over".to_owned(),
        _ => {}
    }
    if let Some(period) = summary.strip_prefix("every ").and_then(period) {
        return format!("every {period}");
    }
    // No expression has a blank after a comma.
    let crons: Result<Vec<Cron>, _> = summary.split(", ").map(Cron::parse).collect();
    match crons {
        Ok(crons) => crons.iter().map(Cron::words).collect::<Vec<_>>().join("; and "),
        Err(_) => summary.to_owned(),
    }
}

/// `1h30m` as `1 hour 30 minutes`, `1mo` as `month`.
fn period(text: &str) -> Option<String> {
    const UNITS: [(&str, &str); 6] =
        [("y", "year"), ("mo", "month"), ("d", "day"), ("h", "hour"), ("m", "minute"), ("s", "second")];
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|&at| at > 0)?;
        let (count, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (_, name) = UNITS.iter().find(|(unit, _)| *unit == &tail[..end])?;
        parts.push(if count == "1" { format!("1 {name}") } else { format!("{count} {name}s") });
        rest = &tail[end..];
    }
    match parts.as_slice() {
        [only] => Some(only.strip_prefix("1 ").unwrap_or(only).to_owned()),
        _ => Some(parts.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_schedule_is_described() {
        let cases = [
            ("0 6 * * mon-fri", "at 06:00 on Monday to Friday"),
            ("0 6,7 * * *, @weekly", "at 06:00 and 07:00 every day; and at 00:00 on Sunday"),
            ("@once", "once, as soon as it is seen"),
            ("@continuous", "again as soon as the run before is over"),
            ("every 1h30m", "every 1 hour 30 minutes"),
            ("every 10m", "every 10 minutes"),
            ("every 1mo", "every month"),
            ("every 1y2mo5s", "every 1 year 2 months 5 seconds"),
            ("every so often", "every so often"),
            ("3 events", "3 events"),
        ];
        for (summary, words) in cases {
            assert_eq!(describe(summary), words, "{summary}");
        }
    }
}
