//! Assets through the whole loop: what produces, what waits, and files that settle.

use serde_json::{Map, Value, json};

use super::*;
use crate::model::{AssetEvent, AssetKey, OutletEvent, RunType, SettledFile, Stamp};

const MAKER: &str = "tasks.make = { bash = \"x\", outlets = [\"orders\"] }\n";
const OTHER: &str = "tasks.make = { bash = \"x\", outlets = [\"s3://b/c\"] }\n";
const INBOX: &str = "max_active_runs = 1\nschedule = { assets = \"inbox\" }\ntasks.eat = { bash = \"x\" }\n\
    [assets.inbox]\nuri = \"file:///srv/in/*.csv\"\n";

fn waiter(expression: &str) -> String {
    format!("schedule = {{ assets = {expression} }}\ntasks.eat = {{ bash = \"x\" }}\n")
}

impl Simulation {
    /// A run of `dag` that does its only task.
    fn make(&mut self, dag: &str) {
        self.make_saying(dag, Vec::new());
    }

    fn make_saying(&mut self, dag: &str, outlet_events: Vec<OutletEvent>) {
        // Two runs by hand at one instant would have one logical date.
        self.advance(Duration::from_secs(1));
        self.command(super::tests::trigger(dag));
        let (now, name) = (self.clock.now(), format!("{dag}.make"));
        let key = self.key(&name);
        let end = TryEnd { started_at: Some(now), outlet_events, ..TryEnd::new(key, Outcome::Exited(0), now) };
        self.turn(Event::Ended(Box::new(end)));
    }

    fn runs_of(&self, dag: &str) -> Vec<crate::model::DagRun> {
        self.store.runs().into_iter().filter(|run| &*run.dag_id == dag).collect()
    }

    /// For each run of the DAG the values of `key` in the extras of its events.
    fn consumed(&self, dag: &str, key: &str) -> Vec<Vec<Value>> {
        let value = |event: AssetEvent| event.extra.get(key).cloned().unwrap_or_default();
        let of_run = |run: crate::model::DagRun| self.store.triggering_events(run.key).into_iter().map(value).collect();
        self.runs_of(dag).into_iter().map(of_run).collect()
    }

    /// Files settle that were changed now.
    fn drop_files(&mut self, names: &[&str]) {
        let changed_at = i64::try_from(self.clock.now().as_nanosecond()).unwrap();
        let file = |name: &&str| SettledFile {
            path: format!("/srv/in/{name}").into(),
            stamp: Stamp { inode: 1, size: 1, modified_at: changed_at },
            changed_at,
            lay_there: true,
        };
        self.turn(Event::Files { asset: AssetKey(1), files: names.iter().map(file).collect(), gone: Vec::new() });
    }
}

#[test]
fn the_turn_in_which_a_task_succeeds_starts_what_waits_for_its_asset() {
    let mut simulation = Simulation::with(&[("maker.toml", MAKER), ("eater.toml", &waiter("\"orders\""))]);
    simulation.make("maker");
    assert_eq!(simulation.trace(), ["start maker.make try 1", "start eater.eat try 1"]);
    let runs = simulation.runs_of("eater");
    assert_eq!((runs.len(), runs[0].run_type, runs[0].logical_date), (1, RunType::AssetTriggered, None));
    assert_eq!(runs[0].run_after, simulation.clock.now());
    assert!(runs[0].run_id.starts_with("asset_triggered__2026-11-21T12:30:01+00:00_"), "{}", runs[0].run_id);
    let events = simulation.store.triggering_events(runs[0].key);
    let source = events[0].source.as_ref().unwrap();
    assert_eq!((events.len(), &*source.dag_id, &*source.task_id, source.map_index), (1, "maker", "make", -1));
}

#[test]
fn an_expression_waits_until_it_holds_and_what_repeats_counts_once() {
    let files = [("maker.toml", MAKER), ("other.toml", OTHER), ("eater.toml", &*waiter("\"orders & 's3://b/c'\""))];
    let mut simulation = Simulation::with(&files);
    simulation.make("maker");
    simulation.advance(Duration::from_secs(5));
    simulation.make("maker");
    assert!(simulation.runs_of("eater").is_empty());
    simulation = simulation.crash_and_restart();
    simulation.advance(Duration::from_secs(5));
    simulation.make("other");
    let runs = simulation.runs_of("eater");
    assert_eq!(runs.len(), 1);
    assert_eq!(simulation.store.triggering_events(runs[0].key).len(), 3);
    assert_eq!(runs[0].run_after, simulation.clock.now(), "of the newest");
    simulation.make("other");
    assert_eq!(simulation.runs_of("eater").len(), 1, "the other must come anew");
}

#[test]
fn a_failed_or_skipped_task_produces_nothing_and_a_retry_once() {
    let maker = MAKER.replace("\"x\"", "\"x\", retries = 1, retry_delay = \"1s\"");
    let mut simulation = Simulation::with(&[("maker.toml", &maker), ("eater.toml", &waiter("\"orders\""))]);
    simulation.command(super::tests::trigger("maker"));
    simulation.end("maker.make", Outcome::Exited(1));
    simulation.advance(Duration::from_secs(2));
    simulation.end("maker.make", Outcome::Exited(99));
    assert!(simulation.store.asset_events().is_empty());
    simulation.make("maker");
    assert_eq!(simulation.store.asset_events().len(), 1);
}

#[test]
fn empty_tasks_produce_too() {
    let maker = "tasks.make = { empty = true, outlets = [\"orders\"] }\n";
    let mut simulation = Simulation::with(&[("maker.toml", maker), ("eater.toml", &waiter("[\"orders\"]"))]);
    simulation.command(super::tests::trigger("maker"));
    assert_eq!(simulation.trace(), ["start eater.eat try 1"]);
}

#[test]
fn events_of_a_pause_wake_nobody_and_are_consumed_by_the_next_run() {
    let mut simulation = Simulation::with(&[("maker.toml", MAKER), ("eater.toml", &waiter("\"orders\""))]);
    let pause = |is_paused| Command::SetPaused { dag_id: "eater".into(), is_paused };
    simulation.command(pause(true));
    simulation.make("maker");
    simulation.command(pause(false));
    assert!(simulation.runs_of("eater").is_empty());
    simulation.make("maker");
    let runs = simulation.runs_of("eater");
    assert_eq!((runs.len(), simulation.store.triggering_events(runs[0].key).len()), (1, 2));
}

#[test]
fn a_dag_consumes_from_when_it_first_waited_or_all_if_it_catches_up() {
    let mut simulation = Simulation::with(&[("maker.toml", MAKER)]);
    simulation.make("maker");
    simulation.save("late.toml", &waiter("\"orders\""));
    simulation.save("all.toml", &format!("catchup = true\n{}", waiter("\"orders\"")));
    assert!(simulation.runs_of("late").is_empty() && simulation.runs_of("all").is_empty());
    simulation.make("maker");
    let consumed = |dag| simulation.store.triggering_events(simulation.runs_of(dag)[0].key).len();
    assert_eq!((consumed("late"), consumed("all")), (1, 2));
}

#[test]
fn what_comes_while_a_dag_is_full_is_consumed_together() {
    let eater = format!("max_active_runs = 1\n{}", waiter("\"orders\""));
    let mut simulation = Simulation::with(&[("maker.toml", MAKER), ("eater.toml", &eater)]);
    for _ in 0..4 {
        simulation.advance(Duration::from_secs(1));
        simulation.make("maker");
    }
    assert_eq!(simulation.runs_of("eater").len(), 1);
    simulation.succeed("eater.eat");
    let runs = simulation.runs_of("eater");
    let counts: Vec<usize> = runs.iter().map(|run| simulation.store.triggering_events(run.key).len()).collect();
    assert_eq!(counts, [1, 3]);
}

#[test]
fn time_and_assets_start_runs_of_their_own() {
    let eater = "start_date = 2026-11-21T00:00:00\nschedule = { cron = \"*/10 * * * *\", assets = \"orders\" }\ntasks.eat = { bash = \"x\" }\n";
    let mut simulation = Simulation::with(&[("maker.toml", MAKER), ("eater.toml", eater)]);
    assert_eq!(simulation.store.dag("eater").unwrap().schedule.unwrap(), "*/10 * * * *, or assets: orders");
    simulation.advance(Duration::from_secs(600));
    simulation.make("maker");
    let types: Vec<RunType> = simulation.runs_of("eater").iter().map(|run| run.run_type).collect();
    assert!(types.contains(&RunType::Scheduled) && types.last() == Some(&RunType::AssetTriggered), "{types:?}");
}

#[test]
fn an_alias_stands_for_what_the_task_names() {
    let maker = "tasks.make = { bash = \"x\", outlets = [\"days\"] }\n[assets.days]\nalias = true\n";
    let files =
        [("maker.toml", maker), ("of_alias.toml", &*waiter("\"days\"")), ("of_asset.toml", &*waiter("\"s3://b/1\""))];
    let mut simulation = Simulation::with(&files);
    simulation.make("maker");
    assert!(simulation.store.asset_events().is_empty(), "nothing was named");
    let named = |asset: &str| OutletEvent {
        outlet: "days".into(),
        asset: Some(asset.into()),
        extra: Map::from_iter([("of".to_owned(), json!(asset))]),
    };
    simulation.make_saying("maker", vec![named("s3://b/1"), named("s3://b/2")]);
    assert_eq!(simulation.consumed("of_alias", "of"), [[json!("s3://b/1"), json!("s3://b/2")]]);
    assert_eq!(simulation.consumed("of_asset", "of"), [[json!("s3://b/1")]]);
    simulation = simulation.crash_and_restart();
    simulation.make_saying("maker", vec![named("s3://b/2")]);
    assert_eq!(simulation.runs_of("of_alias").len(), 2);
}

#[test]
fn definitions_hold_for_all_files_and_a_contradiction_is_told_in_both() {
    let defined = |extra: u8| format!("{MAKER}[assets.orders]\nuri = \"s3://b/orders\"\nextra = {{ x = {extra} }}\n");
    let mut simulation = Simulation::with(&[
        ("a.toml", &defined(1)),
        ("b.toml", &defined(1)),
        ("eater.toml", &waiter("\"s3://b/orders\"")),
    ]);
    simulation.make("a");
    assert_eq!(simulation.consumed("eater", "x"), [[json!(1)]]);
    assert!(simulation.store.clone().load().unwrap().import_errors.is_empty());
    simulation.save("b.toml", &defined(2));
    let errors = simulation.store.clone().load().unwrap().import_errors;
    let told: Vec<(&str, &str)> = errors.iter().map(|error| (&*error.filename, &*error.code)).collect();
    assert_eq!(told, [("a.toml", "asset-conflict"), ("b.toml", "asset-conflict")]);
    assert!(errors[0].message.contains("`b.toml`") && errors[1].message.contains("`a.toml`"), "{errors:?}");
    assert!(simulation.store.dag("b").unwrap().has_import_errors);
    simulation.make("b");
    assert_eq!(simulation.consumed("eater", "x").last().unwrap(), &[json!(1)], "the first counts");
    simulation.remove("a.toml");
    assert!(simulation.store.clone().load().unwrap().import_errors.is_empty());
    assert!(!simulation.store.dag("b").unwrap().has_import_errors);
    simulation.make("b");
    assert_eq!(simulation.consumed("eater", "x").last().unwrap(), &[json!(2)]);
}

#[test]
fn materialize_runs_the_dag_that_produces_an_asset() {
    let mut simulation = Simulation::with(&[("maker.toml", MAKER), ("eater.toml", &waiter("\"orders\""))]);
    let command = |asset: &str| Command::Materialize { asset: asset.to_owned(), conf: Map::new() };
    let reply = simulation.command(command("orders")).try_recv().unwrap().unwrap();
    let crate::scheduler::command::Done::Materialized { dag_id, run_id, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(&*dag_id, "maker");
    assert!(run_id.starts_with("asset_materialization__2026-11-21T12:30:00+00:00_"), "{run_id}");
    let refused = simulation.command(command("ordres")).try_recv().unwrap().unwrap_err();
    assert_eq!((&*refused.code, &*refused.help), ("unknown-asset", "did you mean `orders`?"));
    simulation.save("second.toml", MAKER);
    let refused = simulation.command(command("orders")).try_recv().unwrap().unwrap_err();
    assert!(refused.message.ends_with("maker, second"), "{refused:?}");
}

#[test]
fn each_file_that_settles_is_seen_by_one_run_over_crashes() {
    let mut simulation = Simulation::with(&[("inbox.toml", INBOX)]);
    assert_eq!(simulation.trace(), ["watch /srv/in/*.csv (0 known)"]);
    simulation.advance(Duration::from_secs(1));
    simulation.drop_files(&["a.csv"]);
    simulation.drop_files(&["a.csv"]);
    assert_eq!(simulation.consumed("inbox", "path"), [[json!("/srv/in/a.csv")]]);
    simulation.drop_files(&["a.csv", "b.csv", "c.csv"]);
    let mut simulation = simulation.crash_and_restart();
    assert!(simulation.trace().contains(&"watch /srv/in/*.csv (3 known)".to_owned()));
    simulation.drop_files(&["a.csv", "b.csv", "c.csv"]);
    simulation.end("inbox.eat", Outcome::Lost);
    let expected = [vec![json!("/srv/in/a.csv")], vec![json!("/srv/in/b.csv"), json!("/srv/in/c.csv")]];
    assert_eq!(simulation.consumed("inbox", "path"), expected);
}

#[test]
fn files_that_lay_there_before_count_only_if_their_asset_catches_up() {
    for (more, expected) in [("", 1), ("catchup = true\n", 2)] {
        let clock = SimulatedClock::starting_at("2026-11-21T12:30:00Z".parse().unwrap());
        let old = i64::try_from(clock.now().as_nanosecond()).unwrap() - 1_000_000_000;
        let mut simulation = Simulation::with(&[("inbox.toml", &format!("{INBOX}{more}"))]);
        let file = |name: &str, changed_at| SettledFile {
            path: format!("/srv/in/{name}").into(),
            stamp: Stamp { inode: 1, size: 1, modified_at: old },
            changed_at,
            lay_there: true,
        };
        let files = vec![file("new.csv", old + 1_000_000_000), file("old.csv", old)];
        simulation.turn(Event::Files { asset: AssetKey(1), files, gone: Vec::new() });
        assert_eq!(simulation.store.asset_events().len(), expected);
        let mut changed = file("old.csv", old);
        changed.stamp.size = 2;
        simulation.turn(Event::Files { asset: AssetKey(1), files: vec![changed], gone: Vec::new() });
        assert_eq!(simulation.store.asset_events().len(), expected + 1, "it is another file now");
        let moved = SettledFile { lay_there: false, ..file("moved.csv", old) };
        simulation.turn(Event::Files { asset: AssetKey(1), files: vec![moved], gone: Vec::new() });
        assert_eq!(simulation.store.asset_events().len(), expected + 2, "it is old, and has come since");
    }
}

#[test]
fn files_that_are_gone_are_forgotten_and_with_the_last_who_waits_all() {
    let ledger = |simulation: &Simulation| simulation.store.clone().load().unwrap().assets.files.len();
    let mut simulation = Simulation::with(&[("inbox.toml", INBOX)]);
    simulation.drop_files(&["a.csv", "b.csv"]);
    assert_eq!(ledger(&simulation), 2);
    let gone = vec!["/srv/in/a.csv".into()];
    simulation.turn(Event::Files { asset: AssetKey(1), files: Vec::new(), gone });
    assert_eq!(ledger(&simulation), 1);
    simulation.save("inbox.toml", &format!("# the same\n{INBOX}"));
    assert_eq!(ledger(&simulation), 1, "an edit changes nothing");
    simulation.trace();
    simulation.save("inbox.toml", &INBOX.replace("*.csv", "*.txt"));
    assert_eq!((simulation.trace(), ledger(&simulation)), (vec!["watch /srv/in/*.txt (0 known)".to_owned()], 0));
    simulation.remove("inbox.toml");
    assert_eq!(simulation.trace(), ["forget files"]);
}

#[test]
fn files_that_a_task_produces_are_its_events_and_not_the_folders() {
    let maker = "tasks.make = { bash = \"x\", outlets = [\"file:///srv/out/a\"] }\n";
    let mut simulation = Simulation::with(&[("a.toml", maker), ("eater.toml", &waiter("\"file:///srv/out/a\""))]);
    assert!(simulation.trace().is_empty());
    simulation.remove("a.toml");
    assert_eq!(simulation.trace(), ["watch /srv/out/a (0 known)"]);
}
