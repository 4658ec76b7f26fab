//! Records and a source of data for the tests of this layer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::json;
use super::routes::{Present, Request, Site};
use super::source::{Facts, Source, SourceError, Which};
use crate::health::Health;
use crate::model::{
    DagId, DagRun, DataInterval, Hook, Instance, InstanceKey, RunKey, RunState, RunType, TaskId, TaskState, Usage,
};
use crate::observe::LiveUsage;
use crate::observe::host::HostProbe;
use crate::scheduler::change::{DagRecord, NextRun};
use crate::scheduler::gauge::{GaugeBoard, Gauges, PoolGauge};
use crate::store::{FailedCallback, RecentFailure};

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn failed_instance() -> Instance {
    Instance {
        state: TaskState::Failed,
        try_number: 2,
        max_tries: 1,
        queued_at: Some(at("2026-11-21T00:00:00Z")),
        start_date: Some(at("2026-11-21T00:00:01Z")),
        end_date: Some(at("2026-11-21T00:00:02.5Z")),
        exit_code: Some(3),
        reason: Some("exit_code <3>".to_owned()),
        usage: Some(Box::new(Usage { user_cpu: Duration::from_millis(250), ..Usage::default() })),
        ..Instance::new(InstanceKey(7), RunKey(1), "load", "default_pool", Arc::from("bash"))
    }
}

pub(crate) fn failure() -> RecentFailure {
    RecentFailure {
        dag_id: "d".into(),
        run_id: "manual__1".into(),
        task_id: "load".into(),
        map_index: -1,
        try_number: 2,
        end_date: Some(at("2026-11-21T00:00:02.5Z")),
        exit_code: Some(3),
        signal: None,
        reason: Some("exit_code <3>".to_owned()),
        start_date: Some(at("2026-11-21T00:00:01Z")),
        usage: Some(Box::new(Usage { max_rss: 4_096, ..Usage::default() })),
    }
}

pub(crate) fn run(dag_id: &str) -> DagRun {
    let tick = at("2026-11-21T00:00:00Z");
    DagRun {
        key: RunKey(1),
        dag_id: dag_id.into(),
        run_id: "scheduled__2026-11-21T00:00:00+00:00".into(),
        run_type: RunType::Scheduled,
        state: RunState::Failed,
        run_after: tick,
        logical_date: Some(tick),
        data_interval: Some(DataInterval { start: tick, end: tick }),
        queued_at: Some(tick),
        start_date: Some(tick),
        end_date: Some(tick),
        conf: serde_json::Map::new(),
        reason: Some("task_failure".to_owned()),
        lag: Some(std::time::Duration::from_millis(12)),
        backfill: None,
        is_released: false,
        clear_number: 0,
    }
}

pub(crate) fn dag(dag_id: &str) -> json::Dag {
    json::Dag::new(&dag_record(dag_id), Some(&run(dag_id)), at("2026-11-21T01:00:00Z"))
}

/// A DAG that is due on 2026-11-22.
pub(crate) fn dag_record(dag_id: &str) -> DagRecord {
    let tick = at("2026-11-22T00:00:00Z");
    DagRecord {
        dag_id: dag_id.into(),
        file: format!("{dag_id}.toml"),
        is_paused: false,
        is_active: true,
        has_import_errors: false,
        schedule: Some("0 0 * * *".to_owned()),
        timezone: "UTC".to_owned(),
        description: String::new(),
        owner: "airflow".to_owned(),
        tags: vec!["a & b".to_owned()],
        max_active_runs: 16,
        max_active_tasks: 16,
        version: None,
        first_seen_at: None,
        next_run: Some(NextRun {
            logical_date: tick,
            data_interval: DataInterval { start: tick, end: tick },
            run_after: tick,
        }),
        last_interval: None,
        pause_reason: None,
    }
}

pub(crate) fn failed_callback() -> FailedCallback {
    FailedCallback {
        dag_id: "sales".into(),
        run_id: Some("manual__1".into()),
        task_id: Some("load".into()),
        hook: Hook::OnFailure,
        number: 2,
        map_index: Some(-1),
        try_number: Some(3),
        ended_at: Some(at("2026-11-21T00:00:02.5Z")),
        reason: Some("no answer from <team>".to_owned()),
    }
}

/// Fixed records.
pub(crate) struct Fixed(Facts);

impl Source for Fixed {
    fn read(&self, which: &Which) -> Result<Facts, SourceError> {
        let mut facts = self.0.clone();
        if let Which::One(dag_id) = which {
            facts.dags.retain(|dag| *dag.dag_id == **dag_id);
        }
        Ok(facts)
    }

    fn usual(&self, tasks: &[(&DagId, &TaskId)]) -> Vec<Option<Duration>> {
        tasks.iter().map(|(_, task_id)| (***task_id == *"load").then_some(Duration::from_secs(90))).collect()
    }
}

/// A database that cannot be read.
pub(crate) struct Broken;

impl Source for Broken {
    fn read(&self, _: &Which) -> Result<Facts, SourceError> {
        Err(SourceError("disk I/O error".to_owned()))
    }

    fn usual(&self, tasks: &[(&DagId, &TaskId)]) -> Vec<Option<Duration>> {
        vec![None; tasks.len()]
    }
}

pub(crate) fn site(dags: usize) -> Site {
    let gauges = GaugeBoard::default();
    let pool = PoolGauge {
        name: "default_pool".to_owned(),
        slots: 128,
        running: 3,
        queued: 1,
        deferred: 2,
        include_deferred: false,
        open: 124,
    };
    gauges.publish(Gauges { parallelism: 32, pools: vec![pool], ..Gauges::default() });
    let facts = Facts {
        dags: (0..dags).map(|at| dag(&format!("dag_{at}"))).collect(),
        recent_failures: vec![json::Failure::new(&failure(), "/home".as_ref(), "/home/logs".as_ref())],
        failed_callbacks: vec![json::FailedCallback::new(&failed_callback(), "/home".as_ref(), "/home/logs".as_ref())],
        ..Facts::default()
    };
    Site {
        source: Arc::new(Fixed(facts)),
        gauges,
        health: Health::default(),
        host: HostProbe::new(vec![std::env::temp_dir()]),
        turn_running_for: Box::new(|| None),
        present: Box::new(|_| Present { waiting: Some(Vec::new()), running: Some(Vec::new()) }),
        live: LiveUsage::default(),
        home: "/home".to_owned(),
        started: Instant::now(),
    }
}

pub(crate) fn get(target: &str) -> Request {
    Request {
        method: "GET".to_owned(),
        target: target.to_owned(),
        hosts: vec!["localhost:8080".to_owned()],
        origin: None,
        port: 8080,
    }
}
