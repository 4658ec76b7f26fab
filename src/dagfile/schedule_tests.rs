use jiff::Timestamp;

use super::*;
use crate::model::dag::{Catchup, Crons, Every, Intervals, Period, RunImmediately, Schedule};

const TASK: &str = "[tasks.a]\nempty = true\n";

fn read(text: &str) -> Dag {
    read_with(text, &Defaults::default())
}

fn read_with(text: &str, defaults: &Defaults) -> Dag {
    let text = format!("{text}\n{TASK}");
    parse(Path::new("d.toml"), text.as_bytes(), defaults).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

fn codes(text: &str) -> Vec<&'static str> {
    let read = parse(Path::new("d.toml"), format!("{text}\n{TASK}").as_bytes(), &Defaults::default());
    read.err().unwrap_or_default().iter().map(|fault| fault.code).collect()
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const TRIGGER: Intervals = Intervals::Trigger(Duration::ZERO);

fn cron(expressions: &[&str], intervals: Intervals) -> Schedule {
    let expressions = expressions.iter().map(|&text| text.to_owned()).collect();
    Schedule::Cron(Crons { expressions, timezone: None, intervals })
}

fn every(period: Period, intervals: Intervals) -> Schedule {
    Schedule::Every(Every { period, intervals })
}

fn seconds(seconds: u64) -> Period {
    Period::Fixed(Duration::from_secs(seconds))
}

#[test]
fn schedules_have_all_their_forms() {
    let month = Period::Calendar { months: 1, rest: Duration::ZERO };
    let cases = [
        ("", Schedule::Never),
        ("schedule = \"@once\"", Schedule::Once),
        ("schedule = \"@continuous\"", Schedule::Continuous),
        ("schedule = { cron = \"@continuous\" }", Schedule::Continuous),
        ("schedule = \"@daily\"", cron(&["@daily"], TRIGGER)),
        ("schedule = { cron = \"*/5 * * * *\" }", cron(&["*/5 * * * *"], TRIGGER)),
        ("schedule.crons = [\"0 9 * * *\", \"@hourly\"]", cron(&["0 9 * * *", "@hourly"], TRIGGER)),
        ("schedule.every = \"5s\"", every(seconds(5), TRIGGER)),
        ("schedule = { every = 60 }", every(seconds(60), TRIGGER)),
        ("schedule.every = \"1mo\"", every(month, TRIGGER)),
        (
            "schedule = { every = \"1y6mo2d\" }",
            every(Period::Calendar { months: 18, rest: Duration::from_secs(172_800) }, TRIGGER),
        ),
    ];
    for (text, schedule) in cases {
        assert_eq!(read(text).schedule, schedule, "{text}");
    }
}

#[test]
fn data_intervals_come_from_the_dag_else_from_the_configuration_and_yield_to_a_length() {
    let configured = Defaults { data_intervals: true, ..Defaults::default() };
    let hour = Intervals::Trigger(Duration::from_secs(3_600));
    let hourly = |intervals| cron(&["@hourly"], intervals);
    let cases = [
        ("schedule = \"@hourly\"", hourly(TRIGGER), hourly(Intervals::Data)),
        ("schedule = \"@hourly\"\ndata_interval = true", hourly(Intervals::Data), hourly(Intervals::Data)),
        ("schedule = \"@hourly\"\ndata_interval = false", hourly(TRIGGER), hourly(TRIGGER)),
        ("schedule = { cron = \"@hourly\", interval = \"1h\" }", hourly(hour), hourly(hour)),
        ("schedule = { every = 7, interval = 3600 }", every(seconds(7), hour), every(seconds(7), hour)),
        ("schedule = { every = 7 }", every(seconds(7), TRIGGER), every(seconds(7), Intervals::Data)),
        // Airflow has no timetable of several crons with data intervals.
        ("schedule.crons = [\"@hourly\"]", hourly(TRIGGER), hourly(TRIGGER)),
        ("schedule.crons = [\"@hourly\"]\nschedule.interval = \"1h\"", hourly(hour), hourly(hour)),
        ("schedule = \"@once\"", Schedule::Once, Schedule::Once),
        ("data_interval = true", Schedule::Never, Schedule::Never),
    ];
    for (text, schedule, when_configured) in cases {
        assert_eq!(read(text).schedule, schedule, "{text}");
        assert_eq!(read_with(text, &configured).schedule, when_configured, "{text}, configured");
    }
}

#[test]
fn the_zone_is_the_schedules_else_the_dags_else_the_configured_one() {
    let tokyo = TimeZone::get("Asia/Tokyo").unwrap();
    let configured = Defaults { timezone: tokyo.clone(), ..Defaults::default() };
    let start = "start_date = 2026-07-01T06:00:00\n";
    let dag = read_with(start, &configured);
    assert_eq!((dag.timezone, dag.start_date), (tokyo, Some(instant("2026-06-30T21:00:00Z"))));
    let text = format!("{start}timezone = \"Europe/London\"\nschedule = \"@daily\"\n");
    let dag = read_with(&text, &configured);
    assert_eq!(dag.timezone.iana_name(), Some("Europe/London"));
    assert_eq!(dag.start_date, Some(instant("2026-07-01T05:00:00Z")));
    assert_eq!(dag.schedule, cron(&["@daily"], TRIGGER));
    let text = format!(
        "{start}timezone = \"Europe/London\"\nschedule = {{ cron = \"@daily\", timezone = \"America/New_York\" }}\n"
    );
    let dag = read_with(&text, &configured);
    let Schedule::Cron(crons) = dag.schedule else { panic!("it is a cron schedule") };
    assert_eq!(crons.timezone.unwrap().iana_name(), Some("America/New_York"));
    assert_eq!(dag.timezone.iana_name(), Some("Europe/London"), "times in the file stay in the DAG's zone");
    assert_eq!(dag.start_date, Some(instant("2026-07-01T05:00:00Z")));
    // An offset says nothing of a zone.
    let dag = read_with("start_date = 2026-07-01T06:00:00+02:00\n", &configured);
    assert_eq!(dag.timezone.iana_name(), Some("Asia/Tokyo"));
    assert_eq!(dag.start_date, Some(instant("2026-07-01T04:00:00Z")));
}

#[test]
fn events_are_sorted_taken_once_and_local_to_the_schedules_zone() {
    let events = |text: &str| match read(text).schedule {
        Schedule::Events(events) => events.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(
        events("schedule.events = [2026-12-24T18:00:00, \"2026-03-01\", 2026-12-24T19:00:00+01:00]"),
        "2026-03-01T00:00:00Z 2026-12-24T18:00:00Z"
    );
    let zoned = "timezone = \"Asia/Tokyo\"\nschedule = { events = [2026-07-01], timezone = \"America/New_York\" }";
    assert_eq!(events(zoned), "2026-07-01T04:00:00Z");
    // Shown twice by the clocks, and skipped by them, as `pendulum.datetime` takes them.
    let changes = "timezone = \"America/New_York\"\nschedule.events = [2026-11-01T01:30:00, 2026-03-08T02:30:00]";
    assert_eq!(events(changes), "2026-03-08T07:30:00Z 2026-11-01T06:30:00Z");
}

#[test]
fn catchup_has_five_forms_and_a_default() {
    let with_start = |text: &str| read(&format!("schedule = \"@daily\"\nstart_date = 2026-01-01\n{text}")).catchup;
    let six_hours = Catchup::Window(Duration::from_secs(6 * 3_600));
    let cases = [
        ("", Catchup::Latest),
        ("catchup = false", Catchup::Latest),
        ("catchup = \"latest\"", Catchup::Latest),
        ("catchup = true", Catchup::All),
        ("catchup = \"all\"", Catchup::All),
        ("catchup = \"window:6h\"", six_hours),
    ];
    for (text, catchup) in cases {
        assert_eq!(with_start(text), catchup, "{text}");
    }
    assert_eq!(read("schedule = \"@daily\"\ncatchup = \"window:6h\"").catchup, six_hours, "needs no start_date");
    let text = "schedule = \"@daily\"\nstart_date = 2026-01-01";
    let configured = Defaults { catchup: true, ..Defaults::default() };
    assert_eq!(read_with(text, &configured).catchup, Catchup::All);
}

#[test]
fn run_immediately_is_a_truth_value_or_a_duration() {
    let of = |value: &str| read(&format!("schedule = \"@daily\"\nrun_immediately = {value}")).run_immediately;
    assert_eq!(read("schedule = \"@daily\"").run_immediately, RunImmediately::No);
    assert_eq!(of("false"), RunImmediately::No);
    assert_eq!(of("true"), RunImmediately::Yes);
    assert_eq!(of("\"1h\""), RunImmediately::Within(Duration::from_secs(3_600)));
    assert_eq!(of("60"), RunImmediately::Within(Duration::from_secs(60)));
}

#[test]
fn a_continuous_dag_has_one_run_at_a_time() {
    assert_eq!(read("schedule = \"@continuous\"").max_active_runs, 1);
    assert_eq!(read("schedule = \"@continuous\"\nmax_active_runs = 1").max_active_runs, 1);
    assert_eq!(codes("schedule = \"@continuous\"\nmax_active_runs = 2"), ["bad-schedule"]);
}

#[test]
fn a_start_date_for_all_tasks_is_the_dags() {
    let dag = read("schedule = \"@daily\"\ncatchup = true\n[default_args]\nstart_date = 2026-01-01\n");
    assert_eq!(dag.start_date, Some(instant("2026-01-01T00:00:00Z")));
}

/// Airflow: `DAG.add_task`.
#[test]
fn a_task_runs_neither_before_nor_after_its_dag() {
    let dates = |dag: &str, task: &str| {
        let text = format!("{dag}\n[tasks.b]\nempty = true\n{task}\n");
        let dag = read(&text);
        let printed = |date: Option<Timestamp>| date.map_or("-".to_owned(), |date| date.to_string()[..10].to_owned());
        format!("{} {}", printed(dag.tasks[0].start_date), printed(dag.tasks[0].end_date))
    };
    let dag = "start_date = 2026-02-01\nend_date = 2026-10-01";
    let task = |start: &str, end: &str| format!("start_date = {start}\nend_date = {end}");
    assert_eq!(dates("", ""), "- -");
    assert_eq!(dates(dag, ""), "2026-02-01 2026-10-01");
    assert_eq!(dates("", &task("2026-01-01", "2026-12-01")), "2026-01-01 2026-12-01");
    assert_eq!(dates(dag, &task("2026-01-01", "2026-12-01")), "2026-02-01 2026-10-01");
    assert_eq!(dates(dag, &task("2026-03-01", "2026-04-01")), "2026-03-01 2026-04-01");
    let zoned = "timezone = \"Asia/Tokyo\"";
    assert_eq!(dates(zoned, "start_date = 2026-03-01"), "2026-02-28 -");
    let shared = "[default_args]\nend_date = 2026-05-01";
    assert_eq!(dates(shared, "start_date = 2026-03-01"), "2026-03-01 2026-05-01");
}

#[test]
fn waiting_for_downstream_is_depending_on_the_past() {
    let dag = read("[default_args]\nwait_for_downstream = true\ndepends_on_past = false\n");
    assert!(dag.tasks[0].depends_on_past && dag.tasks[0].wait_for_downstream);
    let dag = read("[default_args]\ndepends_on_past = true\n");
    assert!(dag.tasks[0].depends_on_past && !dag.tasks[0].wait_for_downstream);
}

#[test]
fn lists_without_end_are_refused_with_the_limit() {
    let first = |text: &str| {
        let text = format!("{text}\n{TASK}");
        let faults = parse(Path::new("d.toml"), text.as_bytes(), &Defaults::default()).unwrap_err();
        assert_eq!(faults.len(), 1);
        (faults[0].code, faults[0].line, faults[0].message.clone())
    };
    let many = |item: &str, count: usize| format!("[{}]", format!("{item},").repeat(count));
    assert_eq!(
        first(&format!("schedule.events = {}", many("2026-01-01", 10_001))),
        ("too-many-events", 1, "`events` has 10001 times, more than the limit of 10000".to_owned())
    );
    assert_eq!(
        first(&format!("schedule.events = {}", many("2026-01-01", 1_000_000))),
        ("too-large", 0, format!("the file has {} bytes, more than the limit of {MAX_BYTES}", 11_000_044))
    );
    assert_eq!(
        first(&format!("schedule.crons = {}", many("\"@daily\"", 101))),
        ("too-many-crons", 1, "`crons` has 101 expressions, more than the limit of 100".to_owned())
    );
}

#[test]
fn both_ends_of_the_years_are_taken() {
    assert_eq!(codes("start_date = 1970-01-01\nend_date = 2099-12-31T23:59:59\ntimezone = \"Asia/Tokyo\""), [""; 0]);
    assert_eq!(codes("start_date = 1969-12-31\nend_date = 2100-01-01"), ["out-of-range"; 2]);
    assert_eq!(codes("schedule.events = [2026-01-01, 2100-01-01, \"0001-01-01\"]"), ["out-of-range"; 2]);
}

/// Which names are the nearest depends on the host's table.
#[test]
fn an_unknown_zone_is_refused_with_the_nearest_names() {
    let text = format!("timezone = \"Mars/Olympus\"\n{TASK}");
    let faults = parse(Path::new("d.toml"), text.as_bytes(), &Defaults::default()).unwrap_err();
    assert_eq!((faults[0].code, faults[0].line, faults[0].column), ("unknown-timezone", 1, 12));
    assert!(faults[0].help.starts_with("the nearest names are `"), "{}", faults[0].help);
    assert_eq!(codes("timezone = \"Etc/Unknown\"")[..1], ["unknown-timezone"], "it stands for no zone");
}

/// SEMANTICS 6.4.
#[test]
fn runs_are_bound_by_the_dates_of_the_dag_and_of_its_tasks() {
    let bounds = |text: &str| {
        let dag = read(&format!("{text}\n[tasks.b]\nempty = true\nstart_date = 2026-03-01\nend_date = 2026-06-01"));
        let printed = |date: Option<Timestamp>| date.map_or("-".to_owned(), |date| date.to_string()[..10].to_owned());
        format!("{} {}", printed(dag.earliest()), printed(dag.latest()))
    };
    let task_c = "[tasks.c]\nempty = true\nstart_date = 2026-02-01\nend_date = 2026-05-01\n";
    assert_eq!(bounds(task_c), "2026-02-01 -", "`a` has no end");
    assert_eq!(bounds("[default_args]\nend_date = 2026-07-01\n"), "2026-03-01 2026-07-01");
    assert_eq!(bounds(&format!("start_date = 2026-02-15\nend_date = 2026-05-15\n{task_c}")), "2026-02-15 2026-05-15");
    assert_eq!(bounds("end_date = 2026-08-01"), "2026-03-01 2026-08-01");
}
