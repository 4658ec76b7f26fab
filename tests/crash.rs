//! The real binary on real DAGs, ended at random moments, again and again: nothing finished is lost, nothing runs twice.
//!
//! Every task writes a line to a ledger when it begins and one when it ends, with the instant; in the end the database is held against
//! it. The instants and ways of the ends follow from a seed, which is printed. `MINFLOW_CRASHES=2000` has it go on for longer (200),
//! `MINFLOW_CRASH_SEED=N` repeats a choice of instants; what else the host does meanwhile is its own affair.

#![allow(clippy::unwrap_used)] // a test that cannot go on is a failed test
#![allow(dead_code)] // the harness has more than is needed here

#[path = "minflow/harness.rs"]
mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use rustix::process::Signal;

use harness::{Home, signal, supervisors, until};

/// Each task says `start|end DAG/RUN/TASK/INDEX TRY MICROSECONDS`.
const SAY: &str = r#"say() { echo "$1 $MINFLOW_DAG_ID/$MINFLOW_RUN_ID/$MINFLOW_TASK_ID/$MINFLOW_MAP_INDEX $MINFLOW_TRY_NUMBER ${EPOCHREALTIME/./}" >> $MINFLOW_HOME/ledger; }; say start; "#;

/// Whatever is lost is tried again.
const HEAD: &str = "default_args.retries = 1000\ndefault_args.retry_delay = 0\ndefault_args.grace = \"1s\"\n";

fn task(name: &str, work: &str, more: &str) -> String {
    format!("[tasks.{name}]\nbash = '''\n{SAY}{work}; say end\n'''\n{more}\n")
}

/// The DAGs: by file, with their schedules or none.
fn dags(schedule: &str, note: u64) -> Vec<(&'static str, String)> {
    let head = format!("description = \"written for the {note}. time\"\n{schedule}{HEAD}");
    let mut grid = head.clone();
    for row in 0..4 {
        for column in 0..4 {
            let after = if row == 0 { String::new() } else { format!("depends_on = [\"t{}_{column}\"]", row - 1) };
            grid.push_str(&task(&format!("t{row}_{column}"), "sleep 0.02", &after));
        }
    }
    let long = format!("{head}{}{}", task("long", "sleep 1.5", ""), task("after", "true", "depends_on = [\"long\"]"));
    let list = task("list", "true", "output = \"json\"").replace("say end", "say end; echo '[1, 2, 3, 4, 5]'");
    let each = task("each", "sleep 0.0{{ item }}", "expand = { item = { xcom = \"list\" } }");
    let mapped = format!("{head}{list}{each}");
    let again = task("again", "if [ $MINFLOW_TRY_NUMBER = 1 ]; then say end; exit 3; fi", "");
    let skips = task("skips", "say end; exit 99", "");
    let again = format!("{head}{again}{skips}");
    let strict =
        task("strict", "(setsid sleep 0.05 &); sleep 0.03", "kill_tree = \"strict\"\nlimits = { open_files = 64 }");
    let strict = format!("{head}{strict}");
    let call = r#"echo "$MINFLOW_DAG_ID/$MINFLOW_RUN_ID" >> $MINFLOW_HOME/calls"#;
    let failing = task("fails", "say end; exit 5", "retries = 0");
    let calls = format!("on_failure = [{{ bash = '{call}' }}]\n{head}{failing}");
    let past = format!("schedule = \"@daily\"\n{HEAD}{}", task("past", "sleep 0.01", ""));
    vec![
        ("grid", grid),
        ("long", long),
        ("mapped", mapped),
        ("again", again),
        ("strict", strict),
        ("calls", calls),
        ("past", past),
    ]
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `minflow run`, whose words go to a file.
fn launch(home: &Home) -> Child {
    let said = File::options().create(true).append(true).open(home.file("said")).unwrap();
    let mut command = home.command("run --port 0");
    command.env("MINFLOW__SCHEDULER__DRAIN_TIMEOUT", "0");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap()
}

fn write(home: &Home, dags: Vec<(&'static str, String)>) {
    for (name, text) in dags {
        home.dag(name, &text);
    }
}

/// A try as the ledger has it.
#[derive(Debug, Default)]
struct Lived {
    began_at: Option<i64>,
    ended_at: Option<i64>,
}

fn ledger(home: &Home) -> BTreeMap<(String, u32), Lived> {
    let mut tries: BTreeMap<(String, u32), Lived> = BTreeMap::new();
    for line in home.read("ledger").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, task, number, at] = words[..] else { panic!("a line of the ledger is torn: {line}") };
        let lived = tries.entry((task.to_owned(), number.parse().unwrap())).or_default();
        let place = if what == "start" { &mut lived.began_at } else { &mut lived.ended_at };
        let before = place.replace(at.parse().unwrap());
        assert_eq!(before, None, "{task} ran twice as try {number}");
    }
    tries
}

/// A try as the database has it.
#[derive(Debug)]
struct Recorded {
    state: String,
    reason: Option<String>,
    exit_code: Option<i32>,
    /// Before anybody starts it.
    queued_at: Option<i64>,
    ended_at: Option<i64>,
    is_last: bool,
}

fn records(home: &Home) -> BTreeMap<(String, u32), Recorded> {
    let database = Connection::open(home.file("minflow.db")).unwrap();
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let mut found = BTreeMap::new();
    for (table, key) in [("task_instance", "t.key"), ("task_instance_history", "t.instance_key")] {
        let sql = format!(
            "SELECT r.dag_id || '/' || r.run_id || '/' || i.task_id || '/' || i.map_index, t.try_number, coalesce(t.state, 'none'), \
             t.reason, t.exit_code, t.end_date, t.queued_at FROM {table} t JOIN task_instance i ON i.key = {key} JOIN dag_run r ON r.key = i.run_key"
        );
        let mut statement = database.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| {
            let recorded = Recorded {
                state: row.get(2)?,
                reason: row.get(3)?,
                exit_code: row.get(4)?,
                ended_at: row.get(5)?,
                queued_at: row.get(6)?,
                is_last: table == "task_instance",
            };
            Ok(((row.get(0)?, row.get(1)?), recorded))
        });
        for row in rows.unwrap() {
            let (key, recorded) = row.unwrap();
            assert!(found.insert(key, recorded).is_none(), "a try has two records");
        }
    }
    found
}

/// What the task's own script comes to.
fn expected(key: &str, number: u32) -> (&'static str, i32) {
    let task = key.split('/').nth(2).unwrap();
    match task {
        "fails" => ("failed", 5),
        "skips" => ("skipped", 99),
        "again" if number == 1 => ("failed", 3),
        _ => ("success", 0),
    }
}

/// Processes that bear a mark of minflow's and stand in the home.
fn left_behind(home: &Home) -> Vec<String> {
    let path = format!("MINFLOW_HOME={}", home.path().display());
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == path.as_bytes())
    };
    numbers
        .filter(is_ours)
        .map(|pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default())
        .collect()
}

/// Of a line of minflow's: how many of the tries that an earlier one had left begin anew.
fn had_not_begun(line: &str) -> Option<u64> {
    line.strip_suffix(" had not begun")?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn at_whatever_instant_it_is_ended_nothing_is_lost_and_nothing_runs_twice() {
    let crashes = variable("MINFLOW_CRASHES").unwrap_or(200);
    let seed = variable("MINFLOW_CRASH_SEED").unwrap_or(micros() as u64 | 1);
    println!("{crashes} crashes, MINFLOW_CRASH_SEED={seed}");
    let mut random = Random(seed);
    let home = Home::new();
    write(&home, dags("schedule = \"@continuous\"\n", 0));
    let mut minflow = home.start();
    minflow.await_dag("past");
    let backfill = home.cli("backfill create --dag-id past --from-date 2026-01-01 --to-date 2026-03-01");
    assert_eq!(backfill.code, Some(0), "{backfill:?}");
    minflow.kill();
    drop(minflow);

    let begun = Instant::now();
    // When a supervisor was killed: what it had then is lost.
    let mut losses: Vec<i64> = Vec::new();
    let mut told: Vec<String> = Vec::new();
    for crash in 0..crashes {
        if random.below(8) == 0 {
            write(&home, dags("schedule = \"@continuous\"\n", crash + 1));
        }
        let starts = || home.read("said").matches(" runs on ").count();
        let before = starts();
        let mut child = launch(&home);
        // The instant is the subject here: a quarter of the ends come while it starts, the others while it works.
        let most = match random.below(8) {
            0 | 1 => 150_000,
            2 => 600_000,
            _ => 120_000,
        };
        let is_early = random.below(4) == 0;
        let delay = Duration::from_micros(1_000 + random.below(most));
        while !is_early && starts() == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(delay);
        let pid = child.id() as i32;
        // In the first half all supervisors live, so that nothing may be lost at all.
        let mut lose = |random: &mut Random| {
            let all = supervisors(home.path());
            if !all.is_empty() && crash >= crashes / 2 {
                signal(all[random.below(all.len() as u64) as usize], Signal::KILL);
                losses.push(micros());
            }
        };
        let way = random.below(20);
        told.push(format!("{} process {pid} ends by way {way}", micros()));
        match way {
            0 => {
                lose(&mut random);
                signal(pid, Signal::KILL);
            }
            1 => {
                signal(pid, Signal::KILL);
                lose(&mut random);
            }
            2 => {
                lose(&mut random);
                std::thread::sleep(Duration::from_millis(random.below(150)));
                signal(pid, Signal::KILL);
            }
            3 | 4 => signal(pid, Signal::TERM),
            _ => signal(pid, Signal::KILL),
        }
        child.wait().unwrap();
    }
    let took = begun.elapsed();
    let came_up = home.read("said").matches(" runs on ").count() as u64;
    assert!(came_up >= crashes / 2, "{came_up} of {crashes} starts came up:\n{}", home.read("said"));

    // No new runs: all that there are come to their ends.
    write(&home, dags("", crashes + 1));
    let mut minflow = home.start();
    until("the end of all runs", || {
        let runs = ["grid", "long", "mapped", "again", "strict", "calls", "past"].map(|dag| home.runs(dag));
        runs.iter().flatten().all(|run| matches!(run["state"].as_str(), Some("success" | "failed"))).then_some(())
    });
    until("health", || (minflow.get("/health").0 == 200).then_some(()));
    let called = until("all callbacks", || {
        let failed: BTreeSet<String> =
            home.runs("calls").iter().map(|run| format!("calls/{}", run["run_id"].as_str().unwrap())).collect();
        let called = home.read("calls");
        failed.iter().all(|run| called.lines().any(|line| line == run)).then_some(called)
    });
    minflow.stop();
    until("the end of all supervisors", || supervisors(home.path()).is_empty().then_some(()));
    assert_eq!(left_behind(&home), [""; 0]);

    let (lived, recorded) = (ledger(&home), records(&home));
    let is_excused = |recorded: &Recorded| {
        let (from, to) = (recorded.queued_at.unwrap_or(i64::MAX), recorded.ended_at.unwrap_or(i64::MAX));
        losses.iter().any(|at| (from..=to).contains(at))
    };
    // What a failure is explained by.
    let story = || format!("{}\n{}\n{}", told.join("\n"), home.read("said"), home.read("ledger"));
    let (mut lost, mut unstarted) = (0, 0);
    for ((task, number), recorded) in &recorded {
        let what = format!("{task} try {number}: {recorded:?}");
        let lived = lived.get(&(task.clone(), *number));
        if recorded.reason.as_deref() == Some("lost") {
            match lived.and_then(|lived| lived.began_at) {
                Some(_) => {
                    lost += 1;
                    assert!(
                        is_excused(recorded),
                        "a try is lost whose supervisor lived: {what} {lived:?}\n{}",
                        story()
                    );
                }
                None => {
                    unstarted += 1;
                    let was_one_killed = losses.first().is_some_and(|first| recorded.ended_at >= Some(*first));
                    assert!(was_one_killed, "all supervisors lived, and could be asked: {what}\n{}", story());
                }
            }
            continue;
        }
        if *number == 0 {
            assert!(lived.is_none(), "{what} {lived:?}");
            continue;
        }
        let lived = lived.unwrap_or_else(|| panic!("it is recorded and did not run: {what}\n{}", story()));
        assert!(lived.began_at.is_some() && lived.ended_at.is_some(), "{what} {lived:?}\n{}", story());
        let (state, code) = expected(task, *number);
        let state = if recorded.is_last { state } else { "up_for_retry" };
        let states: &[&str] = if state == "up_for_retry" { &["up_for_retry", "failed"] } else { &[state] };
        assert!(states.contains(&&*recorded.state) && recorded.exit_code == Some(code), "{what}\n{}", story());
    }
    for ((task, number), lived) in &lived {
        assert!(
            recorded.contains_key(&(task.clone(), *number)),
            "it ran and is not recorded: {task} try {number} {lived:?}"
        );
    }
    // A callback is told at least once, and more often only if the supervisor that had it was killed.
    let calls = called.lines().count();
    let callers: BTreeSet<&str> = called.lines().collect();
    assert!(calls - callers.len() <= losses.len(), "{calls} calls of {} runs", callers.len());
    let put_back: u64 = home.read("said").lines().filter_map(had_not_begun).sum();
    println!(
        "{crashes} crashes in {took:.1?}, {} of them with a supervisor: {} tries ran, {lost} of them were lost with their supervisors, \
         {unstarted} were lost before they began; {put_back} times one had not begun and was put back",
        losses.len(),
        lived.len(),
    );
}
