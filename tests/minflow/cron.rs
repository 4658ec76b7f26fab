//! `minflow cron`: when an expression fires, without any home.

use serde_json::{Value, json};

use crate::harness::{Home, Ran};

fn cron(expression: &str, options: &str) -> Ran {
    let home = Home::new();
    let mut command = home.command("cron");
    let done = command.arg(expression).args(options.split_whitespace()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
}

#[test]
fn an_expression_is_put_into_words_and_its_fire_times_are_listed() {
    let ran = cron("0 6 * * mon-fri", "--tz Europe/Berlin --from 2026-07-03T06:00 -n 2");
    let expected = "\
at 06:00 on Monday to Friday, Europe/Berlin
local_time                     | utc                  | remark
===============================+======================+=======
Fri 2026-07-03 06:00:00 +02:00 | 2026-07-03 04:00:00Z |
Mon 2026-07-06 06:00:00 +02:00 | 2026-07-06 04:00:00Z |
";
    assert_eq!(ran.texts(), (Some(0), expected, ""));
}

#[test]
fn what_a_change_of_the_clocks_does_stands_beside_the_fire_time() {
    let remarks = |expression: &str, from: &str| -> Vec<String> {
        let ran = cron(expression, &format!("--tz Europe/Berlin --from {from} -n 3 -o plain"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.out.lines().skip(1).map(|line| line[4..].to_owned()).collect()
    };
    assert_eq!(
        remarks("30 2 * * *", "2026-03-28"),
        [
            "2026-03-28 02:30:00 +01:00  2026-03-28 01:30:00Z",
            "2026-03-29 03:30:00 +02:00  2026-03-29 01:30:00Z  02:30:00 does not exist, so it runs at 03:30:00",
            "2026-03-30 02:30:00 +02:00  2026-03-30 00:30:00Z",
        ]
    );
    assert_eq!(
        remarks("30 2 * * *", "2026-10-24"),
        [
            "2026-10-24 02:30:00 +02:00  2026-10-24 00:30:00Z",
            "2026-10-25 02:30:00 +01:00  2026-10-25 01:30:00Z  the second of two such times, of which one runs",
            "2026-10-26 02:30:00 +01:00  2026-10-26 01:30:00Z",
        ]
    );
    assert_eq!(
        remarks("0 * * * *", "2026-03-29T01:00"),
        [
            "2026-03-29 01:00:00 +01:00  2026-03-29 00:00:00Z",
            "2026-03-29 03:00:00 +02:00  2026-03-29 01:00:00Z  2026-03-29T02:00:00 is passed over by the clocks, and does not run",
            "2026-03-29 04:00:00 +02:00  2026-03-29 02:00:00Z",
        ]
    );
}

#[test]
fn programs_get_the_fire_times_as_json() {
    let ran = cron("30 2 * * *", "--tz America/New_York --from 2026-03-08T00:00Z -n 1 -o json");
    let expected = json!({
        "expression": "30 2 * * *",
        "description": "at 02:30 every day",
        "timezone": "America/New_York",
        "never_fires": false,
        "from": "2026-03-08T00:00:00.000000Z",
        "fire_times": [{
            "local": "2026-03-08T03:30:00-04:00",
            "utc": "2026-03-08T07:30:00.000000Z",
            "marks": [{
                "kind": "moved",
                "text": "02:30:00 does not exist, so it runs at 03:30:00",
                "named": "2026-03-08T02:30:00",
            }],
        }],
    });
    assert_eq!(ran.json(), expected);
}

#[test]
fn an_expression_that_never_fires_is_said_to() {
    let ran = cron("0 0 30 2 *", "");
    assert_eq!(ran.out, "at 00:00 on the 30th of the month in February, a date that never comes, UTC\n");
    assert!(ran.err.contains("never fires"), "{ran:?}");
    assert_eq!(ran.code, Some(0));
    let ran = cron("0 0 30 2 *", "-o json");
    assert_eq!((&ran.json()["never_fires"], &ran.json()["fire_times"]), (&Value::Bool(true), &json!([])));
    let ran = cron("0 0 1 1 * 0 2030", "--from 2029-01-01");
    assert_eq!(ran.out.lines().count(), 4);
    assert_eq!(ran.err, "it does not fire again within 50 years\n");
}

#[test]
fn a_mistake_is_shown_in_its_field_with_what_is_allowed_there() {
    let ran = cron("0 6 * * mon-fry", "");
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    let lines: Vec<&str> = ran.err.lines().collect();
    assert!(lines[0].starts_with("error: ") && lines[0].contains("`mon-fry`"), "{ran:?}");
    assert_eq!(lines[1..3], ["1 | 0 6 * * mon-fry", "  |         ^^^^^^^"]);
    assert!(lines[3].starts_with("help: the day of week is "), "{ran:?}");
}

#[test]
fn what_cannot_be_used_says_what_to_write() {
    let cases = [
        (cron("R * * * *", ""), "a random minute is not supported"),
        (cron("H * * * *", ""), "a hashed minute is not supported"),
        (cron("@once", ""), "has no fire times"),
        (cron("0 6 * * *", "--tz Europe/Berln"), "`Europe/Berlin`"),
        (cron("0 6 * * *", "--from tomorrow"), "write one as 2026-11-21"),
        (cron("0 6 * * *", "--from 1066-10-14"), "1970 to 2099"),
        (cron("0", "6 1 1 1"), "in quotes"),
        (cron("every 5 minutes", ""), "`schedule = { every = \"5m\" }`"),
        (cron("", ""), "the schedule is empty\nhelp: write "),
    ];
    for (ran, said) in cases {
        assert!(ran.code == Some(2) && ran.out.is_empty() && ran.err.contains(said), "{ran:?}");
    }
}

#[test]
fn without_a_zone_the_homes_is_taken() {
    let home = Home::new();
    home.write("airflow.toml", "[core]\ndefault_timezone = \"Asia/Tokyo\"\n");
    let ran = home.cli("cron @daily --from 2026-11-21 -n 1 -o plain");
    assert_eq!(ran.out.lines().last(), Some("Sat 2026-11-21 00:00:00 +09:00  2026-11-20 15:00:00Z"), "{ran:?}");
    home.write("airflow.toml", "[core\n");
    let ran = home.cli("cron @daily --from 2026-11-21 -n 1 -o plain");
    assert_eq!(ran.out.lines().last(), Some("Sat 2026-11-21 00:00:00 +00:00  2026-11-21 00:00:00Z"), "{ran:?}");
    assert!(ran.err.contains("the time zone is taken to be UTC"), "{ran:?}");
    assert_eq!(home.cli("cron @daily --home nowhere").code, Some(1));
}

/// A zone file (RFC 9636) of a zone that is always UTC.
fn zone_file() -> Vec<u8> {
    // No leap seconds and no changes, one type of time, four bytes of names.
    let header = [&b"TZif2"[..], &[0; 15], &[0; 16], &[0, 0, 0, 1, 0, 0, 0, 4]].concat();
    let block = [&header[..], &[0; 6], b"UTC\0"].concat();
    [&block[..], &block, b"\nUTC0\n"].concat()
}

#[test]
fn a_host_whose_zone_files_lack_a_zone_takes_it_from_the_binary() {
    let home = Home::new();
    home.write("zoneinfo/Etc/Alone", zone_file());
    let first = |zone: &str| {
        let mut command = home.command("cron -o plain -n 1 --from 2026-10-24T12:00Z --tz");
        let done = command.env("TZDIR", home.file("zoneinfo")).args([zone, "30 2 * * *"]).output().unwrap();
        assert!(done.status.success(), "{zone}: {done:?}");
        String::from_utf8(done.stdout).unwrap().lines().nth(1).unwrap().to_owned()
    };
    // That the host's files are these is seen by a zone that nobody else has.
    assert!(first("Etc/Alone").starts_with("Sun 2026-10-25 02:30:00 +00:00"), "{}", first("Etc/Alone"));
    assert!(first("Europe/Berlin").starts_with("Sun 2026-10-25 02:30:00 +01:00"), "{}", first("Europe/Berlin"));
}
