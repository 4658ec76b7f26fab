//! Bad input and bad hosts: what cannot start says why and what to do; what runs says so in `/health`, waits, and loses nothing.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::harness::{Home, Minflow, Ran, is_alive, signal, until, within};

const LINE: &str = "[tasks.one]\nbash = 'echo $MINFLOW_RUN_ID >> $MINFLOW_HOME/ledger'\n";

/// What `minflow run` says when it does not start.
fn refused(home: &Home, words: &str) -> Ran {
    let ran = home.cli(words);
    assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{ran:?}");
    ran
}

/// The unhealthy answer of `/health`, once it names `what`.
fn await_illness(minflow: &Minflow, what: &str) -> String {
    until(&format!("{what} in /health"), || {
        let (code, health) = minflow.try_get("/health")?;
        let reasons = health["reasons"].to_string();
        (code == 503 && reasons.contains(what)).then_some(reasons)
    })
}

fn await_health(minflow: &Minflow) {
    let mut last = None;
    within(Duration::from_secs(20), "health", || {
        last = minflow.try_get("/health");
        last.as_ref().is_some_and(|(code, _)| *code == 200).then_some(())
    });
}

#[test]
fn a_taken_port_is_named() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ran = refused(&home, &format!("run --port {port}"));
    let said = format!(
        "error: port {port} of 127.0.0.1 is taken by another program\nhelp: choose another with `--port` or `api.port` (0: any free one)\n"
    );
    assert_eq!(ran.err, said);
    drop(taken);
    home.start();
}

#[test]
fn a_second_minflow_on_a_home_is_told_the_pid_of_the_first() {
    let home = Home::new();
    let minflow = home.start();
    let ran = refused(&home, "run --port 0");
    let pid = minflow.pid();
    let said = format!(
        "error: another minflow (pid {pid}) runs on `HOME`\nhelp: `minflow status` shows it; stop it, or give this one another `--home`\n"
    );
    assert_eq!(ran.err, said);
    assert_eq!(minflow.get("/health").0, 200);
    home.dag("still", LINE);
    minflow.await_dag("still");
    assert_eq!(home.run_dag("still", "r").code, Some(0));
}

#[test]
fn a_database_that_cannot_be_used_stops_the_start_and_is_left_as_it_is() {
    let home = Home::new();
    home.start().stop();
    let path = home.file("minflow.db");
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 999").unwrap();
    let newer = fs::read(&path).unwrap();
    let ran = refused(&home, "run --port 0");
    assert!(ran.err.contains("999") && ran.err.contains("help: run the newer minflow"), "{ran:?}");
    assert_eq!(fs::read(&path).unwrap(), newer);

    let corrupt: Vec<u8> = (0..40_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    fs::write(&path, &corrupt).unwrap();
    let ran = refused(&home, "run --port 0");
    assert!(ran.err.contains("minflow.db") && ran.err.contains("help: "), "{ran:?}");
    assert_eq!(fs::read(&path).unwrap(), corrupt);

    // The right first page, and rubbish behind it.
    let mut half = newer;
    let length = half.len();
    half[4096..].fill(0x5a);
    half[60..64].copy_from_slice(&1_u32.to_be_bytes());
    fs::write(&path, &half).unwrap();
    let ran = refused(&home, "run --port 0");
    assert!(ran.err.contains("minflow.db") && ran.err.contains("help: "), "{ran:?}");
    assert_eq!((fs::read(&path).unwrap(), half.len()), (half, length));
}

#[test]
fn while_another_process_locks_the_database_tasks_wait_and_nothing_is_lost() {
    let home = Home::new();
    home.dag(
        "held",
        "[tasks.running]\nbash = 'touch $MINFLOW_HOME/began; while ! test -e $MINFLOW_HOME/go; do sleep 0.02; done; echo ended >> $MINFLOW_HOME/ledger'\n\
         [tasks.next]\nbash = 'echo next >> $MINFLOW_HOME/ledger'\ndepends_on = [\"running\"]\n",
    );
    let minflow = home.start();
    minflow.await_dag("held");
    home.trigger("held", "r");
    until("the first task", || home.file("began").exists().then_some(()));
    until("its row", || (home.task("held", "r", "running")["state"] == "running").then_some(()));
    let other = Connection::open(home.file("minflow.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    home.write("go", "");
    let reasons = await_illness(&minflow, "database");
    assert!(reasons.contains("locked") && reasons.contains("fuser"), "{reasons}");
    assert_ne!(minflow.status()["status"], "healthy");
    let refused = home.cli("dags trigger held --run-id s");
    assert!(refused.code == Some(1) && refused.err.contains("database"), "{refused:?}");
    assert_eq!(home.read("ledger"), "ended\n", "nothing starts that is not committed");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(home.await_run("held", "r"), "success");
    await_health(&minflow);
    assert_eq!(home.read("ledger"), "ended\nnext\n");
    assert_eq!(home.run_dag("held", "s").code, Some(0));
}

fn limit(minflow: &Minflow, resource: Resource, soft: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    prlimit(Pid::from_raw(minflow.pid()), resource, Rlimit { current: soft.or(maximum), maximum }).unwrap();
}

/// The highest number under which it has the socket open on which HTTP listens: the one that it keeps to spare, opened at the start.
fn spare_descriptor(minflow: &Minflow) -> u64 {
    let (_, port) = minflow.address.rsplit_once(':').unwrap();
    let port = format!(":{:04X}", port.parse::<u16>().unwrap());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    // Local address, state (0A: listens) and inode.
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening =
        rows.filter(|row| row[1].ends_with(&port) && row[3] == "0A").map(|row| row[9].to_owned()).next().unwrap();
    let numbers = fs::read_dir(format!("/proc/{}/fd", minflow.pid())).unwrap().map(|entry| entry.unwrap().path());
    let open =
        numbers.filter(|number| fs::read_link(number).is_ok_and(|of| of.ends_with(format!("socket:[{listening}]"))));
    open.map(|number| number.file_name().unwrap().to_str().unwrap().parse().unwrap()).max().unwrap()
}

#[test]
fn a_database_that_cannot_grow_is_said_and_goes_on_when_it_can() {
    let home = Home::new();
    home.dag("full", LINE);
    let minflow = home.start();
    minflow.await_dag("full");
    assert_eq!(home.run_dag("full", "r0").code, Some(0));
    // Less than what the log has: its file may reach far beyond it.
    limit(&minflow, Resource::Fsize, Some(8 << 10));
    // The wait ends with the disk's trouble; the client may have been told of it or not.
    let mut waiting = home.command("dags trigger full --run-id r1 --wait");
    let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let reasons = await_illness(&minflow, "database");
    assert!(reasons.contains("ulimit -f") || reasons.contains("full"), "{reasons}");
    assert!(!home.read("ledger").contains("r1"), "nothing starts that is not committed");
    limit(&minflow, Resource::Fsize, None);
    await_health(&minflow);
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    assert_eq!(home.run_dag("full", "r2").code, Some(0));
    assert_eq!(home.read("ledger"), "r0\nr1\nr2\n");
}

/// Runs minflow with a small disk of its own on `small/` in the home. None where the host does not let it be mounted.
fn with_small_disk(home: &Home) -> Option<Minflow> {
    fs::create_dir_all(home.file("small")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=2m none small && mkdir small/logs && exec {} run --port 0",
        env!("CARGO_BIN_EXE_minflow")
    );
    let shell = |script: &str| {
        let mut command = Command::new("unshare");
        home.settle(command.args(["--mount", "sh", "-c", script]));
        command
    };
    if !shell("mount -t tmpfs -o size=1m none small").output().is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED: this host lets no small disk be mounted (needs root and `unshare --mount`)");
        return None;
    }
    Some(home.start_as(shell(&script)))
}

#[test]
fn a_start_on_a_full_disk_says_what_has_failed_and_what_to_do() {
    let home = Home::new();
    let start = |before: &str| {
        let script = format!(
            "mkdir small && mount -t tmpfs -o size=1m none small && mkdir small/dags && {before} \
             dd if=/dev/zero of=small/ballast bs=4096 2>/dev/null; {} run --port 0 --home small",
            env!("CARGO_BIN_EXE_minflow")
        );
        let mut command = Command::new("unshare");
        home.settle(command.args(["--mount", "sh", "-c", &script]));
        let done = command.output().unwrap();
        fs::remove_dir(home.file("small")).unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, said) = start("");
    if said.contains("unshare:") || said.contains("mount:") {
        eprintln!("SKIPPED: this host lets no small disk be mounted (needs root and `unshare --mount`)");
        return;
    }
    let help = "make room (df and df -i show where)";
    assert!(said.starts_with("error: failed to lock `") && said.ends_with(&format!("\nhelp: {help}\n")), "{said}");
    assert_eq!(code, Some(1));
    // With room for the lock alone.
    let (code, said) = start("printf '1234567890' > small/minflow.lock;");
    assert!(
        said.starts_with("error: failed to open `") && said.ends_with(" is full: free some space there\n"),
        "{said}"
    );
    assert_eq!(code, Some(1));
    // Of a database that is there SQLite says that the disk has failed.
    let (code, said) =
        start(&format!("{} pools set one 1 none --home small >/dev/null;", env!("CARGO_BIN_EXE_minflow")));
    let help = format!("the disk is full; {help}\n");
    assert!(said.contains("error: failed to open `") && said.ends_with(&help), "{said}");
    assert_eq!(code, Some(1));
}

/// A command that sees the same small disk.
fn within_disk(home: &Home, minflow: &Minflow, words: &str) -> Command {
    let mut command = Command::new("nsenter");
    let target = minflow.pid().to_string();
    command.args(["--mount", "--target", &target, env!("CARGO_BIN_EXE_minflow"), "--home"]).arg(home.path());
    home.settle(command.args(words.split_whitespace()));
    command
}

#[test]
fn on_a_full_disk_what_cannot_start_waits_and_nothing_is_lost() {
    let home = Home::new();
    home.write(
        "airflow.toml",
        "[database]\npath = \"small/minflow.db\"\nmin_free = 0\n[logging]\nbase_log_folder = \"small/logs\"\n",
    );
    home.dag("full", LINE);
    let Some(minflow) = with_small_disk(&home) else { return };
    minflow.await_dag("full");
    assert_eq!(within_disk(&home, &minflow, "dags trigger full --run-id r0").output().unwrap().stdout, b"r0\n");
    until("the first run", || (home.read("ledger") == "r0\n").then_some(()));
    let ballast = format!("/proc/{}/root{}", minflow.pid(), home.file("small/ballast").display());
    let fill = Command::new("dd").args(["if=/dev/zero", "bs=4096", &format!("of={ballast}")]).output().unwrap();
    assert!(!fill.status.success(), "the disk was to be filled");
    let mut waiting: Vec<_> = (1..8)
        .map(|number| {
            let mut client = within_disk(&home, &minflow, &format!("dags trigger full --run-id r{number}"));
            let said = fs::File::create(home.file(&format!("said-{number}"))).unwrap();
            client.stdout(Stdio::null()).stderr(said).spawn().unwrap()
        })
        .collect();
    let (_, health) = until("the full disk in /health", || minflow.try_get("/health").filter(|(code, _)| *code == 503));
    assert!(health["reasons"].to_string().contains("full"), "{health}");
    // Whoever waits says what for; those that came later were refused, and these may be all.
    let said = |number: i32| home.read(&format!("said-{number}"));
    until("what is waited for", || {
        let explained = |number| {
            let said = said(number);
            said.starts_with("waiting for ") && said.lines().last().is_some_and(|last| last.contains("full"))
        };
        let mut pending = (1..8)
            .zip(&mut waiting)
            .filter_map(|(number, client)| client.try_wait().unwrap().is_none().then_some(number));
        pending.all(explained).then_some(())
    });
    fs::remove_file(&ballast).unwrap();
    await_health(&minflow);
    let mut expected = vec!["r0".to_owned()];
    for (number, mut client) in (1..8).zip(waiting) {
        let status = client.wait().unwrap();
        let said = said(number);
        match status.code() {
            Some(0) => expected.push(format!("r{number}")),
            _ => assert!(said.contains("the database cannot be written now; nothing was changed"), "{said}"),
        }
    }
    until("all accepted runs", || {
        let ledger = home.read("ledger");
        let mut lines: Vec<_> = ledger.lines().map(str::to_owned).collect();
        lines.sort();
        (lines == expected).then_some(())
    });
}

#[test]
fn where_logs_became_read_only_what_cannot_start_waits_and_goes_on_when_it_can() {
    let home = Home::new();
    home.write("airflow.toml", "[logging]\nbase_log_folder = \"small/logs\"\n");
    home.dag(
        "held",
        &format!("{LINE}[tasks.next]\nbash = 'echo next >> $MINFLOW_HOME/ledger'\ndepends_on = [\"one\"]\n"),
    );
    let Some(minflow) = with_small_disk(&home) else { return };
    minflow.await_dag("held");
    let inside = |script: &str| {
        let mut command = Command::new("nsenter");
        home.settle(command.args(["--mount", "--target", &minflow.pid().to_string(), "sh", "-c", script]));
        let done = command.output().unwrap();
        assert!(done.status.success(), "{script}: {done:?}");
    };
    let small = home.file("small").display().to_string();
    assert_eq!(home.run_dag("held", "r0").code, Some(0));
    // A mount with files open for writing cannot be made read-only but by the kernel: another, read-only, is laid over it.
    inside(&format!("mount --bind {small} {small} && mount -o remount,bind,ro {small}"));
    home.trigger("held", "r1");
    let reasons = await_illness(&minflow, "tasks");
    assert!(reasons.contains("Read-only file system") && reasons.contains("small/logs"), "{reasons}");
    assert!(minflow.said().contains("Read-only file system"));
    assert_eq!(home.read("ledger"), "r0\nnext\n");
    inside(&format!("umount {small}"));
    assert_eq!(home.await_run("held", "r1"), "success");
    assert_eq!(home.task("held", "r1", "one")["try_number"], 1, "what could not start is no try");
    await_health(&minflow);
    assert_eq!(home.read("ledger"), "r0\nnext\nr1\nnext\n");
}

#[test]
fn a_home_on_a_read_only_file_system_is_named_and_left_alone() {
    let home = Home::new();
    home.dag("held", LINE);
    let mut mounted = Command::new("unshare");
    let script = format!(
        "mount --bind . . && mount -o remount,bind,ro . && cd $PWD && exec {} run --port 0",
        env!("CARGO_BIN_EXE_minflow")
    );
    home.settle(mounted.args(["--mount", "sh", "-c", &script]));
    let done = mounted.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    if said.contains("mount:") || said.contains("unshare:") {
        eprintln!("SKIPPED: this host lets nothing be mounted (needs root and `unshare --mount`)");
        return;
    }
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system") && said.contains("help: "), "{said}");
}

#[test]
fn a_minflow_that_was_stopped_and_continued_records_true_ends_and_follows_its_schedules() {
    let home = Home::new();
    let every = |more: &str| format!("schedule.every = \"1s\"\n{more}\n[tasks.t]\nempty = true\n");
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    home.dag("all", &every(&format!("catchup = true\nstart_date = {now}")));
    home.dag("newest", &every("catchup = false"));
    home.dag("work", "[tasks.t]\nbash = 'echo $$ > $MINFLOW_HOME/pid; while ! test -e $MINFLOW_HOME/go; do sleep 0.02; done; exit 7'\n");
    let minflow = home.start();
    minflow.await_dag("work");
    home.trigger("work", "r");
    let pid: i32 = until("the task", || home.read("pid").trim().parse().ok());
    let dates = |dag: &str| -> Vec<jiff::Timestamp> {
        let mut dates: Vec<_> =
            home.runs(dag).iter().map(|run| run["logical_date"].as_str().unwrap().parse().unwrap()).collect();
        dates.sort_unstable();
        dates
    };
    for dag in ["all", "newest"] {
        until("its runs", || (dates(dag).len() >= 2).then_some(()));
    }
    signal(minflow.pid(), Signal::STOP);
    let stopped_at = jiff::Timestamp::now();
    home.write("go", "");
    until("the end of the task", || (!is_alive(pid)).then_some(()));
    until("six seconds", || (jiff::Timestamp::now() > stopped_at + jiff::Span::new().seconds(6)).then_some(()));
    let continued_at = jiff::Timestamp::now();
    signal(minflow.pid(), Signal::CONT);
    assert_eq!(home.await_run("work", "r"), "failed");
    let task = home.task("work", "r", "t");
    let ended_at: jiff::Timestamp = task["end_date"].as_str().unwrap().parse().unwrap();
    assert!(task["exit_code"] == 7 && task["try_number"] == 1 && ended_at < continued_at, "{task}");
    for dag in ["all", "newest"] {
        until("a run after it", || (*dates(dag).last().unwrap() > continued_at).then_some(()));
    }
    await_health(&minflow);
    let all = dates("all");
    let second = jiff::SignedDuration::from_secs(1);
    assert!(all.windows(2).all(|pair| pair[1].duration_since(pair[0]) == second), "each date once: {all:?}");
    let newest = dates("newest");
    let missed = |date: &&jiff::Timestamp| {
        **date > stopped_at + second && **date < continued_at - jiff::SignedDuration::from_millis(1_100)
    };
    assert_eq!(newest.iter().filter(missed).count(), 0, "of what was missed the newest alone: {newest:?}");
}

#[test]
fn a_database_that_is_deleted_while_minflow_runs_is_there_again_with_its_history() {
    let home = Home::new();
    home.dag("kept", LINE);
    let minflow = home.start();
    minflow.await_dag("kept");
    let runs = || {
        let listed = home.cli("dags list-runs kept -o plain");
        assert_eq!(listed.code, Some(0), "{listed:?}");
        listed.out.lines().filter(|line| line.contains("success")).count()
    };
    assert_eq!(home.run_dag("kept", "r0").code, Some(0));
    for number in 1..3 {
        for name in ["minflow.db", "minflow.db-wal", "minflow.db-shm"] {
            fs::remove_file(home.file(name)).unwrap();
        }
        // The next turn finds it.
        home.dag(&format!("other{number}"), LINE);
        minflow.await_dag(&format!("other{number}"));
        assert_eq!(home.run_dag("kept", &format!("r{number}")).code, Some(0));
        assert_eq!(runs(), number + 1);
    }
    assert!(minflow.said().contains("was deleted while minflow ran; it was written anew"));
    assert_eq!(minflow.status()["status"], "healthy");
    drop(minflow);
    assert_eq!(runs(), 3);
    assert_eq!(home.cli("db check").code, Some(0));
    assert_eq!(home.read("ledger"), "r0\nr1\nr2\n");
}

#[test]
fn without_descriptors_tasks_and_commands_wait_until_there_are_some() {
    let home = Home::new();
    home.dag(
        "few",
        "[tasks.first]\nbash = 'touch $MINFLOW_HOME/began; while ! test -e $MINFLOW_HOME/go; do sleep 0.02; done'\n\
         [tasks.next]\nbash = 'echo $MINFLOW_RUN_ID >> $MINFLOW_HOME/ledger'\ndepends_on = [\"first\"]\n",
    );
    let minflow = home.start();
    minflow.await_dag("few");
    home.trigger("few", "r");
    until("the first task", || home.file("began").exists().then_some(()));
    assert_eq!(minflow.get("/health").0, 200);
    // No number is left below but this one, with which it answers. The others are in use for as long as it runs.
    limit(&minflow, Resource::Nofile, Some(spare_descriptor(&minflow) + 1));
    home.write("go", "");
    let reasons = until("the lack in /health", || {
        let (code, health) = minflow.try_get("/health")?;
        let reasons = health["reasons"].to_string();
        (code == 503 && reasons.contains("tasks: ")).then_some(reasons)
    });
    assert!(reasons.contains("ulimit -n"), "{reasons}");
    let mut client = home.command("dags trigger few --run-id s");
    let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the lack in the log", || minflow.said().contains("a command could not be taken").then_some(()));
    assert_eq!(home.read("ledger"), "");
    limit(&minflow, Resource::Nofile, None);
    assert_eq!(home.await_run("few", "r"), "success");
    // The kernel may have set one descriptor aside for it: then it was refused in words, else it has waited.
    let triggered = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&triggered.stderr).into_owned();
    if !triggered.status.success() {
        assert!(
            said.contains("minflow cannot take the command: Too many open files") && said.contains("ulimit -n"),
            "{said}"
        );
        home.trigger("few", "s");
    }
    assert_eq!(home.await_run("few", "s"), "success");
    await_health(&minflow);
    // Each once; whichever asks first when there are descriptors again goes first.
    let ledger = home.read("ledger");
    assert!(["r\ns\n", "s\nr\n"].contains(&&*ledger), "{ledger}");
    assert_eq!(home.task("few", "r", "next")["try_number"], 1, "what could not start is no try");
}

#[test]
fn a_home_of_150_bytes_is_like_any_other() {
    let home = Home::below(&format!("{}/{}", "d".repeat(75), "e".repeat(75)));
    home.dag("deep", LINE);
    let mut minflow = home.start();
    minflow.await_dag("deep");
    assert_eq!(home.run_dag("deep", "r").texts(), (Some(0), "success\n", "r\n"));
    assert_eq!(home.read("ledger"), "r\n");
    let status = home.cli("status");
    assert!(status.code == Some(0) && status.out.contains("healthy"), "{status:?}");
    minflow.stop();
}

#[test]
fn ids_of_200_bytes_are_taken_and_longer_ones_refused() {
    let home = Home::new();
    let id = |letter: &str, length| letter.repeat(length);
    let (dag, task, run) = (id("d", 200), id("t", 200), id("r", 200));
    home.dag(&dag, &format!("[tasks.{task}]\nbash = 'echo {{{{ ti.task_id }}}} > out; python3 -V >/dev/null; cat out'\n[tasks.after]\nbash = \"echo {{{{ xcom('{task}') }}}}\"\ndepends_on = [\"{task}\"]\n"));
    home.write("dags/long.toml", format!("dag_id = \"{}\"\n[tasks.one]\nempty = true\n", id("d", 201)));
    let minflow = home.start();
    minflow.await_dag(&dag);
    let errors = minflow.status()["import_errors"].to_string();
    assert!(errors.contains("long.toml") && errors.contains("200"), "{errors}");
    assert_eq!(home.run_dag(&dag, &run).code, Some(0));
    assert!(home.log(&dag, &run, "after", 1).contains(&format!("{task}\n")));
    let refused = home.cli(&format!("dags trigger {dag} --run-id {}", id("r", 201)));
    assert!(refused.code == Some(1) && refused.err.contains("200 bytes"), "{refused:?}");
}

#[test]
fn without_a_dags_folder_minflow_starts_says_so_and_takes_it_up_when_it_is_made() {
    let home = Home::new();
    fs::remove_dir(home.file("dags")).unwrap();
    let minflow = home.start();
    let reasons = await_illness(&minflow, "dags");
    assert!(reasons.contains("make it"), "{reasons}");
    home.write("dags", "a file");
    await_illness(&minflow, "dags");
    fs::remove_file(home.file("dags")).unwrap();
    home.dag("late", LINE);
    until("the DAG", || minflow.dag("late"));
    await_health(&minflow);
    assert_eq!(home.run_dag("late", "r").code, Some(0));
}

#[test]
fn output_of_any_bytes_is_kept_and_shown() {
    let home = Home::new();
    home.dag(
        "bytes",
        r#"
        [tasks.binary]
        bash = "printf 'a\\000b\\377\\376c\\n'; head -c 2000 /dev/urandom; echo"
        [tasks.open]
        bash = "printf 'no newline at the end'"
        [tasks.reads]
        bash = "echo \"[{{ xcom('open') }}]\""
        depends_on = ["open"]
        [tasks.nothing]
        bash = "true"
        [tasks.pipe]
        bash = "yes | head -1"
        "#,
    );
    let minflow = home.start();
    minflow.await_dag("bytes");
    assert_eq!(home.run_dag("bytes", "r").code, Some(0));
    let printed = home.command("tasks logs bytes binary r").output().unwrap();
    assert_eq!(printed.status.code(), Some(0));
    let log = fs::read(home.file("logs/dag_id=bytes/run_id=r/task_id=binary/attempt=1.log")).unwrap();
    assert_eq!(printed.stdout, log, "printed as it is");
    assert!(log.windows(6).any(|bytes| bytes == b"a\0b\xff\xfec"));
    let open = home.log("bytes", "r", "open", 1);
    let lines: Vec<_> = open.lines().collect();
    assert_eq!((lines.len(), lines[1]), (3, "no newline at the end"), "{open}");
    assert!(home.log("bytes", "r", "reads", 1).contains("[no newline at the end]\n"));
    assert!(!home.log("bytes", "r", "pipe", 1).contains("Broken pipe"));
}

#[test]
fn long_scripts_run_and_entries_beyond_the_kernels_limit_are_named() {
    let home = Home::new();
    let filler = "# filler\n".repeat(25_000);
    let long = "v".repeat(140_000);
    home.dag(
        "long",
        &format!("[tasks.script]\nbash = '''\n{filler}echo ran\n'''\n[tasks.entry]\nbash = 'true'\nenv = {{ TOO_LONG = \"{long}\" }}\n"),
    );
    let minflow = home.start();
    minflow.await_dag("long");
    assert_eq!(home.run_dag("long", "r").code, Some(1));
    assert_eq!(home.task("long", "r", "script")["state"], "success");
    assert!(home.log("long", "r", "script", 1).contains("ran\n"));
    let reason = home.task("long", "r", "entry")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("TOO_LONG"), "{reason}");
    assert_eq!(home.task("long", "r", "entry")["exit_code"], Value::Null);
}

#[test]
fn a_log_folder_that_is_removed_is_made_again() {
    let home = Home::new();
    home.dag("tidy", LINE);
    let minflow = home.start();
    minflow.await_dag("tidy");
    assert_eq!(home.run_dag("tidy", "a").code, Some(0));
    fs::remove_dir_all(home.file("logs")).unwrap();
    fs::remove_dir_all(home.file("runs")).unwrap();
    assert_eq!(home.run_dag("tidy", "b").code, Some(0));
    assert!(home.log("tidy", "b", "one", 1).contains("exit code 0"));
    let shown = home.cli("tasks logs tidy one a");
    assert!(shown.code == Some(1) && shown.err.contains("log"), "{shown:?}");
    assert_eq!(minflow.status()["status"], json!("healthy"));
}

#[test]
fn a_log_file_that_cannot_be_written_is_said_and_stops_nothing() {
    let home = Home::new();
    home.write("airflow.toml", "[logging]\ndaemon_file = \"own/minflow.log\"\ndaemon_max_size = 2000\n");
    home.dag("said", LINE);
    fs::create_dir_all(home.file("own/minflow.log")).unwrap();
    let minflow = home.start();
    minflow.await_dag("said");
    let (code, health) = minflow.get("/health");
    let reasons = health["reasons"].to_string();
    assert!(code == 503 && reasons.contains("daemon_log: cannot open"), "{code} {reasons}");
    assert!(minflow.said().contains("daemon_log: cannot open"), "{}", minflow.said());
    assert_eq!(home.run_dag("said", "a").code, Some(0));
    fs::remove_dir(home.file("own/minflow.log")).unwrap();
    await_health(&minflow);
    until("the news", || minflow.said().contains("daemon_log: over").then_some(()));
    // What is said is in both, however often it was rotated.
    const AGAIN: &str = "airflow.toml was read again";
    for number in 1..=40 {
        signal(minflow.pid(), Signal::HUP);
        until("the reload", || (minflow.said().matches(AGAIN).count() == number).then_some(()));
    }
    drop(minflow);
    let earlier = (1..=5).rev().map(|number| home.read(&format!("own/minflow.log.{number}")));
    let text: String = earlier.chain([home.read("own/minflow.log")]).collect();
    assert!(home.file("own/minflow.log.1").exists());
    assert_eq!(text.matches(AGAIN).count(), 40, "{text}");
}
