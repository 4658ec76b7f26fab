//! Instants and runs as people type them: `2026-11-21`, `2026-11-21T06:00`, with or without an offset, or a run_id.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::cli::Failure;
use crate::clock::to_micros;

/// The instant that `text` names; without an offset it is in `zone` (Airflow: `core.default_timezone`). None: it is no instant.
pub fn parse(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    // Only what begins like a date: jiff also reads run ids' tails and other forms that a user does not mean as one.
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let local = |local: DateTime| local.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp());
    let instant =
        text.parse::<Timestamp>().ok().or_else(|| text.parse::<DateTime>().ok().and_then(local)).or_else(|| {
            text.parse::<Date>().ok().and_then(|date| local(date.to_datetime(jiff::civil::Time::midnight())))
        });
    instant.map(to_micros)
}

/// What to say of a text that [`parse`] does not read.
pub fn no_instant(text: &str) -> Failure {
    Failure::Usage {
        message: format!("`{text}` is no date"),
        help: "write one as 2026-11-21, 2026-11-21T06:00 or 2026-11-21T06:00:00+01:00".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        parse(text, &TimeZone::get("Europe/Berlin").unwrap()).map(|instant| instant.to_string())
    }

    #[test]
    fn without_an_offset_an_instant_is_in_the_default_zone() {
        assert_eq!(read("2026-11-21").as_deref(), Some("2026-11-20T23:00:00Z"));
        assert_eq!(read("2026-11-21T06:00").as_deref(), Some("2026-11-21T05:00:00Z"));
        assert_eq!(read("2026-11-21 06:00:00.5").as_deref(), Some("2026-11-21T05:00:00.5Z"));
    }

    #[test]
    fn an_offset_wins_over_the_default_zone() {
        assert_eq!(read("2026-11-21T06:00:00+00:00").as_deref(), Some("2026-11-21T06:00:00Z"));
        assert_eq!(read("2026-11-21T06:00:00Z").as_deref(), Some("2026-11-21T06:00:00Z"));
    }

    #[test]
    fn a_run_id_is_no_instant() {
        assert_eq!(read("manual__2026-11-21T06:00:00+00:00"), None);
        assert_eq!(read("yesterday"), None);
        assert_eq!(read("2026-13-01"), None);
    }
}
