//! The `sql` operator: runs a script in a SQLite database, statement by statement, and leaves rows as JSON.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, Statement};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Failed, Finality, Verdict, Voice};
use crate::diagnostic::Diagnostic;
use crate::model::SqlOutput;

/// What to do; all of it is rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqlTask {
    pub script: String,
    /// What messages call the script: its file, or `sql`.
    pub name: String,
    /// Absolute, or `:memory:`.
    pub database: String,
    pub is_read_only: bool,
    pub is_autocommit: bool,
    /// A list, an object, or null.
    pub parameters: Value,
    pub output: SqlOutput,
    /// Where the value goes; left alone if there is none.
    pub value: PathBuf,
    /// Where the reason of a failure goes.
    pub verdict: PathBuf,
    /// For all of it; None: as long as it takes.
    pub timeout: Option<Duration>,
}

/// After so many of SQLite's instructions it is asked whether the time is over.
const BETWEEN_QUESTIONS: i32 = 10_000;

/// How long another process may hold the database.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the XComs of a try may hold.
const MAX_VALUE_BYTES: usize = 16 << 20;
const MEMORY: &str = ":memory:";

/// Runs the script. In one transaction, unless `is_autocommit`: then what precedes a fault stays.
///
/// # Errors
/// The database cannot be opened, a statement is wrong or refused, its parameters do not fit, or its rows are too many.
pub fn run(task: &SqlTask) -> Result<(), Failed> {
    let done = perform(task, &Voice::Aloud, |value| {
        std::fs::write(&task.value, value.to_string())
            .map_err(|error| Failed(format!("its value cannot be written to `{}`: {error}", task.value.display())))
    });
    if let Err(failed) = &done {
        Verdict::failed(reason(failed), Finality::Open).leave(&task.verdict)?;
    }
    done.map(drop)
}

/// What the log tells in several lines, in one: the statement itself is left out.
pub fn reason(Failed(message): &Failed) -> String {
    let mut lines = message.lines();
    let what = lines.next().unwrap_or_default();
    match lines.find_map(|line| line.strip_prefix("help: ")) {
        Some(help) => format!("{what}; {help}"),
        None => what.to_owned(),
    }
}

/// As [`run`], with the value, if there is one, given to `keep` before the commit: a value that cannot be kept must leave nothing done.
///
/// # Errors
/// As [`run`], and that of `keep`.
pub fn perform(
    task: &SqlTask,
    voice: &Voice,
    keep: impl FnOnce(&Value) -> Result<(), Failed>,
) -> Result<Option<Value>, Failed> {
    let connection = open(task)?;
    let mut session = Session { task, voice, connection: &connection, value: None, used: BTreeSet::new() };
    if !task.is_autocommit {
        session.control(begin(&connection, &task.script, task.is_read_only))?;
    }
    session.statements()?;
    session.note_unused();
    session.value.as_ref().map_or(Ok(()), keep)?;
    if !task.is_autocommit {
        session.control("COMMIT")?;
    }
    Ok(session.value)
}

fn open(task: &SqlTask) -> Result<Connection, Failed> {
    let path = &task.database;
    let flags = if task.is_read_only && path != MEMORY {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    let opened = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX);
    let mut connection = opened.map_err(|error| {
        let folder = std::path::Path::new(path).parent();
        let help = match folder {
            Some(folder) if !folder.is_dir() => format!("make the folder `{}`, or correct the path", folder.display()),
            _ if task.is_read_only => {
                "with `read_only` it must exist; correct the path, or run what makes it first".to_owned()
            }
            _ => "correct the path, or its modes".to_owned(),
        };
        Failed(format!("cannot open the database `{path}`: {}\nhelp: {help}", words(&error)))
    })?;
    let patience = task.timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
    connection.busy_timeout(patience).map_err(|error| Failed(words(&error)))?;
    if let Some(timeout) = task.timeout {
        let began = Instant::now();
        let is_over = move || began.elapsed() >= timeout;
        connection.progress_handler(BETWEEN_QUESTIONS, Some(is_over)).map_err(|error| Failed(words(&error)))?;
    }
    Ok(connection)
}

/// A transaction that will write takes the lock at once: one that reads first might be refused it later.
fn begin(connection: &Connection, script: &str, is_read_only: bool) -> &'static str {
    let reads = |part: Range<usize>| connection.prepare(&script[part]).is_ok_and(|statement| statement.readonly());
    // What needs a table that an earlier statement makes cannot be prepared yet, and the earlier one writes.
    if is_read_only || parts(script).into_iter().all(reads) { "BEGIN" } else { "BEGIN IMMEDIATE" }
}

struct Session<'t> {
    task: &'t SqlTask,
    voice: &'t Voice,
    connection: &'t Connection,
    /// Of the last statement.
    value: Option<Value>,
    /// The names of the parameters that a statement has taken.
    used: BTreeSet<String>,
}

impl Session<'_> {
    fn control(&self, sql: &str) -> Result<(), Failed> {
        self.connection.execute_batch(sql).map_err(|error| {
            let help = remedy(&error, self.task);
            Failed(format!("`{sql}` failed: {}{help}", words(&error)))
        })
    }

    fn statements(&mut self) -> Result<(), Failed> {
        let script = &self.task.script;
        let mut number = 0;
        let mut waiting: Option<Range<usize>> = None;
        let parts = parts(script);
        for (at, part) in parts.iter().enumerate() {
            let part = waiting.take().map_or(part.clone(), |begun| begun.start..part.end);
            let connection = self.connection;
            match connection.prepare(&script[part.clone()]) {
                Ok(mut statement) => {
                    number += 1;
                    self.statement(&mut statement, number, part)?;
                }
                // The body of a trigger has semicolons of its own.
                Err(error) if words(&error) == "incomplete input" && at + 1 < parts.len() => {
                    waiting = Some(part);
                }
                Err(error) => return Err(self.fault(&error, part)),
            }
        }
        if number == 0 {
            return Err(Failed(format!("{}: the script holds no statement\nhelp: write one", self.task.name)));
        }
        Ok(())
    }

    fn statement(&mut self, statement: &mut Statement<'_>, number: usize, part: Range<usize>) -> Result<(), Failed> {
        self.bind(statement, &part)?;
        if statement.column_count() == 0 {
            // Counted by the connection, so that a statement that changes no rows is not told the changes of the one before.
            let before = self.connection.total_changes();
            statement.raw_execute().map_err(|error| self.fault(&error, part))?;
            let changed = self.connection.total_changes() - before;
            self.value = None;
            self.voice.say(format_args!("statement {number}: {}", counted(changed, "row", "changed")));
            return Ok(());
        }
        let rows = self.rows(statement, &part)?;
        self.voice.say(format_args!("statement {number}: {}", counted(rows.count, "row", "read")));
        self.value = match self.task.output {
            SqlOutput::None => None,
            SqlOutput::Rows => Some(Value::Array(rows.kept)),
            SqlOutput::First | SqlOutput::Value => Some(rows.kept.into_iter().next().unwrap_or_default()),
        };
        Ok(())
    }

    /// Reads all rows, so that the statement is carried out to its end, and keeps what is wanted.
    fn rows(&self, statement: &mut Statement<'_>, part: &Range<usize>) -> Result<Rows, Failed> {
        let output = self.task.output;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        if matches!(output, SqlOutput::Rows | SqlOutput::First)
            && let Some(name) =
                names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)).map(|(_, name)| name)
        {
            let help = format!("give one another name: `… AS other_{name}`");
            return Err(self.at(part.clone(), &format!("two columns are called `{name}`"), &help));
        }
        let (mut kept, mut count, mut bytes) = (Vec::new(), 0, 2);
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|error| self.fault(&error, part.clone()))? {
            count += 1;
            let is_wanted = output == SqlOutput::Rows || (output != SqlOutput::None && count == 1);
            if !is_wanted {
                continue;
            }
            let mut fields = Map::new();
            for (at, name) in names.iter().enumerate() {
                let value = row.get_ref(at).map_err(|error| self.fault(&error, part.clone()))?;
                let value = json(value);
                if output == SqlOutput::Value {
                    bytes += value.to_string().len();
                    kept.push(value);
                    break;
                }
                fields.insert(name.clone(), value);
            }
            if output != SqlOutput::Value {
                let row = Value::Object(fields);
                bytes += row.to_string().len() + 1;
                kept.push(row);
            }
            if bytes > MAX_VALUE_BYTES {
                let message = format!("the rows are more than 16 MiB as JSON, at row {count}");
                let help = "select fewer, leave them in a table, or take `output = \"none\"`";
                return Err(self.at(part.clone(), &message, help));
            }
        }
        Ok(Rows { kept, count })
    }

    /// Gives a statement the parameters that it names. Those of a list go to each statement that has a `?`.
    fn bind(&mut self, statement: &mut Statement<'_>, part: &Range<usize>) -> Result<(), Failed> {
        let wanted = statement.parameter_count();
        let parameters = &self.task.parameters;
        if let (Value::Array(list), true) = (parameters, wanted > 0)
            && list.len() != wanted
        {
            let message = format!("the statement takes {wanted} parameters, and {} are given", list.len());
            return Err(self.at(part.clone(), &message, "give as many values as it has places"));
        }
        for at in 1..=wanted {
            let name = statement.parameter_name(at).map(str::to_owned);
            let value = match (parameters, &name) {
                (Value::Array(list), _) => list.get(at - 1),
                (Value::Object(table), Some(name)) => {
                    let bare = name.trim_start_matches([':', '@', '$', '?']);
                    self.used.insert(bare.to_owned());
                    table.get(bare)
                }
                _ => None,
            };
            let Some(value) = value else {
                let shown = name.unwrap_or_else(|| format!("number {at}"));
                let help = "add it to `parameters`: a table for names, a list for question marks";
                return Err(self.at(part.clone(), &format!("the statement's parameter {shown} is not given"), help));
            };
            statement.raw_bind_parameter(at, Bound(value)).map_err(|error| self.fault(&error, part.clone()))?;
        }
        Ok(())
    }

    /// A name that nothing takes may be a slip of the pen.
    fn note_unused(&self) {
        for name in self.task.parameters.as_object().into_iter().flat_map(Map::keys) {
            if !self.used.contains(name) {
                self.voice.say(format_args!("note: no statement takes the parameter `{name}`"));
            }
        }
    }

    fn fault(&self, error: &Error, part: Range<usize>) -> Failed {
        let help = remedy(error, self.task);
        let help = help.strip_prefix("\nhelp: ").unwrap_or_default();
        let place = match error {
            Error::SqlInputError { offset, .. } if *offset >= 0 => {
                let at = part.start + *offset as usize;
                at..word_end(&self.task.script, at)
            }
            _ => part,
        };
        self.at(place, &words(error), help)
    }

    /// A fault at a place of the script.
    fn at(&self, place: Range<usize>, message: &str, help: &str) -> Failed {
        let script = &self.task.script;
        let start = place.start + script[place.clone()].len() - script[place.clone()].trim_start().len();
        let end = script[start..place.end.max(start)].find('\n').map_or(place.end.max(start), |line| start + line);
        Failed(Diagnostic::at(&self.task.name, script, start..end, "sql", message, help).to_string())
    }
}

struct Rows {
    kept: Vec<Value>,
    count: u64,
}

fn counted(count: u64, noun: &str, what: &str) -> String {
    format!("{count} {noun}{} {what}", if count == 1 { "" } else { "s" })
}

/// The end of the word, or else of the character, that begins at `at`.
fn word_end(script: &str, at: usize) -> usize {
    let rest = script.get(at..).unwrap_or_default();
    let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    at.min(script.len()) + word.max(rest.chars().next().map_or(0, char::len_utf8))
}

/// SQLite's own sentence.
fn words(error: &Error) -> String {
    match error {
        Error::SqlInputError { msg, .. } => msg.clone(),
        Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

/// What to do about it, as a line of help; empty where SQLite's sentence says all.
fn remedy(error: &Error, task: &SqlTask) -> String {
    let is_nested = words(error).contains("transaction");
    let help = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process holds the database for too long (30 s, or the `timeout`); end its transaction, or give the task `retries`"
        }
        Some(ErrorCode::OperationInterrupted) => {
            let given = crate::keytable::print_duration(task.timeout.unwrap_or_default());
            return format!(
                "\nhelp: it has not ended within its timeout of {given}; give the table a longer `timeout`, or the query an index"
            );
        }
        Some(ErrorCode::ReadOnly) if task.is_read_only => "take `read_only` out, if the task is to write",
        Some(ErrorCode::ReadOnly) => "the file and its folder must be writable for minflow's user",
        Some(ErrorCode::NotADatabase) => "correct the path: that file is no SQLite database",
        Some(ErrorCode::DiskFull) => "make room on the disk",
        _ if is_nested && !task.is_autocommit => {
            "the script is one transaction already; with `autocommit = true` it can have its own"
        }
        _ => return String::new(),
    };
    format!("\nhelp: {help}")
}

/// A JSON value as SQLite takes it: truth values as 0 and 1, lists and tables as JSON text.
struct Bound<'v>(&'v Value);

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(match self.0 {
            Value::Null => SqlValue::Null,
            Value::Bool(is) => SqlValue::Integer(i64::from(*is)),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => SqlValue::Integer(whole),
                None => SqlValue::Real(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => return Ok(ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))),
            list @ (Value::Array(_) | Value::Object(_)) => SqlValue::Text(list.to_string()),
        }))
    }
}

/// What SQLite holds, as JSON: a blob as hexadecimal digits, an infinite number as text.
fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(whole) => Value::from(whole),
        ValueRef::Real(number) if number.is_finite() => Value::from(number),
        ValueRef::Real(number) => Value::from(number.to_string()),
        ValueRef::Text(text) => Value::from(String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => Value::from(bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>()),
    }
}

/// The parts of a script between the semicolons that stand outside of texts, names and comments; without those that hold nothing.
fn parts(script: &str) -> Vec<Range<usize>> {
    let bytes = script.as_bytes();
    let (mut found, mut start, mut at, mut is_empty) = (Vec::new(), 0, 0, true);
    let after =
        |from: usize, end: &str| script[from..].find(end).map_or(bytes.len(), |length| from + length + end.len());
    while at < bytes.len() {
        let rest = &bytes[at..];
        match rest[0] {
            b'-' if rest.starts_with(b"--") => at = after(at, "\n"),
            b'/' if rest.starts_with(b"/*") => at = after((at + 2).min(bytes.len()), "*/"),
            quote @ (b'\'' | b'"' | b'`') => {
                is_empty = false;
                // A doubled quote is the end of one text and the beginning of the next.
                at = after(
                    at + 1,
                    if quote == b'\'' {
                        "'"
                    } else if quote == b'"' {
                        "\""
                    } else {
                        "`"
                    },
                );
            }
            b'[' => {
                is_empty = false;
                at = after(at + 1, "]");
            }
            b';' => {
                at += 1;
                if !std::mem::replace(&mut is_empty, true) {
                    found.push(start..at);
                }
                start = at;
            }
            byte => {
                is_empty &= byte.is_ascii_whitespace();
                at += 1;
            }
        }
    }
    if !is_empty {
        found.push(start..bytes.len());
    }
    found
}

#[cfg(test)]
#[path = "sql_tests.rs"]
mod tests;
