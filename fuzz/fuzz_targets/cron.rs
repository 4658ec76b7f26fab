//! The cron parser and the search: any text, from any instant, in zones whose clocks change oddly.
//!
//! `cargo +nightly fuzz run cron`. The first eight bytes are the instant, the ninth the zone, the rest the text.

#![no_main]

use jiff::Timestamp;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use minflow::timetable::Cron;

const ZONES: [&str; 5] = ["UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"];

fuzz_target!(|data: &[u8]| {
    let Some((seconds, rest)) = data.split_first_chunk::<8>() else { return };
    let Some((zone, text)) = rest.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let cron = match Cron::parse(text) {
        Ok(cron) => cron,
        Err(fault) => {
            assert!(text.get(fault.range).is_some());
            return;
        }
    };
    let zone = TimeZone::get(ZONES[usize::from(*zone) % ZONES.len()]).expect("the bundled database has it");
    let seconds = i64::from_le_bytes(*seconds) % 250_000_000_000;
    let Ok(from) = Timestamp::from_second(seconds) else { return };
    if let Some(next) = cron.next(from, &zone) {
        assert!(next > from);
        assert!(!cron.is_never());
        cron.align_prev(next, &zone);
    }
    if let Some(prev) = cron.prev(from, &zone) {
        cron.align_next(prev, &zone);
    }
    cron.marks_after(from, &zone);
    assert!(!cron.words().is_empty());
    assert!(cron.normalized().iter().all(|field| !field.is_empty()));
});
