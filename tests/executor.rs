//! The executor with the real supervisor: whole tries of small DAGs, from template to XCom.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use minflow::clock::SystemClock;
use minflow::executor::{ExecutorSettings, LiveTunables, LocalExecutor, Tunables, environment, paths};
use minflow::health::Health;
use minflow::model::dag::Position;
use minflow::model::{
    Bash, Dag, DagRun, Graph, InstanceKey, Node, Operator, Python, RetryRule, RunKey, RunState, RunType, Script, Task,
    TaskIx, Template, TryKey,
};
use minflow::scheduler::event::{self, Event, EventReceiver, Outcome, TryEnd};
use minflow::scheduler::port::{Executor, Force, Kill, Left, Stray, Work};
use minflow::secrets::{Given, Secrets};
use minflow::supervisor::adoption::{self, Name};
use minflow::supervisor::{Origin, Tasks, procfs, spawn, sys};
use minflow::template::NoLookup;
use serde_json::{Map, json};

const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    home: tempfile::TempDir,
    executor: LocalExecutor,
    events: EventReceiver,
    supervisor: i32,
    health: Health,
}

fn bench() -> Bench {
    bench_in(tempfile::tempdir().unwrap(), Tasks::EndWithIt)
}

fn bench_in(home: tempfile::TempDir, tasks: Tasks) -> Bench {
    let exe = env!("CARGO_BIN_EXE_minflow").into();
    let handle = spawn(&Origin { exe, home: home.path().to_owned(), cgroup: None, tasks }).unwrap();
    let supervisor = handle.pid();
    let (sender, events) = event::channel();
    let settings = ExecutorSettings {
        home: home.path().to_owned(),
        owner: home.path().to_owned(),
        logs: home.path().join("logs"),
        xcoms: home.path().join("xcoms"),
        dags_folder: home.path().join("dags"),
        search_path: std::env::var("PATH").unwrap(),
        host: "box".into(),
        tunables: LiveTunables::new(Tunables {
            parallelism: 2,
            max_map_length: 1_024,
            max_log_bytes: 1 << 20,
            overrides_params: true,
            secrets: Arc::new(Secrets::new(Given::default(), [])),
            notifiers: Arc::default(),
        }),
    };
    let (lookup, clock) = (Arc::new(NoLookup), Arc::new(SystemClock));
    let health = Health::default();
    let executor = LocalExecutor::start(settings, handle, lookup, sender, clock, health.clone()).unwrap();
    Bench { home, executor, events, supervisor, health }
}

fn text(text: &str) -> Template {
    Template { text: text.to_owned(), at: Position { line: 3, column: 8 } }
}

fn bash(script: &str) -> Operator {
    Operator::Bash(Bash { script: Script::Text(text(script)) })
}

fn python(script: Script, function: Option<&str>) -> Operator {
    Operator::Python(Python {
        script,
        function: function.map(str::to_owned),
        args: vec![json!("{{ run_id }}")],
        kwargs: Map::from_iter([("n".to_owned(), json!(2))]),
        arguments_at: Position::default(),
        interpreter: text("python3"),
        venv: None,
    })
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

impl Bench {
    fn ended(&self) -> TryEnd {
        loop {
            if let Event::Ended(end) = self.events.recv_timeout(PATIENCE).unwrap() {
                return *end;
            }
        }
    }

    fn start(&mut self, work: Work) {
        let key = work.key;
        self.executor.prepare(work);
        self.executor.start(&[key]);
    }

    fn run(&mut self, instance: i64, operator: Operator) -> TryEnd {
        self.start(work(instance, operator));
        self.ended()
    }

    fn log(&self, instance: u32) -> String {
        let path = paths::log_path(&self.home.path().join("logs"), "d", "manual__1", "t", -1, instance);
        fs::read_to_string(path).unwrap()
    }
}

fn faulted(end: &TryEnd) -> &str {
    match &end.outcome {
        Outcome::Faulted { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bash_try_leaves_its_last_line_its_xcom_file_and_a_log() {
    let mut bench = bench();
    let script = "pwd; echo k=v > $MINFLOW_XCOM; echo $GREETING $AIRFLOW_CTX_DAG_OWNER $MINFLOW_TRY_NUMBER; exit 0";
    let end = bench.run(1, bash(script));
    assert_eq!(end.outcome, Outcome::Exited(0));
    let pair = |key: &str, value: &str| (key.to_owned(), json!(value));
    assert_eq!(end.xcoms, [pair("k", "v"), pair("return_value", "hello manual__1 me 1")]);
    let log = bench.log(1);
    let lines: Vec<&str> = log.lines().collect();
    let run_dir = paths::run_dir(bench.home.path(), "d", "manual__1");
    assert_ne!(
        fs::read_dir(paths::scratch_folder(&run_dir)).unwrap().count(),
        0,
        "they are kept until the end is recorded"
    );
    bench.executor.acknowledge(&[end.key]);
    assert!(lines[0].contains("begins try 1") && lines[3].contains("exit code 0"), "{log}");
    assert_eq!(lines[1], run_dir.to_str().unwrap());
    assert_eq!(fs::read_dir(paths::scratch_folder(&run_dir)).unwrap().count(), 0, "files of the try are left");
    assert_eq!(bench.run(2, bash("echo skipped; exit 99")).outcome, Outcome::Exited(99));
    let failed = bench.run(3, bash("echo x; exit 4"));
    assert_eq!((failed.outcome, failed.xcoms), (Outcome::Exited(4), Vec::new()));
}

/// Which of three patterns the output of a failing script matches.
fn matched(bench: &mut Bench, instance: i64, script: &str, timeout: Option<Duration>) -> Vec<String> {
    let rule = |pattern: &str| RetryRule {
        ended: None,
        output: Some(pattern.to_owned()),
        retries: Some(1),
        retry_delay: None,
    };
    let mut work = work(instance, bash(script));
    let task = &mut Arc::make_mut(&mut work.dag).tasks[0];
    task.retry_on = ["^reset", "timed (out|in)$", "minflow: begins"].map(rule).to_vec();
    task.execution_timeout = timeout;
    bench.start(work);
    bench.ended().matched
}

#[test]
fn the_output_of_a_try_that_fails_is_matched_and_of_no_other() {
    let mut bench = bench();
    assert_eq!(
        matched(&mut bench, 1, "echo reset; echo it timed out >&2; exit 28", None),
        ["^reset", "timed (out|in)$"]
    );
    assert_eq!(matched(&mut bench, 2, r"printf 'timed out\nbut \377 reset'; kill -KILL $$", None), ["timed (out|in)$"]);
    assert_eq!(matched(&mut bench, 3, "echo reset; sleep 100", Some(Duration::from_secs(5))), ["^reset"]);
    assert_eq!(matched(&mut bench, 4, "exit 1", None), [""; 0], "minflow's own lines are not the task's");
    assert_eq!(matched(&mut bench, 5, "echo reset", None), [""; 0]);
    assert_eq!(matched(&mut bench, 6, "echo reset; exit 99", None), [""; 0], "it is skipped");
    // More than the log takes: its end counts, wherever the file was cut.
    let long = "echo reset; yes | head -c 3000000; echo timed out; exit 1";
    assert_eq!(matched(&mut bench, 7, long, None), ["timed (out|in)$"]);
}

#[test]
fn a_python_try_leaves_its_value_as_json() {
    let mut bench = bench();
    let end = bench.run(1, python(Script::Text(text("print('noise')\nresult = {'a': [1, None]}")), None));
    assert_eq!(end.xcoms, [("return_value".to_owned(), json!({ "a": [1, null] }))]);
    fs::create_dir(bench.home.path().join("dags")).unwrap();
    fs::write(bench.home.path().join("dags/s.py"), "def f(run, n):\n    return [run] * n\n").unwrap();
    let end = bench.run(2, python(Script::File("s.py".to_owned()), Some("f")));
    assert_eq!(end.xcoms, [("return_value".to_owned(), json!(["manual__1", "manual__1"]))]);
    let end = bench.run(3, python(Script::Text(text("x = 1\nraise ValueError('oops')")), None));
    assert_eq!(end.outcome, Outcome::Exited(1));
    let log = bench.log(3);
    assert!(log.contains("line 2, in <module>") && log.contains("ValueError: oops"), "{log}");
    assert!(!log.contains("<string>"), "{log}");
}

#[test]
fn what_is_wrong_with_a_task_is_said_in_its_reason_and_its_log() {
    let mut bench = bench();
    let undefined = bench.run(1, bash("echo {{ nonsense }}"));
    assert!(faulted(&undefined).contains("dags/d.toml:3"), "{}", faulted(&undefined));
    assert!(bench.log(1).contains("nonsense"));
    let missing = bench.run(2, Operator::Bash(Bash { script: Script::File("no.sh".to_owned()) }));
    assert!(faulted(&missing).contains("no.sh` does not exist"));
    let Operator::Python(mut python) = python(Script::Text(text("")), None) else { panic!() };
    python.interpreter = text("no-such-python");
    assert!(faulted(&bench.run(3, Operator::Python(python))).contains("`no-such-python` was not found"));
    let long = format!("# {}\necho long", "x".repeat(300_000));
    assert_eq!(bench.run(4, bash(&long)).xcoms[0].1, json!("long"));
}

#[test]
fn a_kill_reaches_a_try_that_runs_and_one_that_still_waits_for_a_worker() {
    let mut bench = bench();
    for instance in 1..=3 {
        bench.start(work(instance, bash("sleep 1000")));
    }
    let kill = || Kill { reason: "stopped".to_owned(), force: Force::Graceful };
    for instance in [3, 2, 1] {
        bench.executor.kill(work(instance, bash("")).key, kill());
    }
    for _ in 0..3 {
        assert_eq!(bench.ended().outcome, Outcome::Killed { reason: "stopped".to_owned() });
    }
}

#[test]
fn when_the_supervisor_dies_its_tries_are_ended_and_lost_and_work_goes_on() {
    let mut bench = bench();
    bench.start(work(1, bash("sleep 1000")));
    let Event::Started(attempt) = bench.events.recv_timeout(PATIENCE).unwrap() else { panic!() };
    sys::kill(bench.supervisor, 9).unwrap();
    assert_eq!(bench.ended().outcome, Outcome::Lost);
    assert!(procfs::stat(attempt.process.pid).is_none_or(|stat| stat.has_ended()));
    let mut instance = 2;
    // Until another supervisor stands, tries wait.
    while let Outcome::Unstarted { .. } = bench.run(instance, bash("true")).outcome {
        instance += 1;
        assert!(instance < 10_000);
    }
}

#[test]
fn that_tries_could_not_be_started_is_over_as_soon_as_one_starts() {
    let mut bench = bench();
    bench.health.raise("tasks", "cannot be started and wait: no memory");
    bench.start(work(1, bash("sleep 1000")));
    let Event::Started(_) = bench.events.recv_timeout(PATIENCE).unwrap() else { panic!() };
    assert_eq!(bench.health.reasons(), [""; 0]);
}

#[test]
fn a_stray_is_found_by_its_mark_ended_and_lost() {
    let mut bench = bench();
    let work = work(1, bash("true"));
    let mut stray = std::process::Command::new("sleep")
        .arg("1000")
        .env(environment::MARK, environment::mark(bench.home.path(), work.key))
        .process_group_of_its_own()
        .spawn()
        .unwrap();
    let known = left_of(&work, None);
    bench.executor.reclaim(Left { tries: vec![known], calls: Vec::new() });
    assert_eq!(bench.ended().outcome, Outcome::Lost);
    assert!(!stray.wait().unwrap().success());
}

/// A try as the database has it; `handed_at`: its start was never recorded.
fn left_of(work: &Work, handed_at: Option<Timestamp>) -> Stray {
    let task = work.dag.task(work.task);
    Stray {
        key: work.key,
        run: work.run.clone(),
        task_id: task.task_id.clone(),
        map_index: work.map_index,
        kill_signal: task.kill_signal,
        grace: task.grace,
        process: None,
        handed_at,
        work: None,
        is_paused: false,
        unwanted: None,
    }
}

/// What becomes of a try that was handed over to a supervisor that has lived to its end, after what `prepare` has made of the bench.
fn end_of_unbegun(prepare: impl FnOnce(&Bench, &Work)) -> Outcome {
    let home = tempfile::tempdir().unwrap();
    let name = Name { greeted_at: 1, pid: 1 };
    fs::write(home.path().join(name.past()), adoption::past(&procfs::boot_id(), 0)).unwrap();
    let mut bench = bench_in(home, Tasks::OutliveIt);
    let work = work(1, bash("true"));
    prepare(&bench, &work);
    let known = left_of(&work, Some(Timestamp::now()));
    bench.executor.reclaim(Left { tries: vec![known], calls: Vec::new() });
    let outcome = bench.ended().outcome;
    let word = bench.home.path().join(name.past());
    assert!(word.exists(), "it goes when the end is recorded");
    bench.executor.acknowledge(&[work.key]);
    assert!(!word.exists());
    outcome
}

#[test]
fn a_try_that_no_supervisor_has_begun_is_put_back_unless_something_of_it_is_there() {
    assert_eq!(end_of_unbegun(|_, _| {}), Outcome::NeverBegun);
    let logged = |bench: &Bench, work: &Work| {
        let task = work.dag.task(work.task);
        let logs = bench.home.path().join("logs");
        let log = paths::log_path(&logs, &work.run.dag_id, &work.run.run_id, &task.task_id, -1, work.key.try_number);
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::write(&log, "said\n").unwrap();
    };
    assert_eq!(end_of_unbegun(logged), Outcome::Lost);
    let mut left = None;
    let running = |bench: &Bench, work: &Work| {
        let mut sleep = std::process::Command::new("sleep");
        sleep.arg("1000").env(environment::MARK, environment::mark(bench.home.path(), work.key));
        left = Some(sleep.process_group_of_its_own().spawn().unwrap());
    };
    assert_eq!(end_of_unbegun(running), Outcome::Lost);
    assert!(!left.unwrap().wait().unwrap().success());
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for std::process::Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}
