//! Rows that a start reads and cannot, since no minflow wrote them: what cannot be read gives way to something safe that can, so that the
//! start goes on and nobody else stumbles over it. A run that has such a row fails; a row in whose place nothing can stand is put aside.
//!
//! Called only when the state cannot be loaded otherwise; what it changes stands in the log, with the run that fails, and in the audit log,
//! which keeps what was there. Which tables there are, and what is safe in each, is said by `tables`.

mod tables;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Params, Row, params, params_from_iter};
use serde_json::{Map, Value, json};

use crate::store::fault::Fault;
use crate::store::read::{collect, first};
use crate::store::row::micros;
pub(super) use tables::{TABLES, Table};

const FAIL_RUN: &str = "UPDATE dag_run SET state = 'failed', reason = ?2, end_date = ?3 WHERE key = ?1";
const END_INSTANCES: &str = "UPDATE task_instance SET state = 'skipped', end_date = ?2 WHERE run_key = ?1 AND (state IS NULL OR \
    state NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed'))";
const NOTE: &str =
    "INSERT INTO log (at, event, dag_id, run_id, task_id, owner, extra) VALUES (?1, 'mend', ?2, ?3, ?4, 'minflow', ?5)";
const DAG_OF_RUN: &str = "SELECT dag_id FROM dag_run WHERE key = ?1";
const COUNTED_DAGS: &str = "SELECT DISTINCT dag_id FROM state_count";
const FORGET_COUNTS: &str = "DELETE FROM state_count WHERE dag_id = ?1";
const COUNT: &str = "INSERT INTO state_count (dag_id, kind, state, count) \
    SELECT ?1, 'run', state, count(*) FROM dag_run WHERE dag_id = ?1 GROUP BY state UNION ALL \
    SELECT ?1, 'task', coalesce(i.state, 'none'), count(*) FROM dag_run r CROSS JOIN task_instance i ON i.run_key = r.key \
    WHERE r.dag_id = ?1 GROUP BY i.state";

/// So many are named in the log; the audit log has all.
const NAMED: usize = 20;

/// A value as it stands in the database, whatever it is.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    /// Not always UTF-8.
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl From<ValueRef<'_>> for Cell {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(text) => Self::Text(text.to_owned()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_owned()),
        }
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Cell {
    /// As JSON has it; of bytes that are no text, their hexadecimal digits.
    fn shown(&self) -> Value {
        let bytes = match self {
            Self::Null => return Value::Null,
            Self::Integer(number) => return (*number).into(),
            Self::Real(number) => return (*number).into(),
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => return text.into(),
                Err(_) => text,
            },
            Self::Blob(bytes) => bytes,
        };
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "hex": digits })
    }

    fn of(row: &Row<'_>, column: impl rusqlite::RowIndex) -> Result<Self, Fault> {
        Ok(row.get_ref(column)?.into())
    }
}

/// What is wrong with a row.
#[derive(Clone)]
struct Found {
    /// The table and the row.
    row: String,
    column: String,
    what: String,
}

impl Found {
    fn sentence(&self) -> String {
        let Self { row, column, what } = self;
        format!("{row}, column {column}: {what}")
    }
}

/// A row, by the values of its table's key. Statements about it find the instant of the mend as `?1`, what is wrong as `?2`, and the key from `?3` on.
struct Place<'a> {
    table: &'a Table,
    bound: Vec<Cell>,
}

/// Where the key begins in what is bound.
const KEY: usize = 2;

impl Place<'_> {
    fn condition(&self) -> String {
        let columns = self.table.key.iter().zip(KEY + 1..);
        columns.map(|(column, at)| format!("\"{column}\" IS ?{at}")).collect::<Vec<_>>().join(" AND ")
    }

    fn shown(&self) -> Value {
        match &self.bound[KEY..] {
            [key] => key.shown(),
            keys => keys.iter().map(Cell::shown).collect(),
        }
    }

    /// Reads the row as a start does; None: a start does not read it any longer.
    fn fault(&self, connection: &Connection) -> Result<Option<Found>, Fault> {
        let sql = format!("SELECT * FROM ({}) WHERE {}", self.table.list, self.condition());
        match first(connection, &sql, params_from_iter(&self.bound), self.table.read) {
            Err(Fault::Value { row, column, what }) => Ok(Some(Found { row, column, what })),
            read => read.map(|_| None),
        }
    }

    /// What an expression is in this row.
    fn value(&self, connection: &Connection, expression: &str) -> Result<Cell, Fault> {
        let sql = format!("SELECT {expression} FROM {} WHERE {}", self.table.name, self.condition());
        Ok(first(connection, &sql, params_from_iter(&self.bound), |row| Cell::of(row, 0))?.unwrap_or(Cell::Null))
    }

    /// False: the table does not take it.
    fn put(&mut self, connection: &Connection, column: &str, value: Cell) -> Result<bool, Fault> {
        let at = self.bound.len() + 1;
        let sql = format!("UPDATE OR IGNORE {} SET \"{column}\" = ?{at} WHERE {}", self.table.name, self.condition());
        self.bound.push(value);
        let changed = connection.execute(&sql, params_from_iter(&self.bound));
        let value = self.bound.pop();
        if changed? == 0 {
            return Ok(false);
        }
        let key = self.table.key.iter().position(|name| *name == column);
        if let (Some(at), Some(value)) = (key, value) {
            self.bound[KEY + at] = value;
        }
        Ok(true)
    }
}

/// What is changed, in one transaction.
struct Mending<'a> {
    connection: &'a Connection,
    now: Timestamp,
    /// By the key of a run, why it fails.
    failed: BTreeMap<i64, String>,
    /// A run may have become another DAG's.
    is_recounted: bool,
    noted: usize,
}

/// Makes all readable that a start reads.
pub(super) fn mend(connection: &mut Connection, now: Timestamp) -> Result<(), Fault> {
    let transaction = connection.transaction()?;
    let mut mending = Mending { connection: &transaction, now, failed: BTreeMap::new(), is_recounted: false, noted: 0 };
    for table in TABLES {
        for key in unread(&transaction, table)? {
            mending.settle(table, key)?;
        }
    }
    mending.fail_runs()?;
    if mending.noted > NAMED {
        log::error!("and {} more", mending.noted - NAMED);
    }
    log::error!(
        "minflow did not write that, and goes on without it: `minflow audit --event mend` shows what was there, `minflow db check` whether there \
         is more that cannot be read"
    );
    transaction.commit()?;
    Ok(())
}

/// The keys of the rows that a start cannot read.
fn unread(connection: &Connection, table: &Table) -> Result<Vec<Vec<Cell>>, Fault> {
    let keys = collect(connection, table.list, [], |row| match (table.read)(row) {
        Err(Fault::Value { .. }) => {
            Ok(Some(table.key.iter().map(|&column| Cell::of(row, column)).collect::<Result<_, _>>()?))
        }
        other => other.map(|()| None),
    })?;
    Ok(keys.into_iter().flatten().collect())
}

impl Mending<'_> {
    /// Puts something readable in the place of each value of a row that is not, or the row aside.
    fn settle(&mut self, table: &Table, key: Vec<Cell>) -> Result<(), Fault> {
        let mut bound = vec![Cell::Integer(micros(self.now)), Cell::Null];
        bound.extend(key);
        let mut place = Place { table, bound };
        let Some(found) = place.fault(self.connection)? else { return Ok(()) };
        place.bound[1] = Cell::Text(format!("an impossible row: {}", found.sentence()).into_bytes());
        if let Some(run) = table.run
            && let Cell::Integer(run) = place.value(self.connection, run)?
        {
            self.failed.entry(run).or_insert_with(|| format!("an impossible row: {}", found.sentence()));
        }
        let mut replaced: Vec<(Found, Cell)> = Vec::new();
        while let Some(found) = place.fault(self.connection)? {
            let is_new = replaced.iter().all(|(before, _)| before.column != found.column);
            let Some(safe) = table.safe(&found.column).filter(|_| is_new) else {
                return self.put_aside(&place, &found);
            };
            let was = place.value(self.connection, &format!("\"{}\"", found.column))?;
            let safe = place.value(self.connection, safe)?;
            if !place.put(self.connection, &found.column, safe)? {
                return self.put_aside(&place, &found);
            }
            self.is_recounted |= table.name == "dag_run" && found.column == "dag_id";
            replaced.push((found, was));
        }
        for (column, expression) in table.marks {
            let value = place.value(self.connection, expression)?;
            place.put(self.connection, column, value)?;
        }
        for (found, was) in replaced {
            let extra = json!({"table": table.name, "key": place.shown(), "column": found.column, "was": was.shown(), "fault": found.what});
            self.note(&place, &found, extra)?;
        }
        Ok(())
    }

    /// The row leaves its table, and the audit log keeps all of it.
    fn put_aside(&mut self, place: &Place<'_>, found: &Found) -> Result<(), Fault> {
        let (table, condition) = (place.table.name, place.condition());
        let sql = format!("SELECT * FROM {table} WHERE {condition}");
        let all = first(self.connection, &sql, params_from_iter(&place.bound), |row| {
            let names = row.as_ref().column_names().map(str::to_owned).enumerate();
            names.map(|(at, name)| Ok((name, Cell::of(row, at)?.shown()))).collect::<Result<Map<_, _>, Fault>>()
        })?;
        let extra =
            json!({"table": table, "key": place.shown(), "column": found.column, "row": all, "fault": found.what});
        self.note(place, found, extra)?;
        self.connection.execute(&format!("DELETE FROM {table} WHERE {condition}"), params_from_iter(&place.bound))?;
        Ok(())
    }

    /// What was there, in the log and in the audit log.
    fn note(&mut self, place: &Place<'_>, found: &Found, extra: Value) -> Result<(), Fault> {
        self.noted += 1;
        if self.noted <= NAMED {
            log::error!("{}: {}", found.sentence(), place.table.outcome);
        }
        let mut ids = Vec::new();
        for expression in place.table.ids {
            let id = place.value(self.connection, expression)?;
            // The entry is to be read.
            ids.push(if matches!(id.shown(), Value::String(_)) { id } else { Cell::Null });
        }
        let [dag_id, run_id, task_id] = &ids[..] else { unreachable!("three ids are named") };
        self.connection.execute(NOTE, params![micros(self.now), dag_id, run_id, task_id, extra.to_string()])?;
        Ok(())
    }

    fn fail_runs(&self) -> Result<(), Fault> {
        let mut dags = BTreeSet::new();
        for (key, what) in &self.failed {
            log::error!("the run with the key {key} fails: {what}");
            self.connection.execute(FAIL_RUN, params![key, what, micros(self.now)])?;
            self.connection.execute(END_INSTANCES, params![key, micros(self.now)])?;
            dags.extend(ids(self.connection, DAG_OF_RUN, [key])?);
        }
        if self.is_recounted {
            // Which DAG has lost a run, nobody knows.
            dags.extend(ids(self.connection, COUNTED_DAGS, [])?);
        }
        for dag_id in dags {
            self.connection.execute(FORGET_COUNTS, [&dag_id])?;
            self.connection.execute(COUNT, [&dag_id])?;
        }
        Ok(())
    }
}

/// Those that are ids at all.
fn ids(connection: &Connection, sql: &str, params: impl Params) -> Result<Vec<String>, Fault> {
    let found = collect(connection, sql, params, |row| Ok(row.get_ref(0)?.as_str().ok().map(str::to_owned)))?;
    Ok(found.into_iter().flatten().collect())
}
