//! Kind `run_creation`: which run is created and promoted when, tick by tick, each a turn of Airflow's loop at a frozen clock.

use std::sync::Arc;

use jiff::Timestamp;
use minflow::model::dag::Position;
use minflow::model::{Bash, Catchup, Crons, Dag, Every, Graph, Intervals, Node, Operator, Period, Schedule};
use minflow::model::{Script, Task, Template, TryKey};
use minflow::scheduler::command::Command;
use minflow::scheduler::decide::Step;
use minflow::scheduler::event::{Event, Outcome, TryEnd};
use minflow::scheduler::port::ReplyTo;
use minflow::scheduler::world::Action;
use serde_json::{Value, json};

use crate::dags::{array, text};
use crate::harness;
use crate::schedules::{instant, shown, zone};
use crate::worlds::{Stage, stored};

fn dag(row: &Value) -> Arc<Dag> {
    let crons = |intervals| {
        let expressions = vec![text(&row["expr"]).to_owned()];
        Schedule::Cron(Crons { expressions, timezone: None, intervals })
    };
    let every = |intervals| {
        let period = Period::Fixed(std::time::Duration::from_secs(row["seconds"].as_u64().unwrap()));
        Schedule::Every(Every { period, intervals })
    };
    let schedule = match text(&row["kind"]) {
        "cron_interval" => crons(Intervals::Data),
        "cron_trigger" => crons(Intervals::Trigger(std::time::Duration::ZERO)),
        "delta_interval" => every(Intervals::Data),
        "delta_trigger" => every(Intervals::Trigger(std::time::Duration::ZERO)),
        other => panic!("no timetable is called {other}"),
    };
    let node = Node::default();
    let script = Script::Text(Template { text: "true".to_owned(), at: Position::default() });
    let tasks = vec![Task::new("a".into(), Operator::Bash(Bash { script }))];
    let mut dag = Dag::new("d".into(), tasks, Graph::new(vec![node], &[]).unwrap());
    dag.schedule = schedule;
    dag.timezone = zone(row, "timezone");
    dag.start_date = instant(&row["start_date"]);
    dag.end_date = instant(&row["end_date"]);
    dag.catchup = if row["catchup"] == true { Catchup::All } else { Catchup::Latest };
    dag.max_active_runs = row["max_active_runs"].as_u64().unwrap().try_into().unwrap();
    Arc::new(dag)
}

/// The tries that were handed over, by run_id.
type Started = std::collections::BTreeMap<String, TryKey>;

struct Play {
    stage: Stage,
    dag: Arc<Dag>,
    started: Started,
}

impl Play {
    fn step(&mut self, step: Step) {
        let now = self.stage.now();
        self.stage.world.step(step, now, &mut self.stage.store).unwrap();
    }

    fn commit(&mut self) {
        for action in self.stage.commit() {
            if let Action::Start(work) = action {
                self.started.insert(work.run.run_id.to_string(), work.key);
            }
        }
    }

    /// A run ends before the turn begins.
    fn finish(&mut self, run_id: &str) -> Result<(), String> {
        let key = self.started.remove(run_id).ok_or_else(|| format!("`{run_id}` has not started"))?;
        let at = self.stage.wall;
        let end = TryEnd { started_at: Some(at), ..TryEnd::new(key, Outcome::Exited(0), at) };
        self.stage.apply(Event::Ended(Box::new(end)));
        Ok(())
    }

    fn act(&mut self, action: &Value) {
        let set = |is_paused| Event::Command {
            command: Command::SetPaused { dag_id: "d".into(), is_paused },
            reply: ReplyTo::new(|_| ()),
        };
        match action.as_str() {
            None => {}
            Some("pause") => self.stage.apply(set(true)),
            Some("unpause") => self.stage.apply(set(false)),
            Some("reparse") => self.stage.save(&self.dag),
            Some(other) => panic!("no action is called {other}"),
        }
    }

    fn shown(&self) -> Value {
        let (_, entry) = self.stage.world.find_dag("d").unwrap();
        let mut runs = Vec::new();
        let mut stored = self.stage.store.runs();
        stored.sort_by_key(|run| run.run_after);
        for run in stored.iter().filter(|run| !run.state.is_finished()) {
            let interval = run.data_interval.unwrap();
            runs.push(json!({
                "run_id": run.run_id, "state": run.state, "logical_date": run.logical_date.map(shown),
                "start": shown(interval.start), "end": shown(interval.end), "run_after": shown(run.run_after),
            }));
        }
        let next = entry.record.next_run;
        let next = json!({
            "logical_date": next.map(|next| shown(next.logical_date)),
            "create_after": next.map(|next| shown(next.run_after)),
        });
        json!({ "runs": runs, "next": next, "exceeds_max": entry.exceeds_max() })
    }
}

fn check(row: &Value) -> Result<(), String> {
    let dag = dag(row);
    // minflow's bound of a first run does not apply to a DAG that was seen long ago.
    let seen: Timestamp = "1970-01-02T00:00:00Z".parse().unwrap();
    let store = stored(&dag, seen, &[], Vec::new());
    let stage = Stage::start(store, &dag, instant(&row["parsed_at"]).unwrap());
    let mut play = Play { stage, dag, started: Started::new() };
    play.commit();
    for (number, tick) in array(&row["ticks"]).iter().enumerate() {
        play.stage.wall = instant(&tick["now"]).unwrap();
        for run_id in array(&tick["finished"]) {
            play.finish(text(run_id)).map_err(|error| format!("tick {number}: {error}"))?;
        }
        play.step(Step::Pass);
        play.commit();
        play.act(&tick["action"]);
        let now = play.stage.now();
        play.stage.world.apply_deadlines(now);
        for step in Step::ALL {
            play.step(step);
        }
        play.commit();
        let got = play.shown();
        let expected = json!({ "runs": tick["runs"], "next": tick["next"], "exceeds_max": tick["exceeds_max"] });
        if got != expected {
            return Err(format!("tick {number}: expected {expected}, got {got}"));
        }
    }
    Ok(())
}

#[test]
fn run_creation() {
    harness::conform("run_creation", "run_creation", &harness::cases("run_creation"), check);
}
