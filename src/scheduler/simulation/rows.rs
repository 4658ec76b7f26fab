//! Starts on a file in which anything may stand: the loop goes on, and so do the DAGs that have nothing to do with it.

use super::*;
use crate::config::Synchronous;
use crate::scheduler::simulation::tests::trigger;
use crate::store::{Database, Reader};

/// In order of their ids, so that the first row of each table is not `good`'s.
const FILES: [(&str, &str); 3] = [
    (
        "bad.toml",
        "schedule = '*/10 * * * *'\ncatchup = true\nstart_date = 2026-11-21T12:10:00\ndeadlines = [{ reference = 'queued_at', interval = '1h' }]\nexpect_by = '13:00'\n\
         on_failure = [{ bash = 'x', when = 'first' }]\n\
         max_active_runs = 1\n[tasks.a]\nbash = 'true'\nretries = 1\nretry_delay = '1h'\non_failure = [{ bash = 'x' }]\n[tasks.b]\nsensor = { time_delta = '1h' }\n\
         [tasks.c]\nbash = 'true'\nexpand = { x = [1, 2] }\n",
    ),
    (
        "eater.toml",
        "schedule = { assets = 'inbox' }\ntasks.eat = { bash = 'x' }\n[assets.inbox]\nuri = 'file:///srv/in/*.csv'\n",
    ),
    ("good.toml", "[tasks.b]\nbash = 'true'\n"),
];

const VALUES: [&str; 8] = [
    "x'ff00'",
    "'odd'",
    "-9e18",
    "NULL",
    "0",
    "9223372036854775807",
    "-9223372036854775807",
    // The last instant that there is.
    "253402207200000000",
];

/// What a scheduler has left that ended in the midst of its work.
fn left_behind(path: &Path) -> (SimulatedClock, Settings, BTreeMap<String, String>) {
    let mut simulation = Simulation::with(&FILES);
    simulation.command(trigger("bad"));
    simulation.started("bad.a");
    simulation.end("bad.a", Outcome::Exited(1));
    simulation.started("bad.c[0]");
    simulation.command(trigger("eater"));
    simulation.command(trigger("good"));
    simulation.started("good.b");
    let mut database = Database::open(path, Synchronous::Normal).unwrap();
    for changes in simulation.store.commits() {
        database.commit(&changes).unwrap();
    }
    drop(database);
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch(include_str!("../../../tests/fixtures/later-rows.sql")).unwrap();
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    (simulation.clock, simulation.settings, simulation.files)
}

/// The process dies, and another one starts on this file.
fn start_on(
    mut database: Database,
    (clock, settings, files): (SimulatedClock, Settings, BTreeMap<String, String>),
) -> Simulation {
    let restore = Box::new(|record: &crate::scheduler::DagRecord, version: &crate::scheduler::change::VersionWrite| {
        dagfile::parse(Path::new(&record.file), version.source.as_bytes(), &defaults().for_stored()).ok().map(Arc::new)
    });
    let (calls, health) = (Calls::default(), Health::default());
    let snapshot = database.load().unwrap();
    let parts = Parts {
        store: Box::new(database),
        executor: Box::new(calls.clone()),
        triggerer: Box::new(calls.clone()),
        timer: Box::new(calls.clone()),
        files: Box::new(calls.clone()),
        followers: Box::new(calls.clone()),
        host: Box::new(calls.clone()),
        clock: Arc::new(clock.clone()),
        health: health.clone(),
        gauges: GaugeBoard::default(),
        heartbeat: Heartbeat::default(),
    };
    let mut scheduler = Scheduler::new(settings.clone(), snapshot, restore, parts);
    scheduler.turn(Vec::new());
    let mut simulation = Simulation { clock, store: MemoryStore::default(), calls, scheduler, settings, files, health };
    simulation.rescan();
    simulation
}

/// Each column of each table, with the table's key.
fn cells(path: &Path) -> Vec<[String; 3]> {
    let connection = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT t.name, c.name, (SELECT group_concat('\"' || k.name || '\"') FROM pragma_table_info(t.name) k WHERE k.pk) \
         FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY t.name, c.cid";
    let mut names = connection.prepare(sql).unwrap();
    let rows = names.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?])).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Goes on after a damage for as long as most deadlines take. What is wrong then; none: nothing is.
fn go_on_with(path: &Path, home: (SimulatedClock, Settings, BTreeMap<String, String>)) -> Option<String> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let database = Database::open(path, Synchronous::Normal).unwrap();
        let mut simulation = start_on(database, home);
        simulation.go_on();
        simulation.end("good.b", Outcome::Exited(0));
        simulation.advance(Duration::from_secs(3_700));
        simulation.go_on();
        assert!(simulation.scheduler.has_written());
        simulation.health.reasons()
    }));
    let Ok(reasons) = outcome else { return Some("it fell".to_owned()) };
    let good = Reader::open(path).unwrap().runs("good", None).unwrap();
    let has_ended = good.len() == 1 && good[0].state == RunState::Success;
    (!reasons.is_empty() || !has_ended).then(|| format!("{reasons:?} {good:?}"))
}

/// Each cell takes `many` of the values, in turn.
fn damage_each_cell(many: usize) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.db");
    let home = left_behind(&whole);
    let bytes = std::fs::read(&whole).unwrap();
    let (mut starts, mut faults) = (0, Vec::new());
    for (at, [table, column, key]) in cells(&whole).iter().enumerate() {
        for value in VALUES.iter().cycle().skip(at * many).take(many) {
            let path = folder.path().join("minflow.db");
            for side in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{side}", path.display()));
            }
            std::fs::write(&path, &bytes).unwrap();
            let connection = rusqlite::Connection::open(&path).unwrap();
            let sql = format!(
                "UPDATE {table} SET \"{column}\" = {value} WHERE ({key}) = (SELECT {key} FROM {table} ORDER BY {key} LIMIT 1)"
            );
            let is_taken = connection.execute(&sql, []).is_ok_and(|changed| changed == 1);
            drop(connection);
            if is_taken {
                starts += 1;
                faults.extend(
                    go_on_with(&path, home.clone()).map(|fault| format!("{table}.{column} = {value}: {fault}")),
                );
            }
        }
    }
    assert!(faults.is_empty(), "{} of {starts}:\n{}", faults.len(), faults.join("\n"));
    starts
}

#[test]
fn whatever_stands_in_any_cell_the_loop_goes_on_and_so_does_all_else() {
    let starts = damage_each_cell(1);
    assert!(starts > 150, "{starts}");
}

#[test]
#[ignore = "minutes"]
fn any_cell_may_hold_any_of_the_values() {
    let starts = damage_each_cell(VALUES.len());
    assert!(starts > 1_400, "{starts}");
}
