//! Kind `critical_section`: what one pass of Airflow's starts, in order. Each case is a database of several DAGs that minflow is
//! started on; then it makes the one step that starts what is ready.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use minflow::dagfile::{self, Defaults};
use minflow::model::{Dag, DagRun, Instance, InstanceKey, Pool, RunKey, RunState, RunType, TaskState};
use minflow::scheduler::change::{DagRecord, RunWrite};
use minflow::scheduler::decide::Step;
use minflow::scheduler::event::{DagFile, Event, Found};
use minflow::scheduler::ready::Choosing;
use minflow::scheduler::world::{Action, Settings, World};
use minflow::scheduler::{Changes, InstanceWrite, Store};
use minflow::store::MemoryStore;
use serde_json::Value;

use crate::dags::{array, named, state, text};
use crate::harness;
use crate::worlds::{at, begun};

/// A DAG, a run and a task, by their ids.
type Names = (String, String, String);

fn dag(row: &Value) -> Arc<Dag> {
    let mut file = format!("dag_id = '{}'\nmax_active_tasks = {}\n", text(&row["dag_id"]), row["max_active_tasks"]);
    for task in array(&row["tasks"]) {
        let _ = write!(file, "[tasks.{}]\nbash = 'true'\nweight_rule = 'absolute'\n", text(&task["id"]));
        for key in ["priority_weight", "pool", "pool_slots", "max_active_tis_per_dag", "max_active_tis_per_dagrun"] {
            if !task[key].is_null() {
                let _ = writeln!(file, "{key} = {}", task[key]);
            }
        }
    }
    // One of them nobody defines: a file that names such a pool is refused, but one may vanish later.
    let pools = array(&row["tasks"]).iter().map(|task| (text(&task["pool"]).into(), -1)).collect();
    let defaults = Defaults { pools, ..Defaults::default() };
    Arc::new(dagfile::parse(Path::new("d.toml"), file.as_bytes(), &defaults).unwrap())
}

fn instance(key: i64, run: &DagRun, task: &Value, state: TaskState) -> Instance {
    begun(Instance {
        state,
        pool_slots: task["pool_slots"].as_u64().unwrap() as u32,
        priority_weight: task["priority_weight"].as_i64().unwrap(),
        ..Instance::new(InstanceKey(key), run.key, text(&task["id"]), text(&task["pool"]), "bash")
    })
}

/// The rows of a case, and the names of its instances.
struct Rows {
    dags: Vec<Arc<Dag>>,
    changes: Changes,
    names: BTreeMap<InstanceKey, Names>,
    executing: u32,
}

fn rows(case: &Value, now: Timestamp) -> Rows {
    let mut rows = Rows { dags: Vec::new(), changes: Changes::default(), names: BTreeMap::new(), executing: 0 };
    for row in array(&case["dags"]) {
        let dag = dag(row);
        let is_paused = row["is_paused"].as_bool().unwrap();
        let record = DagRecord::new(&dag, format!("{}.toml", dag.dag_id));
        rows.changes.dags.push(DagRecord { first_seen_at: Some(now), is_paused, ..record });
        let tasks: BTreeMap<&str, &Value> = array(&row["tasks"]).iter().map(|task| (text(&task["id"]), task)).collect();
        for of_run in array(&row["runs"]) {
            let date = text(&of_run["logical_date"]).parse().unwrap();
            let (key, run_id) = (RunKey(rows.changes.runs.len() as i64 + 1), text(&of_run["run_id"]));
            let blank = DagRun::new(key, dag.dag_id.clone(), run_id.into(), RunType::Manual, date);
            let state_of_run: RunState = named(&of_run["state"]).unwrap();
            let run = DagRun { state: state_of_run, logical_date: Some(date), ..blank };
            for ti in array(&of_run["tis"]) {
                let instance =
                    instance(rows.names.len() as i64 + 1, &run, tasks[text(&ti["task"])], state(&ti["state"]));
                rows.executing += u32::from(instance.state.is_executing());
                let names = (dag.dag_id.to_string(), run_id.to_owned(), instance.task_id.to_string());
                rows.names.insert(instance.key, names);
                rows.changes.instances.push(InstanceWrite { instance, dag_id: dag.dag_id.clone(), prior: None });
            }
            rows.changes.runs.push(RunWrite { run, prior: None });
        }
        rows.dags.push(dag);
    }
    rows
}

/// What one pass starts, in order.
fn started(case: &Value) -> Vec<Names> {
    let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    let Rows { dags, changes, names, executing } = rows(case, now);
    let mut store = MemoryStore::default();
    store.commit(&changes).unwrap();
    let pool = |row: &Value| Pool {
        name: text(&row["name"]).into(),
        slots: row["slots"].as_i64().unwrap(),
        description: String::new(),
        include_deferred: row["include_deferred"].as_bool().unwrap(),
    };
    let settings = Settings {
        parallelism: executing + case["executor_slots"].as_u64().unwrap() as u32,
        drain_timeout: Duration::from_secs(1),
        drained: minflow::scheduler::world::Drained::Kept,
        admission: minflow::model::AdmissionRules::default(),
        choosing: Choosing { rows: NonZeroU32::new(case["max_tis"].as_u64().unwrap() as u32), ..Choosing::default() },
        pools: array(&case["pools"]).iter().map(pool).collect(),
        overrides: minflow::params::Override::Params,
        assets: Vec::new(),
    };
    let mut world = World::new(settings, store.load().unwrap(), Box::new(|_, _| None), at(now));
    let file = |dag: &Arc<Dag>| DagFile {
        path: format!("{}.toml", dag.dag_id).into(),
        modified_at: None,
        found: Found::Parsed { dag: dag.clone(), source: "".into(), hash: "1".into() },
    };
    let files = dags.iter().map(file).collect();
    world.apply(Event::DagFiles { files, complete: true }, at(now), &mut store);
    world.apply(Event::Scanned, at(now), &mut store);
    world.step(Step::Start, at(now), &mut store).unwrap();
    let (_, actions) = world.take_turn();
    let name = |action| if let Action::Start(work) = action { Some(names[&work.key.instance].clone()) } else { None };
    actions.into_iter().filter_map(name).collect()
}

fn check(case: &Value) -> Result<(), String> {
    let name = |row: &Value| ["dag_id", "run_id", "task_id"].map(|key| text(&row[key]).to_owned());
    let mut expected: Vec<Names> = array(&case["expect_queued"]).iter().map(|row| name(row).into()).collect();
    let mut got = started(case);
    let shown = format!("expected {expected:?}, got {got:?}");
    if case["order_ties"].as_bool().unwrap() {
        expected.sort();
        got.sort();
    }
    if got == expected { Ok(()) } else { Err(shown) }
}

#[test]
fn critical_section() {
    harness::conform("critical_section", "critical_section", &harness::cases("critical_section"), check);
}
