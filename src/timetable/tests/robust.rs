//! Whatever stands in a schedule, the answer comes, and soon.

use super::dice::Dice;
use super::*;

const DICE: u64 = 4_000;

#[test]
fn noise_is_refused_or_understood_and_never_breaks_the_parser_or_the_search() {
    let mut understood = 0;
    for seed in 0..DICE {
        let mut dice = Dice::new(seed);
        let text = match dice.between(0, 2) {
            0 => dice.noise(),
            1 => dice.nearly(),
            _ => dice.expression(),
        };
        match Cron::parse(&text) {
            Ok(cron) => {
                understood += 1;
                let from = dice.instant();
                let (next, prev) = (cron.next(from, &TimeZone::UTC), cron.prev(from, &TimeZone::UTC));
                assert!(next.is_none_or(|next| next > from) && prev.is_none_or(|prev| prev < from), "{text:?}");
                assert!(!cron.words().is_empty());
            }
            Err(fault) => {
                assert!(text.get(fault.range.clone()).is_some(), "{text:?}: {:?} is no part of it", fault.range);
                assert!(!fault.message.is_empty() && !fault.help.is_empty(), "{text:?}");
            }
        }
    }
    assert!(understood > DICE / 3, "only {understood} were understood");
}

#[test]
fn bytes_that_are_no_ascii_are_refused_by_name() {
    for text in
        ["é * * * *", "* * * * mön", "\u{661} * * * *", "*\u{a0}* * * *", "\u{3000}", "W\u{301} * * * *", "0 0 é#1 * *"]
    {
        assert!(Cron::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn the_ends_of_the_calendar_are_the_ends_of_the_search() {
    let mut dice = Dice::new(7);
    for _ in 0..500 {
        let text = dice.expression();
        let cron = Cron::parse(&text).unwrap();
        for zone_name in ["UTC", "Pacific/Apia", "America/New_York"] {
            let zone = zone(zone_name);
            assert!(cron.next(Timestamp::MAX, &zone).is_none(), "{text}");
            assert!(cron.prev(Timestamp::MIN, &zone).is_none(), "{text}");
            cron.align_next(Timestamp::MIN, &zone);
            cron.align_prev(Timestamp::MAX, &zone);
        }
    }
}

#[test]
fn a_field_of_a_thousand_items_is_read_and_one_of_ten_thousand_refused() {
    let many = vec!["59"; 1_000].join(",");
    let cron = Cron::parse(&format!("{many} * * * *")).unwrap();
    assert_eq!(cron, Cron::parse("59 * * * *").unwrap());
    let fault = Cron::parse(&format!("{} * * * *", [&*many; 10].join(","))).unwrap_err();
    assert!(fault.message.contains("at most 4096 bytes"), "{}", fault.message);
}
