//! Every gate, shut once, and the line that users read of it: `docs/explain.md` is made of them.

use jiff::tz::TimeZone;

use super::tests::trigger;
use super::*;
use crate::keytable;
use crate::model::{AdmissionRules, Awaited, Pace, SensorMode, Thresholds};
use crate::scheduler::admission::HostReading;
use crate::scheduler::command::Done;
use crate::scheduler::event::Outcome;
use crate::scheduler::explain::ExplainedTask;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// The gate and the line of the last instance of a task, or of the run, in the newest run of a DAG.
fn told(simulation: &mut Simulation, dag_id: &str, task: Option<&str>) -> (String, String) {
    let run = simulation.store.runs().into_iter().rfind(|run| &*run.dag_id == dag_id).expect("a run");
    let asked = task.map(|task| ExplainedTask { task_id: task.into(), map_index: None });
    let command = Command::Explain { dag_id: dag_id.into(), run_id: run.run_id, task: asked };
    let Ok(Ok(Done::Explained(mut told))) = simulation.command(command).try_recv() else { panic!("no answer") };
    let now = simulation.clock.now();
    // Everything usually takes a minute and a half.
    told.expect(&mut |_, _| Some(MINUTE * 3 / 2), now);
    let finding = match task {
        Some(_) => told.tasks.pop().expect("an instance").finding,
        None => told.run,
    };
    (finding.gate.clone().unwrap_or_default(), finding.line(now, &TimeZone::UTC))
}

/// One DAG with this name, triggered with these settings, twenty seconds ago.
fn with(dag_id: &str, text: &str, change: impl FnOnce(&mut Settings)) -> Simulation {
    let mut simulation = Simulation::with(&[]);
    simulation.settings.pools.push(pool("wide", 3));
    simulation.reconfigure(change);
    simulation.save(&format!("{dag_id}.toml"), text);
    simulation.command(trigger(dag_id));
    simulation.advance(20 * SECOND);
    simulation
}

fn task(name: &str, more: &str) -> String {
    format!("[tasks.{name}]\nbash = \"x\"\n{more}\n")
}

/// What the limits of slots and of the host keep.
fn limits() -> Vec<(String, String)> {
    let in_pool = |name, more: &str| task(name, &format!("pool = \"wide\"\n{more}"));
    let pools = [
        in_pool("load", "priority_weight = 9"),
        in_pool("join", "pool_slots = 2\npriority_weight = 8"),
        in_pool("report", "pool_slots = 2"),
        in_pool("huge", "pool_slots = 4"),
    ];
    let mut etl = with("etl", &pools.concat(), |_| ());
    let mut told_of = vec![told(&mut etl, "etl", Some("report")), told(&mut etl, "etl", Some("huge"))];
    let two = task("a", "priority_weight = 2") + &task("b", "");
    let mut narrow = with("etl", &two, |settings| settings.parallelism = 1);
    told_of.push(told(&mut narrow, "etl", Some("b")));
    let mut narrow = with("etl", &format!("max_active_tasks = 1\n{two}"), |_| ());
    told_of.push(told(&mut narrow, "etl", Some("b")));
    for limit in ["max_active_tis_per_dag", "max_active_tis_per_dagrun"] {
        let text = task("a", &format!("expand = {{ x = [1, 2] }}\n{limit} = 1"));
        told_of.push(told(&mut with("etl", &text, |_| ()), "etl", Some("a")));
    }
    let needs = |more: &str| format!("needs = {{ memory = \"3GB\" }}\n{more}");
    let fat = task("a", &needs("priority_weight = 9")) + &task("b", &needs("")) + &task("c", "needs = { cpus = 4 }");
    let mut host = with("etl", &fat, |settings| {
        settings.admission =
            AdmissionRules { memory: Some(5_000_000_000), millicpus: Some(2_000), ..AdmissionRules::default() };
    });
    told_of.extend([told(&mut host, "etl", Some("b")), told(&mut host, "etl", Some("c"))]);
    let thresholds = Thresholds { min_memory: Some(2_000_000_000), ..Thresholds::default() };
    let mut shut = with("etl", &task("a", ""), |settings| {
        settings.admission = AdmissionRules { thresholds, ..AdmissionRules::default() };
    });
    let reading = HostReading { memory_available: Some(1_200_000_000), ..HostReading::default() };
    shut.turn(Event::Host(Box::new(reading)));
    told_of.push(told(&mut shut, "etl", Some("a")));
    told_of
}

/// What the order among those that wait has to do with it.
fn order() -> Vec<(String, String)> {
    let of = |names: &str, more: &str| -> String {
        names.chars().map(|name| task(&name.to_string(), &format!("pool = \"narrow\"\n{more}"))).collect()
    };
    let mut told_of = Vec::new();
    let mut fair = with("etl", &of("ab", ""), |settings| settings.choosing.fair_share = true);
    fair.save("web.toml", &of("x", ""));
    fair.command(trigger("web"));
    told_of.push(told(&mut fair, "etl", Some("b")));
    let mut path = with("etl", &of("ab", "weight_rule = \"critical_path\""), |_| ());
    told_of.push(told(&mut path, "etl", Some("b")));
    let mut aged = with("etl", &of("ab", ""), |settings| settings.choosing.ageing = Some(MINUTE));
    aged.advance(3 * MINUTE);
    told_of.push(told(&mut aged, "etl", Some("b")));
    let small = |names: &str| of(names, "").replace("narrow", "wide");
    let fat = task("f", "pool = \"wide\"\npool_slots = 3");
    let mut kept = with("etl", &small("abc"), |settings| settings.choosing.ageing = Some(MINUTE));
    kept.save("fat.toml", &fat);
    kept.command(trigger("fat"));
    kept.advance(2 * MINUTE);
    kept.command(trigger("etl"));
    kept.succeed("etl.a");
    told_of.extend([told(&mut kept, "fat", Some("f")), told(&mut kept, "etl", Some("a"))]);
    told_of
}

/// What its dependencies, its retries and its run keep.
fn graph() -> Vec<(String, String)> {
    let text = task("a", "")
        + &task("b", "depends_on = [\"a\"]")
        + &task("c", "retries = 2\nretry_delay = \"5m\"")
        + "[tasks.d]\nsensor = { time_delta = \"1h\" }\n";
    let mut simulation = with("etl", &text, |_| ());
    simulation.end("etl.c", Outcome::Exited(7));
    let now = simulation.clock.now();
    let wait = Wait {
        awaited: Awaited::Instant(now + 10 * MINUTE),
        mode: SensorMode::Poke,
        since: now,
        timeout: None,
        execution_timeout: None,
        soft_fail: false,
        pace: Pace { poke_interval: MINUTE, is_exponential: false, max_wait: None },
    };
    simulation.end("etl.d", Outcome::Deferred(Box::new(wait)));
    let mut told_of: Vec<_> = ["b", "c", "d"].map(|task| told(&mut simulation, "etl", Some(task))).into();
    simulation.command(Command::SetPaused { dag_id: "etl".into(), is_paused: true });
    told_of.push(told(&mut simulation, "etl", Some("b")));
    let past = format!(
        "schedule = \"* * * * *\"\ncatchup = true\nstart_date = 2026-11-21T12:30:00Z\n{}",
        task("a", "depends_on_past = true")
    );
    let mut simulation = with("nightly", &past, |_| ());
    simulation.advance(3 * MINUTE);
    told_of.push(told(&mut simulation, "nightly", Some("a")));
    let mut simulation = with("etl", &format!("max_active_runs = 1\n{}", task("a", "")), |_| ());
    simulation.command(trigger("etl"));
    simulation.advance(20 * SECOND);
    told_of.push(told(&mut simulation, "etl", None));
    simulation.command(Command::Stop { how: Stop::Finish, by: Asker::Cli });
    told_of.push(told(&mut simulation, "etl", Some("a")));
    told_of
}

#[test]
fn the_checked_in_page_shows_every_gate_as_it_is_told() {
    let lines = [limits(), order(), graph()].concat();
    let mut page = include_str!("../explain/explain.head.md").to_owned();
    for (gate, line) in &lines {
        page += &format!("| `{gate}` | {line} |\n");
    }
    let gates: BTreeSet<&str> = lines.iter().map(|(gate, _)| gate.as_str()).collect();
    assert!(gates.len() >= 15 && !gates.contains(""), "{gates:?}");
    keytable::assert_checked_in("docs/explain.md", &page);
}
