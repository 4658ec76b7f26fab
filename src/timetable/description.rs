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
    // No expression has a blank after a comma.
    let crons: Result<Vec<Cron>, _> = summary.split(", ").map(Cron::parse).collect();
    match crons {
        Ok(crons) => crons.iter().map(Cron::words).collect::<Vec<_>>().join("; and "),
        Err(_) => summary.to_owned(),
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
            ("every 1h30m", "every 1h30m"),
            ("3 events", "3 events"),
        ];
        for (summary, words) in cases {
            assert_eq!(describe(summary), words, "{summary}");
        }
    }
}
