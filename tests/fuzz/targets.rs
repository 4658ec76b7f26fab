//! What reads what comes from outside.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minflow::api::guard::{self, Look};
use minflow::api::protocol;
use minflow::config::{self, ConfigInputs, Synchronous};
use minflow::crontab;
use minflow::dagfile::{self, Defaults};
use minflow::jinja::{self, Function, Outside, Res, UndefinedKind, Value};
use minflow::model::Catchup;
use minflow::operators::plugin;
use minflow::scheduler::StoreError;
use minflow::scheduler::port::Store as _;
use minflow::store::{AuditFilter, Database, Reader};
use minflow::supervisor::protocol::{Answer, Decoder, Request};
use minflow::template;
use minflow::timetable::{Cron, Timetable};
use rusqlite::Connection;
use rusqlite::types::Value as Cell;

/// An instant to ask schedules about.
fn now() -> Timestamp {
    "2026-11-22T10:11:12Z".parse().unwrap()
}

pub fn dag(bytes: &[u8]) {
    let path = Path::new("d.toml");
    let faults = match dagfile::read(path, bytes, &Defaults::default()) {
        Ok((dag, warnings)) => {
            let next = Timetable::of(&dag).unwrap().next_run(None, Some(now()), None, Catchup::Latest, now());
            assert!(next.is_none_or(|next| next.run_after >= now() || dag.start_date.is_some()), "{next:?}");
            let mut faults = template::check(&dag, path, &String::from_utf8_lossy(bytes));
            faults.extend(warnings);
            faults
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            faults
        }
    };
    faults.iter().for_each(|fault| assert!(!fault.to_string().is_empty()));
}

pub fn config(bytes: &[u8]) {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("airflow.toml"), bytes).unwrap();
    let inputs = ConfigInputs { home: home.path().to_owned(), ..ConfigInputs::default() };
    if let Err(faults) = config::load(inputs) {
        assert!(!faults.is_empty());
        faults.iter().for_each(|fault| assert!(!fault.to_string().is_empty()));
    }
}

pub fn cron(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Cron::parse(&text) {
        Ok(cron) => {
            let zone = TimeZone::get("Europe/London").unwrap();
            let mut last = now();
            for _ in 0..3 {
                let Some(next) = cron.next(last, &zone) else { break };
                assert!(next > last, "{text}: {next} follows {last}");
                last = next;
            }
            assert!(cron.prev(now(), &zone).is_none_or(|before| before < now()), "{text}");
        }
        Err(fault) => {
            assert!(!fault.message.is_empty() && !fault.help.is_empty());
            assert!(text.get(fault.range.clone()).is_some(), "{fault:?}");
        }
    }
}

pub fn crontab(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let given = crontab::Given {
        path: Path::new("crontab"),
        text: &text,
        form: crontab::Form::User,
        user: "me",
        home: Some("/home/me"),
        zone: ("Europe/London", &TimeZone::get("Europe/London").unwrap()),
        prefix: "",
    };
    let read = crontab::read(&given);
    assert!(read.jobs.iter().all(|job| text.lines().nth(job.line as usize - 1).is_some()));
}

/// What a template finds: a few values, and nothing else.
struct Nothing(serde_json::Value);

impl Outside for Nothing {
    fn variable(&self, name: &str) -> Res<Option<Value>> {
        Ok(self.0.get(name).map(jinja::json::from_json))
    }

    fn filter(&self, _: &str) -> Option<Function> {
        None
    }

    fn load(&self, _: &str) -> Res<Option<String>> {
        Ok(None)
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn seed(&self) -> u64 {
        7
    }
}

pub fn template(bytes: &[u8]) {
    let outside = Nothing(serde_json::json!({
        "items": [1, 2.5, "three", null, true, [4], { "five": 5 }],
        "name": "N\u{e4}me",
        "params": { "a": "b", "n": 12 },
    }));
    let source = String::from_utf8_lossy(bytes);
    let rendered = jinja::render(&source, None, &outside, UndefinedKind::Strict);
    // What comes out is no more than one render may hold, and a text without tags is itself but for the newline at its end.
    let length = rendered.as_ref().map_or(0, String::len);
    assert!(length <= jinja::meter::MOST_BYTES);
    assert!(source.contains('{') || rendered.is_ok());
}

pub fn http(bytes: &[u8]) {
    let whole = guard::examine(bytes, &mut Look::default());
    if let Ok(Some(plain)) = &whole {
        let text = std::str::from_utf8(&plain.request).unwrap();
        assert!(text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1, "{text:?}");
        assert_eq!(text.lines().next().unwrap().split(' ').count(), 3, "{text:?}");
        let named = |line: &str| ["host:", "origin:"].iter().any(|name| line.to_ascii_lowercase().starts_with(name));
        assert!(text.lines().skip(1).all(|line| line.is_empty() || named(line)), "{text:?}");
        // What was handed on is judged as it was.
        let again = guard::examine(&plain.request, &mut Look::default()).unwrap().unwrap();
        assert_eq!(&again, plain);
    }
    if let Err(refusal) = &whole {
        assert!(refusal.starts_with(b"HTTP/1.1 "));
    }
    // However it is cut, it means the same, or was refused before its end.
    let mut look = Look::default();
    for end in 0..=bytes.len() {
        match guard::examine(&bytes[..end], &mut look) {
            Ok(None) => {}
            other => {
                assert!(other == whole || other.is_err() == whole.is_err(), "{other:?} {whole:?}");
                break;
            }
        }
    }
}

pub fn plugin(bytes: &[u8]) {
    for is_cut in [false, true] {
        if let Err(said) = plugin::answer(bytes, is_cut) {
            assert!(said.contains("plugin") && said.len() < 2_000, "{said}");
        }
    }
}

pub fn protocol(bytes: &[u8]) {
    let drain = |decoder: &mut Decoder| while let Ok(Some(_)) = decoder.take::<Request>() {};
    let mut requests = Decoder::default();
    requests.feed(bytes);
    drain(&mut requests);
    let mut answers = Decoder::default();
    answers.feed(bytes);
    while let Ok(Some(_)) = answers.take::<Answer>() {}
    // As one frame of the right length.
    let mut framed = Decoder::default();
    framed.feed(&(bytes.len() as u32).to_le_bytes());
    framed.feed(bytes);
    drain(&mut framed);
    if let Ok(request) = serde_json::from_slice::<protocol::Request>(bytes) {
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<protocol::Request>(&text).unwrap(), request);
    }
}

const MENDED: AuditFilter<'_> = AuditFilter { dag_id: None, run_id: None, since: None, event: Some("mend") };

/// A row of each table that the early release did not have.
const LATER_ROWS: &str = include_str!("../fixtures/later-rows.sql");

/// A database whose cells are changed.
pub struct Rows {
    path: PathBuf,
    /// As it was.
    whole: OnceCell<Vec<u8>>,
}

impl Rows {
    /// A database of an early release with a little of all, brought up to date.
    pub fn new(home: &Path) -> Self {
        let path = home.join("minflow.db");
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version-1.db"), &path).unwrap();
        drop(Database::open(&path, Synchronous::Normal).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(LATER_ROWS).unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE;").unwrap();
        drop(connection);
        let whole = OnceCell::from(std::fs::read(&path).unwrap());
        Self { path, whole }
    }

    /// Changes the cells that the input names, and reads all that minflow reads.
    pub fn read(&self, input: &[u8]) {
        for side in ["-wal", "-shm", "-journal"] {
            let _ = std::fs::remove_file(format!("{}{side}", self.path.display()));
        }
        std::fs::write(&self.path, self.whole.get().unwrap()).unwrap();
        self.damage(input);
        // Whatever stands in the rows, the start goes on; and what it has mended the next one does not mend again.
        let mut database = Database::open(&self.path, Synchronous::Normal).unwrap();
        let said = |error: StoreError| panic!("{error}; {}", error.help);
        database.load().unwrap_or_else(said);
        let mended = || Reader::open(&self.path).unwrap().audit(&MENDED, 10_000).map_or(0, |entries| entries.len());
        let before = mended();
        database.load().unwrap_or_else(said);
        assert_eq!(mended(), before);
        if let Ok(reader) = Reader::open(&self.path) {
            let _ = reader.dags();
            let _ = reader.recent_failures(10);
            let _ = reader.import_errors();
            let _ = reader.audit(&AuditFilter::default(), 10);
            let _ = reader.pools();
            let _ = reader.state_counts(None);
            for run in reader.runs("sales", None).unwrap_or_default() {
                for instance in reader.instances(run.key).unwrap_or_default() {
                    let _ = reader.tries(instance.key);
                }
            }
        }
    }

    /// Three bytes say which cell, the next what it becomes.
    fn damage(&self, input: &[u8]) {
        let connection = Connection::open(&self.path).unwrap();
        connection.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF;").unwrap();
        let names = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let tables =
            names("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name");
        for piece in input.chunks(5) {
            let &[table, column, row, kind, chance] = piece else { continue };
            let table = &tables[usize::from(table) % tables.len()];
            let columns = names(&format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"));
            let column = &columns[usize::from(column) % columns.len()];
            let value = match kind % 9 {
                0 => Cell::Null,
                1 => Cell::Integer(i64::MIN),
                2 => Cell::Integer(i64::MAX),
                3 => Cell::Integer(i64::from(chance) - 128),
                4 => Cell::Real(f64::from(chance) * 1e300),
                5 => Cell::Text(String::new()),
                6 => Cell::Text("\u{1f480}'{".repeat(usize::from(chance))),
                7 => Cell::Text("[{\"a\":".to_owned()),
                _ => Cell::Blob(vec![chance; 3]),
            };
            // A table without rowids has a primary key.
            let mut key =
                names(&format!("SELECT '\"' || name || '\"' FROM pragma_table_info('{table}') WHERE pk ORDER BY pk"));
            if key.is_empty() {
                key.push("rowid".to_owned());
            }
            let key = key.join(", ");
            let sql = format!(
                "UPDATE OR IGNORE {table} SET \"{column}\" = ?1 WHERE ({key}) = \
                 (SELECT {key} FROM {table} LIMIT 1 OFFSET (SELECT ?2 % max(1, count(*)) FROM {table}))"
            );
            // A column's own rules may forbid it.
            let _ = connection.execute(&sql, (value, row));
        }
    }
}
