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
use crate::scheduler::event::{self, EventReceiver, TryEnd};
use crate::scheduler::port::{Force, Stray};
use crate::secrets::{Given, Secrets};
use crate::supervisor::fake::FakeSupervisor;
use crate::supervisor::protocol::{Cause, Exit, Request};
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

/// An executor with one worker before a supervisor that answers as `script` says.
struct Stage {
    executor: LocalExecutor,
    supervisor: Arc<FakeSupervisor>,
    events: EventReceiver,
    _home: tempfile::TempDir,
}

impl Stage {
    fn new(script: impl Fn(&Start) -> Vec<Answer> + Send + Sync + 'static, lookup: Arc<dyn Lookup>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (sender, events) = event::channel();
        let settings = ExecutorSettings {
            home: home.path().to_owned(),
            owner: home.path().to_owned(),
            logs: home.path().join("logs"),
            xcoms: home.path().join("xcoms"),
            dags_folder: home.path().join("dags"),
            search_path: "/usr/bin:/bin".to_owned(),
            host: "box".into(),
            tunables: LiveTunables::new(Tunables {
                parallelism: 1,
                max_map_length: 1_024,
                max_log_bytes: 1 << 20,
                overrides_params: true,
                secrets: Arc::new(Secrets::new(Given::default(), [])),
                notifiers: Arc::default(),
            }),
        };
        let clock = Arc::new(SystemClock);
        let executor = LocalExecutor::without_supervisor(settings, lookup, sender, clock, Health::default()).unwrap();
        let shared = executor.shared.clone();
        let notify = Arc::new(move |notice| {
            if let Notice::Answer(answer) = notice {
                let mut news = Vec::new();
                shared.hear(answer, &mut news);
                shared.tell_loop(news);
            }
        });
        let supervisor = Arc::new(FakeSupervisor::new(notify, script));
        *executor.shared.supervisor.lock() = Some(supervisor.clone());
        Self { executor, supervisor, events, _home: home }
    }

    /// Returns when nothing is missing but its start.
    fn prepare(&mut self, work: Work) -> TryKey {
        let key = work.key;
        self.executor.prepare(work);
        let is_ready = || self.executor.shared.tries.lock().get(&key).is_some_and(Slot::is_ready);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !is_ready() {
            assert!(std::time::Instant::now() < deadline, "it is not ready after a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
        key
    }

    fn ended(&self) -> TryEnd {
        loop {
            if let Event::Ended(end) = self.events.recv_timeout(Duration::from_secs(60)).unwrap() {
                return *end;
            }
        }
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
    let mut stage = Stage::new(script, lookup);
    *stage.supervisor.is_gone.lock() = is_gone;
    let work = work(1, bash(bash_script));
    let key = work.key;
    stage.executor.prepare(work);
    stage.executor.start(&[key]);
    stage.ended()
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
        output_to: 0,
        tail: tail.map(str::to_owned),
        noted_bytes: 0,
        notes: Vec::new(),
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

#[test]
fn a_prepared_try_runs_when_it_is_started() {
    let mut stage = Stage::new(|start| ended(start, Exit::Code(0), Cause::Itself, None), Arc::new(NoLookup));
    let key = stage.prepare(work(1, bash("true")));
    assert!(stage.supervisor.seen.lock().is_empty(), "its turn is not committed");
    stage.executor.start(&[key]);
    assert_eq!(stage.ended().outcome, Outcome::Exited(0));
    assert!(matches!(&stage.supervisor.seen.lock()[..], [Request::Start(start)] if start.key == key));
}

#[test]
fn a_prepared_try_that_is_killed_or_finds_no_supervisor_runs_never() {
    let mut stage = Stage::new(|_| Vec::new(), Arc::new(NoLookup));
    let key = stage.prepare(work(1, bash("true")));
    stage.executor.kill(key, Kill { reason: "enough".to_owned(), force: Force::Graceful });
    stage.executor.start(&[key]);
    assert_eq!(stage.ended().outcome, Outcome::Killed { reason: "enough".to_owned() });
    let key = stage.prepare(work(1, bash("true")));
    *stage.supervisor.is_gone.lock() = true;
    stage.executor.start(&[key]);
    assert!(matches!(stage.ended().outcome, Outcome::Unstarted { .. }));
    assert!(stage.supervisor.seen.lock().is_empty());
}

#[test]
fn a_kill_of_a_running_try_follows_its_start() {
    let mut stage = Stage::new(|_| Vec::new(), Arc::new(NoLookup));
    let key = stage.prepare(work(1, bash("true")));
    stage.executor.start(&[key]);
    stage.executor.kill(key, Kill { reason: "enough".to_owned(), force: Force::Immediate });
    let seen = stage.supervisor.seen.lock();
    assert!(matches!(&seen[..], [Request::Start(_), Request::Kill { immediate: true, .. }]), "{seen:?}");
}

#[test]
fn what_is_asked_before_the_start_waits_for_it_and_an_executor_that_closes_waits_for_nothing() {
    let asks = || work(1, bash("echo {{ ti.xcom_pull('other') }}"));
    let mut stage = Stage::new(|_| Vec::new(), Arc::new(BrokenLookup));
    let key = asks().key;
    stage.executor.prepare(asks());
    stage.executor.start(&[key]);
    assert!(matches!(stage.ended().outcome, Outcome::Unstarted { .. }), "it asked when it was started");
    stage.executor.prepare(asks());
    drop(stage.executor);
    assert!(stage.events.try_iter().next().is_none_or(|event| matches!(event, Event::Ended(_))));
}

/// An earlier supervisor that has nothing: gives its end of the line once it was greeted.
fn empty_supervisor(home: &std::path::Path) -> std::thread::JoinHandle<std::os::unix::net::UnixStream> {
    use crate::supervisor::adoption::{self, Name, Told};
    let name = Name { greeted_at: 1, pid: 1 };
    let listener = std::os::unix::net::UnixListener::bind(home.join(name.socket())).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = Vec::new();
        adoption::say(&Told::Hello { version: adoption::VERSION, pid: 1 }, &mut said);
        adoption::say(&Told::Listed, &mut said);
        std::io::Write::write_all(&mut stream, &said).unwrap();
        stream
    })
}

#[test]
fn an_earlier_supervisor_for_which_there_is_no_thread_is_told_of_and_heard_as_soon_as_there_is_one() {
    use crate::supervisor::adoption::{self, Ended, Fate, Kept, Lines, Told as Said};
    let stage = Stage::new(|_| Vec::new(), Arc::new(NoLookup));
    let server = empty_supervisor(stage._home.path());
    let earlier = adopter::find(stage._home.path(), 0).supervisors.pop().unwrap();
    let mut stream = server.join().unwrap();
    let shared = &stage.executor.shared;
    shared.adoptions.lock().spawn = |_| Err(io::Error::from_raw_os_error(libc::EAGAIN));
    let line = earlier.line().unwrap();
    shared.listen(earlier, line);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while shared.health.reasons().is_empty() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(shared.health.reasons()[0].starts_with("adoption: an earlier supervisor cannot be heard"));
    shared.adoptions.lock().spawn = adopt::spawn;
    // What it tells is heard: it is told that nobody waits for this end.
    let fate = Fate::NotStarted { is_transient: false, message: "no".to_owned() };
    let mut said = Vec::new();
    adoption::say(&Said::Ended(Box::new(Ended { key: (7, 1), kept: Kept::default(), fate })), &mut said);
    std::io::Write::write_all(&mut stream, &said).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (mut lines, mut heard, mut bytes) = (Lines::default(), Vec::<adoption::Ask>::new(), [0; 1024]);
    while heard.len() < 2 {
        let count = std::io::Read::read(&mut stream, &mut bytes).unwrap();
        assert!(count > 0);
        lines.feed(&bytes[..count]);
        heard.extend(lines.take::<adoption::Ask>().unwrap());
    }
    assert_eq!(heard[1], adoption::Ask::Acknowledge { keys: vec![(7, 1)] });
    assert_eq!(shared.health.reasons(), [""; 0]);
}

#[test]
fn all_that_are_lost_at_once_take_one_look_at_the_processes_of_the_host() {
    use std::sync::atomic::AtomicUsize;
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let mut stage = Stage::new(|_| Vec::new(), Arc::new(NoLookup));
    stage.executor.shared.adoptions.lock().look = || {
        LOOKS.fetch_add(1, Ordering::SeqCst);
        reclaim::processes()
    };
    let stray = |instance| {
        let Work { key, run, .. } = work(instance, bash("true"));
        let (kill_signal, grace) = (libc::SIGTERM, Duration::from_secs(5));
        let (process, handed_at, work, unwanted) = (None, None, None, None);
        let (task_id, map_index, is_paused) = ("t".into(), -1, false);
        Stray { key, run, task_id, map_index, kill_signal, grace, process, handed_at, work, is_paused, unwanted }
    };
    // An earlier minflow's.
    let tries = (1..=300).map(stray).collect();
    stage.executor.reclaim(Left { tries, calls: Vec::new() });
    let ended: Vec<Outcome> = (1..=300).map(|_| stage.ended().outcome).collect();
    assert!(ended.iter().all(|outcome| *outcome == Outcome::Lost));
    assert_eq!(LOOKS.load(Ordering::SeqCst), 1);
    // This one's.
    for instance in 301..=310 {
        let key = TryKey { instance: InstanceKey(instance), try_number: 1 };
        stage.prepare(Work { key, ..work(1, bash("true")) });
        stage.executor.start(&[key]);
    }
    stage.executor.shared.abandon();
    let ended: Vec<Outcome> = (301..=310).map(|_| stage.ended().outcome).collect();
    assert!(ended.iter().all(|outcome| *outcome == Outcome::Lost));
    assert_eq!(LOOKS.load(Ordering::SeqCst), 2);
}
