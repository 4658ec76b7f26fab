//! The executor in front of a supervisor without processes: what each answer becomes.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::clock::SystemClock;
use crate::model::dag::Position;
use crate::model::{
    Bash, Dag, DagId, DagRun, Graph, InstanceKey, Node, Operator, RunId, RunKey, RunState, RunType, Script, Task,
    TaskIx, Template, Usage,
};
use crate::scheduler::event::TryEnd;
use crate::secrets::{Given, Secrets};
use crate::supervisor::fake::FakeSupervisor;
use crate::supervisor::protocol::{Cause, Exit};
use crate::template::NoLookup;

/// Answers nothing, and panics when it is asked for another run.
struct BrokenLookup;

impl Lookup for BrokenLookup {
    fn xcom(&self, _: RunKey, _: &str, _: i32, _: &str) -> Result<Option<Value>, String> {
        Err("no descriptors".to_owned())
    }

    fn previous_success(&self, _: &DagId, _: Timestamp) -> Result<Option<DagRun>, String> {
        Err("no descriptors".to_owned())
    }

    fn xcoms(&self, _: RunKey, _: &str, _: &str) -> Result<Vec<(i32, Value)>, String> {
        Err("no descriptors".to_owned())
    }

    fn earlier_xcoms(&self, _: &DagId, _: &str, _: &str, _: Timestamp) -> Result<Vec<(i32, Value)>, String> {
        Err("no descriptors".to_owned())
    }

    fn run_key(&self, _: &DagId, _: &RunId) -> Result<Option<RunKey>, String> {
        panic!("as a fault of minflow's would")
    }
}

fn text(text: &str) -> Template {
    Template { text: text.to_owned(), at: Position { line: 3, column: 8 } }
}

fn bash(script: &str) -> Operator {
    Operator::Bash(Bash { script: Script::Text(text(script)) })
}

fn work(instance: i64, operator: Operator) -> Work {
    let task = Task {
        owner: "me".to_owned(),
        env: vec![("GREETING".to_owned(), text("hello {{ run_id }}"))],
        ..Task::new("t".into(), operator)
    };
    let node = Node::default();
    let dag = Dag::new("d".into(), vec![task], Graph::new(vec![node], &[]).unwrap());
    let run = DagRun {
        state: RunState::Running,
        ..DagRun::new(RunKey(1), "d".into(), "manual__1".into(), RunType::Manual, Timestamp::UNIX_EPOCH)
    };
    Work {
        key: TryKey { instance: InstanceKey(instance), try_number: instance as u32 },
        dag: Arc::new(dag),
        file: "d.toml".into(),
        task: TaskIx(0),
        map_index: -1,
        run: Arc::new(run),
        max_tries: 0,
        earlier: None,
        epoch: 0,
    }
}

/// Runs one try whose start is answered as `script` says.
fn run_with(script: impl Fn(&Start) -> Vec<Answer> + Send + Sync + 'static, is_gone: bool) -> TryEnd {
    run_try(script, is_gone, "true", Arc::new(NoLookup))
}

fn run_try(
    script: impl Fn(&Start) -> Vec<Answer> + Send + Sync + 'static,
    is_gone: bool,
    bash_script: &str,
    lookup: Arc<dyn Lookup>,
) -> TryEnd {
    let home = tempfile::tempdir().unwrap();
    let (sender, events) = channel::unbounded();
    let settings = ExecutorSettings {
        home: home.path().to_owned(),
        owner: home.path().to_owned(),
        logs: home.path().join("logs"),
        xcoms: home.path().join("xcoms"),
        dags_folder: home.path().join("dags"),
        parallelism: 1,
        max_map_length: 1_024,
        max_log_bytes: 1 << 20,
        overrides_params: true,
        search_path: "/usr/bin:/bin".to_owned(),
        secrets: Arc::new(Secrets::new(Given::default(), [])),
        notifiers: Arc::default(),
    };
    let clock = Arc::new(SystemClock);
    let mut executor = LocalExecutor::without_supervisor(settings, lookup, sender, clock, Health::default()).unwrap();
    let shared = executor.shared.clone();
    let notify = Arc::new(move |notice| {
        if let Notice::Answer(answer) = notice {
            shared.hear(answer);
        }
    });
    let fake = FakeSupervisor::new(notify, script);
    *fake.is_gone.lock() = is_gone;
    *executor.shared.supervisor.lock() = Some(Arc::new(fake));
    executor.start(work(1, bash(bash_script)));
    loop {
        if let Event::Ended(end) = events.recv_timeout(Duration::from_secs(60)).unwrap() {
            return *end;
        }
    }
}

fn ended(start: &Start, exit: Exit, cause: Cause, tail: Option<&str>) -> Vec<Answer> {
    let at = Timestamp::UNIX_EPOCH;
    vec![Answer::Ended(Box::new(End {
        key: start.key,
        exit,
        cause,
        usage: Usage::default(),
        started_at: at,
        ended_at: at,
        log_bytes_dropped: tail.map_or(0, |_| 1),
        tail: tail.map(str::to_owned),
    }))]
}

#[test]
fn a_host_without_processes_lets_the_try_wait_and_a_faulty_task_fails() {
    let refuse =
        |kind| move |start: &Start| vec![Answer::NotStarted { key: start.key, kind, message: "why".to_owned() }];
    let reason = || "why".to_owned();
    assert_eq!(run_with(refuse(Refusal::Transient), false).outcome, Outcome::Unstarted { reason: reason() });
    assert_eq!(run_with(refuse(Refusal::Permanent), false).outcome, Outcome::Faulted { reason: reason() });
}

#[test]
fn a_try_without_a_supervisor_waits() {
    let end = run_with(|_| Vec::new(), true);
    assert!(matches!(end.outcome, Outcome::Unstarted { .. }));
}

#[test]
fn the_output_line_of_a_log_that_was_cut_comes_from_its_tail() {
    let end = run_with(|start| ended(start, Exit::Code(0), Cause::Itself, Some("x\nlast\n")), false);
    assert_eq!(end.xcoms, [("return_value".to_owned(), json!("last"))]);
}

#[test]
fn a_timeout_is_one_however_the_process_left() {
    let end = run_with(|start| ended(start, Exit::Code(0), Cause::TimedOut, None), false);
    assert_eq!((end.outcome, end.xcoms), (Outcome::TimedOut, Vec::new()));
}

#[test]
fn a_template_whose_question_is_not_answered_lets_the_try_wait() {
    let asks = |script| run_try(|_| Vec::new(), false, script, Arc::new(BrokenLookup)).outcome;
    let Outcome::Unstarted { reason } = asks("echo {{ ti.xcom_pull('other') }}") else {
        panic!("it is the host's fault")
    };
    assert!(reason.contains("no descriptors"), "{reason}");
    assert!(matches!(asks("echo {{ nonsense }}"), Outcome::Faulted { .. }));
}

#[test]
fn a_fault_of_minflow_fails_its_try_and_no_other() {
    let end = run_try(|_| Vec::new(), false, "echo {{ ti.xcom_pull('t', run_id='other') }}", Arc::new(BrokenLookup));
    let Outcome::Faulted { reason } = end.outcome else { panic!("{:?}", end.outcome) };
    assert!(reason.contains("please report it"), "{reason}");
}
