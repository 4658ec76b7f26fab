//! History that goes, by `[retention]` and by command, while runs go on and across SIGKILL.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::{Home, until};

const DAG: &str = "[tasks.a]\nbash = \"echo kept > file; seq 2000\"\n";

fn connect(home: &Home) -> Connection {
    let connection = Connection::open(home.file("minflow.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// `runs` finished runs of `big` in a year gone by, with so many instances each; of the first `with_files` of them logs and run_dirs as well.
fn add_history(home: &Home, runs: i64, instances: i64, with_files: i64) {
    let connection = connect(home);
    connection
        .execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {runs})
             INSERT INTO dag_run (key, dag_id, run_id, run_type, state, run_after, logical_date, queued_at, start_date, end_date, conf)
             SELECT 100000 + x, 'big', 'old' || x, 'manual', 'success', x * 1000000, x * 1000000, x, x, x * 1000000 + 5, '{{}}' FROM n;
             WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x < {instances} - 1)
             INSERT INTO task_instance (run_key, task_id, map_index, state, try_number, max_tries, pool, pool_slots, priority_weight, operator)
             SELECT r.key, 'a', n.x, 'success', 1, 0, 'default_pool', 1, 1, 'bash' FROM dag_run r JOIN n WHERE r.run_id LIKE 'old%';
             INSERT INTO xcom (instance_key, key, pushed_at, value) SELECT key, 'return_value', 1, '1' FROM task_instance WHERE map_index >= 0;
             DELETE FROM state_count;
             INSERT INTO state_count SELECT dag_id, 'run', state, count(*) FROM dag_run GROUP BY dag_id, state UNION ALL
             SELECT r.dag_id, 'task', i.state, count(*) FROM task_instance i JOIN dag_run r ON r.key = i.run_key GROUP BY r.dag_id, i.state;
             COMMIT"
        ))
        .unwrap();
    for number in 1..=with_files {
        home.write(&format!("logs/dag_id=big/run_id=old{number}/task_id=a/attempt=1.log"), "said\n");
        home.write(&format!("runs/big/old{number}/deep/er/file"), "left\n");
        home.write(&format!("xcoms/big/old{number}/a/1-1.json"), "[]");
    }
}

/// A home with a DAG that has run once, as `new`.
fn with_a_run() -> Home {
    let home = Home::new();
    home.dag("big", DAG);
    let mut minflow = home.start();
    assert_eq!(home.run_dag("big", "new").code, Some(0));
    minflow.stop();
    home
}

fn is_sound(home: &Home) {
    let check = home.cli("db check");
    assert_eq!(check.code, Some(0), "{check:?}");
}

#[test]
fn by_count_the_oldest_runs_go_with_their_logs_and_files_and_a_kill_in_the_midst_leaves_nothing_behind() {
    let home = with_a_run();
    add_history(&home, 400, 5, 400);
    home.write("airflow.toml", "[retention]\nmax_runs = 3\n");
    let connection = connect(&home);
    let left = || number(&connection, "SELECT count(*) FROM dag_run");
    let mut kills = 0;
    for step in 1..=4 {
        let mut minflow = home.start();
        // Each time a little further.
        until("some runs to go", || (left() <= 401 - 20 * step || left() == 3).then_some(()));
        kills += i32::from(number(&connection, "SELECT count(*) FROM retired_run") > 0);
        minflow.kill();
        is_sound(&home);
    }
    assert!(kills > 0, "no kill met a run that was going");
    let mut minflow = home.start();
    until("the rest to go", || {
        (left() == 3 && number(&connection, "SELECT count(*) FROM retired_run") == 0).then_some(())
    });
    minflow.stop();
    is_sound(&home);
    assert_eq!(names(&home.file("logs/dag_id=big")), ["run_id=new", "run_id=old399", "run_id=old400"]);
    assert_eq!(names(&home.file("runs/big")), ["new", "old399", "old400"]);
    assert_eq!(names(&home.file("xcoms/big")), ["old399", "old400"]);
    for table in ["task_instance", "xcom"] {
        // Of two old runs and the new one.
        assert_eq!(number(&connection, &format!("SELECT count(*) FROM {table}")), 2 * 5 + 1, "{table}");
    }
}

#[test]
fn a_run_that_cannot_be_read_stays_and_is_named_once_and_the_others_go() {
    let home = with_a_run();
    add_history(&home, 100, 2, 100);
    let connection = connect(&home);
    // One in the midst, and the newest, which each of the others is compared with.
    connection
        .execute_batch(
            "UPDATE dag_run SET conf = '{' WHERE run_id = 'old50'; UPDATE dag_run SET run_type = 'odd' WHERE run_id = 'new';
             UPDATE task_instance SET state = x'ff' WHERE run_key = 100010 AND map_index = 1",
        )
        .unwrap();
    home.write("airflow.toml", "[retention]\nmax_runs = 3\n");
    let mut minflow = home.start();
    until("the others to go", || {
        let left = number(&connection, "SELECT count(*) FROM dag_run WHERE dag_id = 'big'");
        (left == 4 && number(&connection, "SELECT count(*) FROM retired_run") == 0).then_some(())
    });
    assert_eq!(names(&home.file("runs/big")), ["new", "old100", "old50", "old99"]);
    let what = "retention: a run of `big` stays: failed to retire a run: dag_run 100050, column conf: EOF while parsing an object at line 1 \
        column 1; something other than minflow changed";
    assert_eq!(minflow.said().matches(what).count(), 1, "{}", minflow.said());
    assert_eq!(minflow.get("/health").0, 200);
    minflow.stop();
    // By command it is said as well.
    connection.execute("UPDATE dag_run SET run_type = 'manual' WHERE run_id = 'new'", []).unwrap();
    let done = home.cli("db clean --yes --skip-archive");
    assert!(done.code == Some(0) && done.err.contains("a run of `big` stays: failed to retire a run: "), "{done:?}");
    assert!(done.err.contains("\nhelp: something other than minflow changed"), "{done:?}");
    let other = home.cli("db clean --yes --skip-archive --exclude-dag-ids big");
    assert_eq!((other.code, &*other.err), (Some(0), "nothing is to go\n"));
}

#[test]
fn a_hundred_thousand_instances_are_cleaned_while_runs_go_on_and_none_of_these_is_touched() {
    let home = with_a_run();
    add_history(&home, 1_000, 100, 20);
    home.dag("busy", "[tasks.a]\nbash = \"true\"\n[tasks.b]\ndepends_on = [\"a\"]\nbash = \"true\"\n");
    let mut minflow = home.start();
    minflow.await_dag("busy");
    let dry = home.cli("db clean --clean-before-timestamp 1975-01-01 --dry-run -o json");
    assert_eq!((dry.code, &*dry.err), (Some(0), "1000 runs and 0 entries of the audit log would go\n"));
    assert_eq!(dry.json().as_array().unwrap().len(), 1_000);
    assert_eq!(
        dry.json()[0],
        json!({"dag_id": "big", "run_id": "old1", "end_date": "1970-01-01T00:00:01.000005Z", "task_instances": 100})
    );
    let cleaning = std::thread::scope(|scope| {
        let cleaning = scope.spawn(|| home.cli("db clean --clean-before-timestamp 1975-01-01 --yes"));
        let mut at = 0;
        while !cleaning.is_finished() || at < 10 {
            at += 1;
            assert_eq!(home.run_dag("busy", &format!("r{at}")).code, Some(0));
        }
        cleaning.join().unwrap()
    });
    assert_eq!(
        cleaning.texts(),
        (Some(0), "1000 runs and 0 entries of the audit log have gone; `HOME/archive.db` has their rows\n", "")
    );
    until("a healthy minflow", || (minflow.get("/health").0 == 200).then_some(()));
    let connection = connect(&home);
    assert_eq!(
        number(
            &connection,
            "SELECT count(*) FROM task_instance i JOIN dag_run r ON r.key = i.run_key WHERE r.dag_id = 'big'"
        ),
        1
    );
    assert_eq!(number(&connection, "SELECT count(*) FROM dag_run WHERE dag_id = 'busy' AND state <> 'success'"), 0);
    assert_eq!(names(&home.file("logs/dag_id=big")), ["run_id=new"]);
    assert_eq!(names(&home.file("runs/big")), ["new"]);
    let audit = home.json("audit --event clean");
    assert_eq!(audit[0]["extra"]["runs"], 1_000);
    minflow.stop();
    is_sound(&home);
    let archive = Connection::open(home.file("archive.db")).unwrap();
    assert_eq!(number(&archive, "SELECT count(*) FROM task_instance"), 100_000);
    let exported = home.cli("db export --output-path out --archive archive.db --tables dag_run -o json");
    assert_eq!(exported.json()[0]["rows"], 1_000, "{exported:?}");
}

#[test]
fn without_a_running_minflow_a_clean_does_all_itself_and_wrong_words_change_nothing() {
    let home = with_a_run();
    add_history(&home, 30, 3, 30);
    let refused = |words: &str, code: i32, said: &str| {
        let ran = home.cli(&format!("db clean {words}"));
        assert!(ran.code == Some(code) && ran.err.contains(said), "{ran:?}");
    };
    refused("--clean-before-timestamp soon --yes", 2, "`soon` is no date");
    refused("--yes", 2, "neither --clean-before-timestamp nor [retention]");
    refused("--clean-before-timestamp 1975-01-01", 2, "--yes does it without a question");
    refused("--clean-before-timestamp 1975-01-01 --yes --tables xcom", 2, "its rows go with their runs: name dag_run");
    refused("--clean-before-timestamp 1975-01-01 --yes --tables users", 2, "`users` is no table that is cleaned");
    refused("--clean-before-timestamp 1975-01-01 --yes --dag-ids bgi", 1, "did you mean `big`?");
    refused("--clean-before-timestamp 1975-01-01 --yes --archive no/such/a.db", 1, "its folder does not exist");
    let nothing = home.cli("db clean --clean-before-timestamp 1975-01-01 --yes --exclude-dag-ids big");
    assert_eq!((nothing.code, &*nothing.err), (Some(0), "nothing is to go\n"));
    assert_eq!(home.runs("big").len(), 31);
    let done = home.cli("db clean --clean-before-timestamp 1970-01-01T00:00:11 --yes --skip-archive --tables dag_run");
    assert_eq!(done.texts(), (Some(0), "10 runs and 0 entries of the audit log have gone\n", ""));
    assert_eq!((home.runs("big").len(), names(&home.file("runs/big")).len()), (21, 21));
    assert!(!home.file("archive.db").exists());
    is_sound(&home);
    let all = home.cli("db clean --clean-before-timestamp 2100-01-01 --yes --archive kept.db");
    assert_eq!(all.code, Some(0), "{all:?}");
    assert_eq!(home.runs("big").len(), 1, "the newest stays");
    assert!(number(&Connection::open(home.file("kept.db")).unwrap(), "SELECT count(*) FROM log") > 0);
    is_sound(&home);
    // Who takes the audit log away stands in it.
    let cut = home.cli("db clean --clean-before-timestamp 2100-01-01 --yes --skip-archive --tables log");
    assert_eq!(cut.code, Some(0), "{cut:?}");
    let left = home.json("audit");
    let events: Vec<&Value> = left.as_array().unwrap().iter().map(|entry| &entry["event"]).collect();
    assert_eq!(events, ["clean", "clean"], "that of before was the newest, which stays");
}

#[test]
fn an_export_that_is_ended_half_way_leaves_nothing() {
    let home = with_a_run();
    add_history(&home, 5_000, 1, 0);
    // A larger file cannot be written.
    let export = "ulimit -f 400; exec \"$0\" db export --output-path out --tables dag,dag_run";
    let mut command = home.command_of("sh", "-c");
    home.settle(&mut command);
    command.arg(export).arg(env!("CARGO_BIN_EXE_minflow"));
    let ended = command.output().unwrap();
    assert!(!ended.status.success(), "{ended:?}");
    assert_eq!(names(&home.file("out")), [""; 0], "{ended:?}");
    assert_eq!(home.cli("db export --output-path out --tables dag,dag_run").code, Some(0));
    assert_eq!(names(&home.file("out")), ["dag.csv", "dag_run.csv"]);
    assert!(home.file("out/dag_run.csv").metadata().unwrap().len() > 500_000);
}

#[test]
fn a_dag_whose_file_is_gone_is_deleted_with_its_history_unless_a_run_lives() {
    let home = with_a_run();
    add_history(&home, 25, 2, 25);
    let has_file = home.cli("dags delete big --yes");
    assert!(has_file.code == Some(1) && has_file.err.contains("`big` has a DAG file, `big.toml`"), "{has_file:?}");
    let unknown = home.cli("dags delete bgi --yes");
    assert!(unknown.code == Some(1) && unknown.err.contains("did you mean `big`?"), "{unknown:?}");
    home.dag("long", "[tasks.a]\nbash = \"sleep 600\"\n");
    let mut minflow = home.start();
    home.trigger("long", "r");
    until("its task to run", || (home.task("long", "r", "a")["state"] == "running").then_some(()));
    fs::remove_file(home.file("dags/big.toml")).unwrap();
    fs::remove_file(home.file("dags/long.toml")).unwrap();
    until("the DAGs to go", || {
        home.json("dags list").as_array().unwrap().iter().all(|dag| dag["is_active"] == false).then_some(())
    });
    let lives = home.cli("dags delete long --yes");
    assert!(lives.code == Some(1) && lives.err.contains("`long` has 1 run that is not over"), "{lives:?}");
    let asked = home.cli("dags delete big");
    assert!(asked.code == Some(2) && asked.err.contains("--yes deletes without a question"), "{asked:?}");
    assert_eq!(home.cli("dags delete big --yes").texts(), (Some(0), "`big` and its 26 runs have gone\n", ""));
    assert_eq!((home.file("logs/dag_id=big").exists(), home.file("runs/big").exists()), (false, false));
    assert_eq!(home.json("dags list").as_array().unwrap().len(), 1);
    // It comes back as a DAG that nobody knows.
    home.dag("big", DAG);
    minflow.await_dag("big");
    assert_eq!(home.runs("big").len(), 0);
    assert_eq!(home.run_dag("big", "new").code, Some(0));
    minflow.stop();
    is_sound(&home);
    // While none runs nobody has seen that the file goes, and it may be deleted all the same.
    fs::remove_file(home.file("dags/big.toml")).unwrap();
    assert_eq!(home.cli("dags delete big --yes").texts(), (Some(0), "`big` and its 1 runs have gone\n", ""));
    is_sound(&home);
}

#[test]
fn old_logs_are_compressed_and_read_as_before_and_the_disk_s_use_is_told_by_dag() {
    let home = with_a_run();
    let log = home.file("logs/dag_id=big/run_id=new/task_id=a/attempt=1.log");
    let before = fs::read(&log).unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(86_400 * 30);
    fs::File::options().write(true).open(&log).unwrap().set_modified(long_ago).unwrap();
    let shown = home.cli("tasks logs big a new");
    home.write("airflow.toml", "[logging]\ncompress_after = \"7d\"\n");
    let mut minflow = home.start();
    assert_eq!(home.run_dag("big", "young").code, Some(0));
    let compressed = log.with_extension("log.gz");
    until("the log to be compressed", || (!log.exists()).then_some(()));
    assert!(compressed.metadata().unwrap().len() < before.len() as u64);
    assert_eq!(home.cli("tasks logs big a new").texts(), shown.texts());
    assert_eq!(home.cli("tasks logs big a new -f").texts(), shown.texts());
    let last = home.cli("tasks logs big a new --bytes -10");
    assert_eq!(last.out, shown.out[shown.out.len() - 10..]);
    assert!(home.file("logs/dag_id=big/run_id=young/task_id=a/attempt=1.log").exists());
    let du = home.json("du");
    let of = |name: &str| du.as_array().unwrap().iter().find(|part| part["name"] == name).unwrap().clone();
    assert!(of("big")["run_dirs"].as_u64().unwrap() > 0 && of("(database)")["total"].as_u64().unwrap() > 0, "{du}");
    let sum: u64 = du
        .as_array()
        .unwrap()
        .iter()
        .filter(|part| part["name"] != "(all)")
        .map(|part| part["total"].as_u64().unwrap())
        .sum();
    assert_eq!(of("(all)")["total"], sum);
    minflow.stop();
}

#[test]
fn by_bytes_those_go_that_ended_first_until_the_rest_is_small_enough() {
    let home = with_a_run();
    add_history(&home, 10, 1, 0);
    for number in 1..=10 {
        home.write(&format!("runs/big/old{number}/file"), vec![7; 1_000_000]);
    }
    home.write("airflow.toml", "[retention]\nmax_bytes = \"4500kB\"\n");
    // What no run takes with it when it goes: files of a user's own, and folders of DAGs and runs that nobody knows.
    for place in
        ["logs/mine.log", "logs/dag_id=gone/run_id=r/file", "runs/big/unknown/file", "runs/file", "xcoms/gone/r/file"]
    {
        home.write(place, vec![7; 20_000_000]);
    }
    let dry = home.cli("db clean --dry-run -o json");
    let going: Vec<String> =
        dry.json().as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(going, ["old1", "old2", "old3", "old4", "old5", "old6"]);
    let done = home.cli("db clean --yes --skip-archive");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(names(&home.file("runs/big")), ["new", "old10", "old7", "old8", "old9", "unknown"]);
}
