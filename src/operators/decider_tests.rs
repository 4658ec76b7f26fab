use serde_json::json;

use super::*;
use crate::model::dag::Position;
use crate::model::{Bash, Crons, Graph, Intervals, Node, Python, RunKey, RunState, Schedule, Script};
use crate::model::{ShortCircuit, Task, Template};

fn template() -> Template {
    Template { text: String::new(), at: Position::default() }
}

fn expr() -> Question {
    Question::Expr(template())
}

fn bash() -> Question {
    Question::Bash(Bash { script: Script::Text(template()) })
}

fn python() -> Question {
    Question::Python(Python {
        script: Script::Text(template()),
        function: None,
        args: Vec::new(),
        kwargs: serde_json::Map::new(),
        arguments_at: Position::default(),
        interpreter: template(),
        venv: None,
    })
}

/// The decider, with `a`, `b` and `c` directly after it and `z` after those.
fn dag(operator: Operator) -> Dag {
    let task = |id: &str| Task::new(id.into(), Operator::Empty);
    let tasks = vec![Task::new("d".into(), operator), task("a"), task("b"), task("c"), task("z")];
    let edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)].map(|(from, to)| (TaskIx(from), TaskIx(to)));
    Dag::new("d".into(), tasks, Graph::new(vec![Node::default(); 5], &edges).unwrap())
}

fn said(value: Value) -> Answer {
    Answer { value: Some(value), process: None }
}

#[test]
fn a_branch_takes_an_id_a_list_in_any_notation_or_nothing() {
    let dag = dag(Operator::Branch(Branch::Ask(expr())));
    let cases = [
        (json!("a"), "a", json!("a")),
        (json!("  b\n"), "b", json!("b")),
        (json!("[\"a\", \"c\"]"), "a c", json!(["a", "c"])),
        (json!("['a', 'c']"), "a c", json!(["a", "c"])),
        (json!("['a',]"), "a", json!(["a"])),
        (json!("[]"), "", json!([])),
        (json!("\"a\""), "a", json!("a")),
        (json!(["b"]), "b", json!(["b"])),
        (json!(""), "", Value::Null),
        (json!("None"), "", Value::Null),
        (json!("null"), "", Value::Null),
        (Value::Null, "", Value::Null),
        (json!("z"), "", json!("z")),
    ];
    for (answer, followed, value) in cases {
        let decided = decide(&dag, TaskIx(0), said(answer.clone())).unwrap().unwrap();
        let followed: Vec<_> = followed.split_whitespace().map(Into::into).collect();
        assert_eq!(decided.decision, Some(SkipDecision::Followed(followed)), "{answer}");
        assert_eq!(decided.value.unwrap_or_default(), value, "{answer}");
    }
}

#[test]
fn a_branch_that_gives_something_else_fails_with_what_came() {
    let dag = dag(Operator::Branch(Branch::Ask(expr())));
    let error = |answer: Value| decide(&dag, TaskIx(0), said(answer)).unwrap().unwrap_err();
    let unknown = "the branch chose `aa`, but the DAG has no task or group of that name: did you mean `a`?";
    assert_eq!(error(json!("aa")), unknown);
    let listed = "the branch chose `elsewhere`, but the DAG has no task or group of that name: its tasks and groups are `a`, `b`, `c`, `d`, `z`";
    assert_eq!(error(json!(["a", "elsewhere"])), listed);
    let expected = "a branch gives the id of a task or group, a JSON list of ids, or nothing, but this one gave ";
    for (answer, came) in [
        (json!(5), "5:"),
        (json!({"a": 1}), "{\"a\":1}:"),
        (json!(["a", 1]), "[\"a\",1]:"),
        (json!("[a, b]"), "[a, b]:"),
        (json!(true), "true:"),
    ] {
        let error = error(answer);
        assert!(error.starts_with(&format!("{expected}{came}")), "{error}");
    }
    assert!(error(json!(format!("[{}", "x".repeat(5_000)))).len() < 500, "a long answer is shortened");
}

#[test]
fn a_short_circuit_is_false_as_the_contract_lists_it() {
    let of = |question: Question, answer: Answer| {
        let circuit = ShortCircuit { question, ignore_downstream_trigger_rules: false };
        let decided = decide(&dag(Operator::ShortCircuit(circuit)), TaskIx(0), answer).unwrap().unwrap();
        (decided.decision.is_none(), decided.value.unwrap_or_default())
    };
    for text in ["", " \n", "false", "False", "0", "0.0", "null", "[]", "{}", "\"\"", "None"] {
        assert!(!of(expr(), said(json!(text))).0, "{text:?} is false");
    }
    for text in ["true", "True", "1", "no", "[0]", "{\"a\": 1}", "00", "x"] {
        assert!(of(expr(), said(json!(text))).0, "{text:?} is true");
    }
    for value in [Value::Null, json!(false), json!(0), json!(0.0), json!(""), json!([]), json!({})] {
        assert!(!of(python(), said(value.clone())).0, "{value} is false");
        assert!(!of(bash(), said(value.clone())).0, "{value} is false");
    }
    for value in [json!("false"), json!("0"), json!(1), json!([0])] {
        assert!(of(python(), said(value.clone())).0, "Python takes {value} for true");
    }
    let ended = |code, wrote, value: Option<Value>| of(bash(), Answer { value, process: Some((code, wrote)) });
    assert_eq!(ended(0, Wrote::Nothing, None), (true, json!(true)));
    assert_eq!(ended(0, Wrote::Something, None), (false, Value::Null));
    assert_eq!(ended(0, Wrote::Something, Some(json!("yes"))), (true, json!("yes")));
    assert_eq!(ended(1, Wrote::Something, Some(json!("yes"))), (false, json!(false)));
    assert_eq!(ended(1, Wrote::Nothing, None), (false, json!(false)));
}

#[test]
fn a_short_circuit_reaches_as_far_as_it_says() {
    for (ignore_downstream_trigger_rules, expected) in [(true, vec!["a", "b", "c", "z"]), (false, vec!["a", "b", "c"])]
    {
        let circuit = ShortCircuit { question: expr(), ignore_downstream_trigger_rules };
        let decided = decide(&dag(Operator::ShortCircuit(circuit)), TaskIx(0), said(json!(""))).unwrap().unwrap();
        let skipped = expected.into_iter().map(Into::into).collect();
        assert_eq!(decided.decision, Some(SkipDecision::Skipped(skipped)));
    }
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn run(run_type: RunType, interval: Option<(&str, &str)>) -> DagRun {
    let data_interval = interval.map(|(start, end)| DataInterval { start: instant(start), end: instant(end) });
    let logical_date = data_interval.map(|interval| interval.start);
    DagRun {
        key: RunKey(1),
        dag_id: "d".into(),
        run_id: "r".into(),
        run_type,
        state: RunState::Running,
        run_after: data_interval.map_or(Timestamp::UNIX_EPOCH, |interval| interval.end),
        logical_date,
        data_interval,
        queued_at: None,
        start_date: None,
        end_date: None,
        conf: serde_json::Map::new(),
        reason: None,
        lag: None,
        backfill: None,
        is_released: false,
        clear_number: 0,
    }
}

#[test]
fn a_window_of_the_clock_chooses_by_the_dags_zone() {
    use jiff::civil::{Weekday, time};
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let chosen = |condition: &Condition, now: &str| {
        let (if_true, if_false) = (json!("a"), json!(["b"]));
        let choice = Choice { condition: condition.clone(), if_true, if_false };
        *choose(&choice, instant(now), &zone) == json!("a")
    };
    let monday = Condition::Weekday(vec![Weekday::Monday]);
    assert!(chosen(&monday, "2026-11-22T23:00:00Z"), "in Berlin it is Monday already");
    assert!(!chosen(&monday, "2026-11-23T23:00:00Z"), "and there Tuesday");
    let at = |hour, minute| Some(Bound::TimeOfDay(time(hour, minute, 0, 0)));
    let between = |lower, upper| Condition::Between { lower, upper };
    let moment = |text: &str| Some(Bound::At(instant(text)));
    let cases = [
        (between(at(9, 0), at(17, 0)), "2026-11-23T08:00:00Z", true),
        (between(at(9, 0), at(17, 0)), "2026-11-23T16:00:00Z", true),
        (between(at(9, 0), at(17, 0)), "2026-11-23T16:00:00.000001Z", false),
        (between(at(9, 0), at(17, 0)), "2026-11-23T07:59:59Z", false),
        (between(at(22, 0), at(4, 0)), "2026-11-23T22:30:00Z", true),
        // As Airflow: the window begins on the day on which it is asked.
        (between(at(22, 0), at(4, 0)), "2026-11-23T02:00:00Z", false),
        (between(at(9, 0), None), "2026-11-23T22:59:00Z", true),
        (between(None, at(9, 0)), "2026-11-23T08:00:01Z", false),
        (between(moment("2026-01-01T00:00:00Z"), moment("2026-12-31T00:00:00Z")), "2026-11-23T00:00:00Z", true),
        (between(moment("2027-01-01T00:00:00Z"), None), "2026-11-23T00:00:00Z", false),
        (between(moment("2026-01-01T00:00:00Z"), at(9, 0)), "2026-11-23T08:00:00Z", true),
        (between(at(9, 0), moment("2026-01-01T00:00:00Z")), "2026-11-23T08:00:00Z", false),
        // The clocks skip 02:00 to 03:00: 02:30 is read as 03:30.
        (between(at(2, 30), None), "2026-03-29T01:29:00Z", false),
        (between(at(2, 30), None), "2026-03-29T01:30:00Z", true),
    ];
    for (condition, now, expected) in cases {
        assert_eq!(chosen(&condition, now), expected, "{condition:?} at {now}");
    }
}

#[test]
fn only_the_latest_run_of_a_schedule_goes_on() {
    let daily = |intervals| Crons { expressions: vec!["@daily".to_owned()], timezone: None, intervals };
    let dag = |schedule| Dag { schedule, ..dag(Operator::LatestOnly) };
    let trigger = dag(Schedule::Cron(daily(Intervals::Trigger(std::time::Duration::ZERO))));
    let data = dag(Schedule::Cron(daily(Intervals::Data)));
    let once = dag(Schedule::Once);
    let latest = |dag: &Dag, run: &DagRun, now: &str| {
        let value = by_the_clock(dag, TaskIx(0), run, instant(now)).unwrap();
        assert!(value == json!(["a", "b", "c"]) || value == json!([]));
        value != json!([])
    };
    let tick = run(RunType::Scheduled, Some(("2026-11-20T00:00:00Z", "2026-11-20T00:00:00Z")));
    assert!(!latest(&trigger, &tick, "2026-11-20T00:00:00Z"), "the window begins after the interval's start");
    assert!(latest(&trigger, &tick, "2026-11-20T00:00:01Z"));
    assert!(latest(&trigger, &tick, "2026-11-21T00:00:00Z"));
    assert!(!latest(&trigger, &tick, "2026-11-21T00:00:00.000001Z"));
    let day = run(RunType::Scheduled, Some(("2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z")));
    assert!(latest(&data, &day, "2026-11-21T00:00:00Z"), "the next interval ends then");
    assert!(!latest(&data, &day, "2026-11-21T00:00:01Z"));
    let backfill = DagRun { run_type: RunType::Backfill, ..day.clone() };
    assert!(!latest(&data, &backfill, "2026-12-01T00:00:00Z"));
    let manual = DagRun { run_type: RunType::Manual, ..day.clone() };
    assert!(latest(&data, &manual, "2027-01-01T00:00:00Z"));
    assert!(latest(&once, &day, "2027-01-01T00:00:00Z"), "no other run follows");
}
