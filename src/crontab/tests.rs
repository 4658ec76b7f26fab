//! Whole crontabs: what becomes of each line, and that the DAG files say what the lines said.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::dagfile::{self, Defaults};
use crate::model::{DagRun, RunKey, RunType, Script, TaskIx, Template};
use crate::template::{self, Context, NoFiles, NoLookup, UndefinedKind};
use crate::timetable::Cron;

fn read_as(text: &str, form: Form, path: &str) -> Crontab {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    read(&Given {
        path: Path::new(path),
        text,
        form,
        user: "anna",
        home: Some("/home/anna"),
        zone: ("Europe/Berlin", &zone),
        prefix: "",
    })
}

fn user(text: &str) -> Crontab {
    read_as(text, Form::User, "crontab")
}

fn job(text: &str) -> Job {
    let mut found = user(text);
    assert_eq!((found.refused.as_slice(), found.jobs.len()), (&[][..], 1), "{text}");
    found.jobs.remove(0)
}

/// The place and the kind of each fault.
fn refused(text: &str) -> Vec<(u32, u32, &'static str)> {
    let found = user(text);
    found.refused.iter().map(|fault| (fault.line, fault.column, fault.code)).collect()
}

/// The script, the folder and the environment of a job's DAG file, as a worker renders them.
fn rendered(job: &Job) -> (String, String, BTreeMap<String, String>) {
    let text = job.to_toml("a crontab");
    let path = PathBuf::from(format!("{}.toml", job.dag_id));
    let dag = match dagfile::parse(&path, text.as_bytes(), &Defaults::default()) {
        Ok(dag) => dag,
        Err(faults) => panic!("{}\n{text}", faults[0]),
    };
    assert_eq!(template::check(&dag, &path, &text), [], "{text}");
    assert_eq!((&*dag.dag_id, dag.tasks.len()), (&*job.dag_id, 1));
    let task = dag.tasks[0].clone();
    let at = "2026-11-21T00:00:00Z".parse().unwrap();
    let run = DagRun::new(RunKey(1), dag.dag_id.clone(), "manual__1".into(), RunType::Manual, at);
    let context = Context {
        dag: Arc::new(dag),
        file: "dags/x.toml".into(),
        task: TaskIx(0),
        run: Arc::new(run),
        try_number: 1,
        max_tries: 1,
        map_index: -1,
        run_dir: PathBuf::from("/run"),
        host: "".into(),
        variables: Arc::default(),
        overrides_params: true,
        environment: Arc::new(|_| None),
        now: at,
        lookup: Arc::new(NoLookup),
        files: Arc::new(NoFiles),
        additions: Arc::default(),
        undefined: UndefinedKind::Strict,
    };
    let render = |text: &Template| template::render(text, &context).unwrap();
    let Some(Script::Text(script)) = task.operator.bash().map(|bash| bash.script.clone()) else { panic!() };
    let env = task.env.iter().map(|(name, value)| (name.clone(), render(value))).collect();
    (template::render_script(&script, &context).unwrap(), render(task.cwd.as_ref().unwrap()), env)
}

#[test]
fn a_line_becomes_a_dag_file() {
    let text = "MAILTO=ops@example.com\n# The nightly dump\n30 2 * * 1-5 /opt/dump.sh '{{x}}' > /dev/null\n";
    assert_eq!(
        job(text).to_toml("crontab"),
        r##"# From line 3 of crontab:
#   30 2 * * 1-5 /opt/dump.sh '{{x}}' > /dev/null
# cron mails what it prints to ops@example.com. minflow keeps it: `minflow tasks logs dump`. For a mail when it fails, see `[notifiers.NAME]` and `[defaults]` in docs/configuration.md.

description = "The nightly dump"
schedule = "30 2 * * 1-5"
timezone = "Europe/Berlin"
catchup = false

[tasks.dump]
bash = "/opt/dump.sh '{{ '{{' }}x}}' > /dev/null"
cwd = "/home/anna"
retries = 0
skip_on_exit_code = false    # to cron, 99 is an exit code like any other

# What cron gives to the job; all else is as minflow was started with.
[tasks.dump.env]
HOME = "/home/anna"
MAILTO = "ops@example.com"
PATH = "/usr/bin:/bin"    # cron's own, as the crontab sets none
SHELL = "/bin/sh"
"##
    );
}

#[test]
fn assignments_hold_for_the_lines_below_them() {
    let text =
        "0 1 * * * a\nPATH=/opt/bin\nHOME=/srv\nLOGNAME=root\n0 2 * * * b\nPATH=/x\nCRON_TZ=Asia/Tokyo\n0 3 * * * c\n";
    let found = user(text);
    let told: Vec<_> = found
        .jobs
        .iter()
        .map(|job| (job.line, &*job.env["PATH"], &*job.env["HOME"], &*job.timezone, job.env.contains_key("LOGNAME")))
        .collect();
    let berlin = "Europe/Berlin";
    assert_eq!(
        told,
        [
            (1, "/usr/bin:/bin", "/home/anna", berlin, false),
            (5, "/opt/bin", "/srv", berlin, false),
            (8, "/x", "/srv", "Asia/Tokyo", false),
        ]
    );
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_place() {
    for (text, fault) in [
        ("0 5 * *\n", (1, 1, "no-command")),
        ("\n0 5 * * *\n", (2, 1, "no-command")),
        ("* * * * * * x\n", (1, 11, "six-fields")),
        ("0 0 12 * * 5 x\n", (1, 12, "six-fields")),
        ("5/10 * * * * x\n", (1, 1, "bad-time")),
        ("0~30 * * * * x\n", (1, 1, "bad-time")),
        ("0 22-3 * * * x\n", (1, 3, "bad-time")),
        ("0 0 L * * x\n", (1, 5, "bad-time")),
        ("0 0 * * 8 x\n", (1, 9, "bad-time")),
        ("0 0 1,,2 * * x\n", (1, 7, "bad-time")),
        ("*/0 * * * * x\n", (1, 1, "bad-time")),
        ("@dayly x\n", (1, 1, "bad-time")),
        ("@daily\n", (1, 1, "no-command")),
        ("0 0 */2 * 1 x\n", (1, 1, "both-days")),
        ("0 0 1 * * x &\n", (1, 11, "background")),
        ("0 0 1 * * x &> y\n", (1, 11, "doubtful-redirection")),
        ("RANDOM_DELAY=10\n0 0 1 * * x\n", (2, 1, "random-delay")),
        ("CRON_TZ=Mars/Olympus\n", (1, 1, "unknown-time-zone")),
        ("0 0 1 * * x\r\n", (1, 12, "carriage-return")),
        ("0 0 1 * * \u{fffd}\n", (1, 11, "not-utf-8")),
        ("SHELL=zsh\n0 0 1 * * x\n", (2, 11, "bad-shell")),
        ("HOME=~\n", (1, 1, "relative-home")),
        ("START_HOURS_RANGE=3-22\n1 5 cron.daily run-parts\n", (0, 0, "anacrontab")),
    ] {
        assert_eq!(refused(text), [fault], "{text}");
        assert!(user(text).refused.iter().all(|fault| !fault.help.is_empty()));
    }
}

#[test]
fn what_a_refused_assignment_sets_refuses_the_lines_below_it() {
    for (assignment, code) in [("HOME=~", "relative-home"), ("CRON_TZ=Mars/Olympus", "unknown-time-zone")] {
        let faults = refused(&format!("{assignment}\n0 5 * * * x\n"));
        assert_eq!(faults, [(1, 1, code), (2, 11, code)]);
    }
}

#[test]
fn a_systems_crontab_has_users() {
    let found = read_as("0 5 * * * anna x\n0 6 * * * root y\n@daily anna\n", Form::System, "/etc/crontab");
    assert_eq!(found.jobs.iter().map(|job| (job.line, &*job.command.text)).collect::<Vec<_>>(), [(1, "x")]);
    let faults: Vec<_> = found.refused.iter().map(|fault| (fault.line, fault.column, fault.code)).collect();
    assert_eq!(faults, [(2, 11, "other-user"), (3, 1, "no-command")]);
}

#[test]
fn a_line_for_the_start_of_the_host_is_neither_a_job_nor_a_fault() {
    let found = user("@reboot /opt/start.sh\n");
    assert_eq!(found.reboots, [Reboot { line: 1, command: "/opt/start.sh".to_owned() }]);
    assert!(found.jobs.is_empty() && found.refused.is_empty());
}

#[test]
fn a_schedule_is_kept_as_written_unless_minflow_reads_it_otherwise() {
    for (written, text, is_rewritten) in [
        ("*/5 9-17 * * mon-fri", "*/5 9-17 * * mon-fri", false),
        ("0  0\t* * 7", "0 0 * * 7", false),
        ("@midnight", "@midnight", false),
        ("0 0 */2 * *", "0 0 */2 * *", false),
        ("0 0 1,15 * 5", "0 0 1,15 * 5", false),
        // croniter takes a range of equal ends for the whole field.
        ("5-5 * * * *", "5 * * * *", true),
        ("0 0 * * 7-7", "0 0 * * 0", true),
        // `*` inside a list is none at its beginning.
        ("0 0 1,* * 1", "0 0 * * *", true),
        ("0 0 */1 * 1", "0 0 * * 1", true),
    ] {
        let schedule = job(&format!("{written} x\n")).schedule;
        assert_eq!((&*schedule.text, schedule.is_rewritten), (text, is_rewritten), "{written}");
    }
}

#[test]
fn only_words_right_above_a_line_describe_it() {
    for (comments, description) in [
        ("# a\n# b\n", Some("a b")),
        ("# a\n\n", None),
        ("# m h dom mon dow command\n", None),
        ("#0 5 * * * old\n", None),
        ("# a\nA=b\n", None),
        ("# a\n# b\n# c\n# d\n", None),
        ("# --- Backups ---\n", Some("Backups")),
    ] {
        assert_eq!(job(&format!("{comments}0 5 * * * x\n")).comment.as_deref(), description, "{comments}");
    }
}

/// cron's starts from `from` on, in the wall time of `zone`.
fn starts(line: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let given = TimeZone::get(zone).unwrap();
    let mut fields = line.split(' ').map(|field| (field, 0));
    let when = When::of_fields([(); 5].map(|()| fields.next().unwrap())).unwrap();
    let clocks = Clocks { host: given.clone(), own: None };
    let from: Timestamp = from.parse().unwrap();
    let fires = when.fires(&clocks, from, "2099-01-01T00:00:00Z".parse().unwrap(), count);
    fires.iter().map(|at| at.to_zoned(given.clone()).strftime("%d. %H:%M %:z").to_string()).collect()
}

#[test]
fn cron_runs_after_a_gap_what_was_skipped_and_not_twice_what_comes_twice() {
    let berlin = |line, from, count| starts(line, "Europe/Berlin", from, count);
    let (gap, fold) = ("2026-03-28T22:00:00Z", "2026-10-24T22:00:00Z");
    assert_eq!(berlin("30 2 * * *", gap, 2), ["29. 03:00 +02:00", "30. 02:30 +02:00"]);
    assert_eq!(berlin("0,30 2 * * *", gap, 3), ["29. 03:00 +02:00", "29. 03:00 +02:00", "30. 02:00 +02:00"]);
    assert_eq!(berlin("*/30 2 * * *", gap, 1), ["30. 02:00 +02:00"]);
    assert_eq!(berlin("0 3 * * *", gap, 2), ["29. 03:00 +02:00", "30. 03:00 +02:00"]);
    assert_eq!(berlin("30 2 * * *", fold, 2), ["25. 02:30 +02:00", "26. 02:30 +01:00"]);
    assert_eq!(
        berlin("*/30 2 * * *", fold, 4),
        ["25. 02:00 +02:00", "25. 02:30 +02:00", "25. 02:00 +01:00", "25. 02:30 +01:00"]
    );
    // The summer time of this island is half an hour.
    assert_eq!(starts("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T13:00:00Z", 1), ["04. 02:30 +11:00"]);
}

#[test]
fn a_line_with_a_zone_of_its_own_goes_by_that_clock_but_for_the_hosts_second_hour() {
    let zone = |name| TimeZone::get(name).unwrap();
    let clocks = Clocks { host: zone("Europe/Berlin"), own: Some(zone("UTC")) };
    let when = When::of_fields(["30", "1", "*", "*", "*"].map(|field| (field, 0))).unwrap();
    let fires = |from: &str| {
        let from: Timestamp = from.parse().unwrap();
        when.fires(&clocks, from, "2030-01-01T00:00:00Z".parse().unwrap(), 1)[0].to_string()
    };
    assert_eq!(fires("2026-03-29T00:00:00Z"), "2026-03-29T01:30:00Z");
    assert_eq!(fires("2026-10-25T00:00:00Z"), "2026-10-26T01:30:00Z", "at 01:30 Berlin's clock repeats an hour");
}

#[test]
fn a_date_that_no_year_has_never_fires() {
    assert_eq!(starts("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z", 1), [""; 0]);
    assert_eq!(starts("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["29. 00:00 +00:00"]);
}

/// One field as people write it.
fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    let item = prop_oneof![
        3 => (low..=high).prop_map(|a| a.to_string()),
        2 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (low..=high, low..=high, 1u32..9).prop_map(|(a, b, n)| format!("{}-{}/{n}", a.min(b), a.max(b))),
        1 => (1u32..12).prop_map(|n| format!("*/{n}")),
        1 => Just("*".to_owned()),
    ];
    prop_oneof![2 => Just("*".to_owned()), 3 => proptest::collection::vec(item, 1..4).prop_map(|items| items.join(","))]
}

fn fields() -> impl Strategy<Value = [String; 5]> {
    (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)).prop_map(|(a, b, c, d, e)| [a, b, c, d, e])
}

/// Vixie's rule in the plainest way there is: a walk over minutes.
fn names(when: &When, at: jiff::civil::DateTime) -> bool {
    when.minutes & 1 << at.minute() != 0
        && when.hours & 1 << at.hour() != 0
        && when.months & 1 << at.month() != 0
        && when.has_day(at.date())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_accepted_fires_when_cron_does(fields in fields(), from in 1_000_000_000i64..2_000_000_000) {
        let when = When::of_fields([0, 1, 2, 3, 4].map(|n| (&*fields[n], 0))).unwrap();
        let Some(schedule) = when.expression(&fields.join(" ")) else { return Ok(()) };
        let cron = Cron::parse(&schedule.text).unwrap();
        let clocks = Clocks { host: TimeZone::UTC, own: None };
        let from = Timestamp::from_second(from).unwrap();
        let until = from + jiff::SignedDuration::from_hours(24 * 365 * 9);
        let mut at = from;
        for fire in when.fires(&clocks, from, until, 40) {
            prop_assert_eq!(cron.next(at, &TimeZone::UTC), Some(fire), "{} for {}", schedule.text, fields.join(" "));
            at = fire;
        }
    }

    #[test]
    fn the_search_finds_every_minute_that_a_walk_finds(fields in fields(), from in 1_000_000_000i64..2_000_000_000) {
        let when = When::of_fields([0, 1, 2, 3, 4].map(|n| (&*fields[n], 0))).unwrap();
        let start = TimeZone::UTC.to_datetime(Timestamp::from_second(from / 60 * 60).unwrap());
        let end = start + jiff::SignedDuration::from_hours(24 * 3);
        let (mut walked, mut found) = (Vec::new(), Vec::new());
        let mut at = start;
        while at < end {
            walked.extend(names(&when, at).then_some(at));
            at += jiff::SignedDuration::from_mins(1);
        }
        let mut from = start;
        while let Some(named) = when.first_named(from, end) {
            found.push(named);
            from = named + jiff::SignedDuration::from_mins(1);
        }
        prop_assert_eq!(found, walked);
    }

    #[test]
    fn any_command_comes_back_from_its_dag_file(
        command in "[ -~äö\u{7}\t]{0,12}[{}#%'\"\\\\$a-c ]{0,24}[ -~]{0,12}",
        value in "[ -~ä{}#%'\"\\\\]{0,20}",
        shell in prop_oneof![Just("/bin/sh"), Just("/bin/bash"), Just("/usr/bin/zsh")],
    ) {
        let found = user(&format!("SHELL={shell}\nX={value}\n0 5 * * * {command}\n"));
        for job in &found.jobs {
            let (script, cwd, env) = rendered(job);
            prop_assert_eq!(&script, &job.script());
            prop_assert_eq!(cwd, "/home/anna");
            prop_assert_eq!(&env, &job.env);
        }
        prop_assert!(found.jobs.len() + found.refused.len() >= 1);
    }

    #[test]
    fn no_text_is_too_odd_to_be_read(text in "[ -~\n\t\r\u{0}ä]{0,200}") {
        let found = user(&text);
        for job in &found.jobs {
            rendered(job);
        }
        for fault in &found.refused {
            prop_assert!(!fault.help.is_empty() && !fault.to_string().is_empty());
        }
    }
}
