//! Assets: their rows, their events and which runs have consumed them, the files that were counted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde_json::{Map, Value};

use crate::model::{Asset, AssetDefinition, AssetEvent, AssetKey, DagId, EventSource, RunKey, Stamp};
use crate::scheduler::StoreError;
use crate::scheduler::change::{AssetChanges, AssetReference, AssetSnapshot, Consumption, EventWrite};
use crate::store::fault::Fault;
use crate::store::put::json;
use crate::store::read::{Reader, collect};
use crate::store::row::{Fields, duration, key_limit, maybe_micros, micros};

/// Who produces an asset, reads it or waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReference {
    pub asset: AssetKey,
    pub dag_id: String,
    /// `schedule`, `outlet` or `inlet`.
    pub role: String,
    /// Empty for a schedule.
    pub task_id: String,
}

macro_rules! asset_columns {
    () => {
        "key, name, uri, \"group\", extra, is_alias, settle, catchup, watched_since"
    };
}
pub(super) const ASSETS: &str = concat!("SELECT ", asset_columns!(), " FROM asset ORDER BY key");
const BY_NAME: &str = concat!("SELECT ", asset_columns!(), " FROM asset WHERE name = ?1");
/// One that is defined goes before one that is only named by its uri.
const BY_URI: &str = concat!(
    "SELECT ",
    asset_columns!(),
    " FROM asset WHERE uri = ?1 AND NOT is_alias ORDER BY name = uri, key LIMIT 1"
);
macro_rules! event_columns {
    () => {
        "e.key, a.name, a.uri, a.\"group\", e.timestamp, e.extra, e.source_dag_id, e.source_run_id, e.source_task_id, \
         e.source_map_index"
    };
}
/// The newest, of those of an asset and those that came by an alias.
pub(super) const EVENTS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM asset_event e JOIN asset a ON a.key = e.asset_key WHERE e.key IN ( \
     SELECT key FROM (SELECT key FROM asset_event WHERE asset_key = ?1 ORDER BY key DESC LIMIT ?2) \
     UNION SELECT event_key FROM (SELECT event_key FROM asset_alias_event WHERE alias_key = ?1 ORDER BY event_key DESC LIMIT ?2)) \
     ORDER BY e.key DESC LIMIT ?2"
);
pub(super) const CONSUMED: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM dagrun_asset_event c JOIN asset_event e ON e.key = c.event_key JOIN asset a ON a.key = e.asset_key \
     WHERE c.run_key = ?1 ORDER BY e.key"
);

impl Reader {
    /// In the order in which minflow has met them.
    pub fn assets(&self) -> Result<Vec<Asset>, StoreError> {
        self.list("list the assets", ASSETS, [], asset)
    }

    /// The asset of a name, else that of a uri.
    pub fn find_asset(&self, name: &str) -> Result<Option<Asset>, StoreError> {
        match self.one("find an asset", BY_NAME, [name], asset)? {
            Some(found) => Ok(Some(found)),
            None => self.one("find an asset", BY_URI, [name], asset),
        }
    }

    /// Of all DAGs that have a file.
    pub fn asset_references(&self) -> Result<Vec<StoredReference>, StoreError> {
        let sql = "SELECT dag_id, role, task_id, asset_key FROM asset_reference ORDER BY dag_id, role, task_id";
        self.list("list who has to do with assets", sql, [], |row| {
            Ok(StoredReference {
                dag_id: row.get(0)?,
                role: row.get(1)?,
                task_id: row.get(2)?,
                asset: AssetKey(row.get(3)?),
            })
        })
    }

    /// What aliases have stood for: an alias and an asset each.
    pub fn resolved_aliases(&self) -> Result<Vec<(AssetKey, AssetKey)>, StoreError> {
        self.list("list what aliases stand for", RESOLVED, [], resolved)
    }

    /// The newest events of an asset or alias, oldest first, at most `limit`.
    pub fn asset_events(&self, asset: AssetKey, limit: u32) -> Result<Vec<AssetEvent>, StoreError> {
        let mut events = self.all("list the events of an asset", EVENTS, params![asset.0, limit], event)?;
        events.reverse();
        Ok(events)
    }

    /// The events that have led to a run, oldest first.
    pub fn triggering_events(&self, run: RunKey) -> Result<Vec<AssetEvent>, StoreError> {
        self.all("list the events of a run", CONSUMED, [run.0], event)
    }
}

pub(super) const RESOLVED: &str = "SELECT alias_key, asset_key FROM asset_alias_asset ORDER BY alias_key, asset_key";
pub(super) const QUEUES: &str =
    "SELECT dag_id, asset_key, created_at FROM asset_dag_run_queue ORDER BY dag_id, asset_key";
pub(super) const CONSUMERS: &str = "SELECT dag_id, consumed_until FROM asset_consumer ORDER BY dag_id";
pub(super) const FILES: &str =
    "SELECT asset_key, path, inode, size, modified_at FROM asset_file ORDER BY asset_key, path";

pub(super) fn asset(row: &Row<'_>) -> Result<Asset, Fault> {
    let mut fields = Fields::new(row, "asset");
    let key = AssetKey(fields.take()?);
    let name: String = fields.take()?;
    let definition = AssetDefinition {
        name: name.into(),
        uri: fields.take()?,
        group: fields.take()?,
        extra: fields.json()?,
        is_alias: fields.take()?,
        settle: Duration::from_micros(fields.take::<i64>()?.unsigned_abs()),
        catchup: fields.take()?,
    };
    Ok(Asset { key, definition, watched_since: fields.maybe_instant()? })
}

fn event(row: &Row<'_>) -> Result<AssetEvent, Fault> {
    let mut fields = Fields::new(row, "asset_event");
    let key = fields.take()?;
    let name: String = fields.take()?;
    let (uri, group) = (fields.take()?, fields.take()?);
    let (timestamp, extra) = (fields.instant()?, fields.json::<Map<String, Value>>()?);
    let (dag_id, run_id, task_id): (Option<String>, Option<String>, Option<String>) =
        (fields.take()?, fields.take()?, fields.take()?);
    let map_index: Option<i32> = fields.take()?;
    let source = dag_id.zip(run_id).zip(task_id).map(|((dag_id, run_id), task_id)| EventSource {
        dag_id,
        run_id,
        task_id,
        map_index: map_index.unwrap_or(-1),
    });
    Ok(AssetEvent { key, name: name.into(), uri, group, timestamp, extra, source })
}

pub(super) fn snapshot(connection: &Connection) -> Result<AssetSnapshot, Fault> {
    let next = |sql: &str| -> Result<i64, Fault> { Ok(connection.query_row(sql, [], |row| row.get(0))?) };
    Ok(AssetSnapshot {
        assets: collect(connection, ASSETS, [], asset)?,
        resolved: collect(connection, RESOLVED, [], resolved)?,
        queues: collect(connection, QUEUES, [], queued)?,
        consumed_until: collect(connection, CONSUMERS, [], consumer)?,
        files: collect(connection, FILES, [], file)?,
        next_asset_key: next(concat!("SELECT coalesce(max(key), 0) + 1 FROM asset WHERE key < ", key_limit!()))?,
        // A consumer may be behind events that are gone.
        next_event_key: next(concat!(
            "SELECT 1 + max((SELECT coalesce(max(key), 0) FROM asset_event WHERE key < ",
            key_limit!(),
            "), (SELECT coalesce(max(consumed_until), 0) FROM asset_consumer WHERE consumed_until < ",
            key_limit!(),
            "))"
        ))?,
    })
}

/// An alias, and what it has stood for.
pub(super) fn resolved(row: &Row<'_>) -> Result<(AssetKey, AssetKey), Fault> {
    let mut fields = Fields::new(row, "asset_alias_asset");
    Ok((AssetKey(fields.take()?), AssetKey(fields.take()?)))
}

pub(super) fn queued(row: &Row<'_>) -> Result<(DagId, AssetKey, Timestamp), Fault> {
    let mut fields = Fields::new(row, "asset_dag_run_queue");
    Ok((DagId::from(fields.take::<String>()?), AssetKey(fields.take()?), fields.instant()?))
}

pub(super) fn consumer(row: &Row<'_>) -> Result<(DagId, i64), Fault> {
    let mut fields = Fields::new(row, "asset_consumer");
    Ok((DagId::from(fields.take::<String>()?), fields.take()?))
}

pub(super) fn file(row: &Row<'_>) -> Result<(AssetKey, PathBuf, Stamp), Fault> {
    let mut fields = Fields::new(row, "asset_file");
    let (key, path): (i64, Vec<u8>) = (fields.take()?, fields.take()?);
    let (inode, size): (i64, i64) = (fields.take()?, fields.take()?);
    let stamp = Stamp { inode: inode.cast_unsigned(), size: size.cast_unsigned(), modified_at: fields.take()? };
    Ok((AssetKey(key), PathBuf::from(OsStr::from_bytes(&path)), stamp))
}

pub(super) fn put(connection: &Connection, changes: &AssetChanges) -> Result<(), Fault> {
    for asset in &changes.assets {
        put_asset(connection, asset)?;
    }
    for (dag_id, references) in &changes.references {
        put_references(connection, dag_id, references)?;
    }
    for (alias, asset) in &changes.resolved {
        connection
            .prepare_cached("INSERT OR IGNORE INTO asset_alias_asset (alias_key, asset_key) VALUES (?1, ?2)")?
            .execute([alias.0, asset.0])?;
    }
    for event in &changes.events {
        put_event(connection, event)?;
    }
    for (dag_id, queue) in &changes.queues {
        connection.prepare_cached("DELETE FROM asset_dag_run_queue WHERE dag_id = ?1")?.execute([dag_id.as_str()])?;
        for (asset, at) in queue {
            connection
                .prepare_cached("INSERT INTO asset_dag_run_queue (dag_id, asset_key, created_at) VALUES (?1, ?2, ?3)")?
                .execute(params![dag_id.as_str(), asset.0, micros(*at)])?;
        }
    }
    for (dag_id, until) in &changes.consumed_until {
        put_consumer(connection, dag_id, *until)?;
    }
    for consumption in &changes.consumptions {
        put_consumption(connection, consumption)?;
    }
    for asset in &changes.forgotten_files {
        connection.prepare_cached("DELETE FROM asset_file WHERE asset_key = ?1")?.execute([asset.0])?;
    }
    for (asset, path, stamp) in &changes.files {
        put_file(connection, *asset, path, *stamp)?;
    }
    Ok(())
}

fn put_asset(connection: &Connection, asset: &Asset) -> Result<(), Fault> {
    let definition = &asset.definition;
    connection
        .prepare_cached(
            "INSERT INTO asset (key, name, uri, \"group\", extra, is_alias, settle, catchup, watched_since) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (key) DO UPDATE SET name = ?2, uri = ?3, \
             \"group\" = ?4, extra = ?5, is_alias = ?6, settle = ?7, catchup = ?8, watched_since = ?9",
        )?
        .execute(params![
            asset.key.0,
            definition.name.as_str(),
            definition.uri,
            definition.group,
            json(&definition.extra),
            definition.is_alias,
            duration(definition.settle),
            definition.catchup,
            maybe_micros(asset.watched_since),
        ])?;
    Ok(())
}

fn put_references(connection: &Connection, dag_id: &DagId, references: &[AssetReference]) -> Result<(), Fault> {
    connection.prepare_cached("DELETE FROM asset_reference WHERE dag_id = ?1")?.execute([dag_id.as_str()])?;
    for reference in references {
        connection
            .prepare_cached("INSERT INTO asset_reference (dag_id, role, task_id, asset_key) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![dag_id.as_str(), reference.role, reference.task_id, reference.asset.0])?;
    }
    Ok(())
}

fn put_event(connection: &Connection, event: &EventWrite) -> Result<(), Fault> {
    let source = event.source.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO asset_event (key, asset_key, timestamp, extra, source_dag_id, source_run_id, source_task_id, \
             source_map_index) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            event.key,
            event.asset.0,
            micros(event.timestamp),
            json(&event.extra),
            source.map(|source| &source.dag_id),
            source.map(|source| &source.run_id),
            source.map(|source| &source.task_id),
            source.map(|source| source.map_index),
        ])?;
    if let Some(alias) = event.alias {
        connection
            .prepare_cached("INSERT INTO asset_alias_event (alias_key, event_key) VALUES (?1, ?2)")?
            .execute([alias.0, event.key])?;
    }
    Ok(())
}

fn put_consumer(connection: &Connection, dag_id: &DagId, until: Option<i64>) -> Result<(), Fault> {
    match until {
        Some(until) => connection
            .prepare_cached(
                "INSERT INTO asset_consumer (dag_id, consumed_until) VALUES (?1, ?2) \
                 ON CONFLICT (dag_id) DO UPDATE SET consumed_until = ?2",
            )?
            .execute(params![dag_id.as_str(), until])?,
        None => {
            connection.prepare_cached("DELETE FROM asset_consumer WHERE dag_id = ?1")?.execute([dag_id.as_str()])?
        }
    };
    Ok(())
}

fn put_consumption(connection: &Connection, consumption: &Consumption) -> Result<(), Fault> {
    let Consumption { run, after, until, assets, aliases } = consumption;
    let of_assets = "INSERT OR IGNORE INTO dagrun_asset_event (run_key, event_key) \
                     SELECT ?1, key FROM asset_event WHERE asset_key = ?2 AND key > ?3 AND key <= ?4";
    let of_aliases = "INSERT OR IGNORE INTO dagrun_asset_event (run_key, event_key) \
                      SELECT ?1, event_key FROM asset_alias_event WHERE alias_key = ?2 AND event_key > ?3 AND event_key <= ?4";
    for (sql, keys) in [(of_assets, assets), (of_aliases, aliases)] {
        for key in keys {
            connection.prepare_cached(sql)?.execute([run.0, key.0, *after, *until])?;
        }
    }
    Ok(())
}

fn put_file(connection: &Connection, asset: AssetKey, path: &Path, stamp: Option<Stamp>) -> Result<(), Fault> {
    let path = path.as_os_str().as_bytes();
    match stamp {
        Some(stamp) => connection
            .prepare_cached(
                "INSERT INTO asset_file (asset_key, path, inode, size, modified_at) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (asset_key, path) DO UPDATE SET inode = ?3, size = ?4, modified_at = ?5",
            )?
            .execute(params![asset.0, path, stamp.inode.cast_signed(), stamp.size.cast_signed(), stamp.modified_at])?,
        None => connection
            .prepare_cached("DELETE FROM asset_file WHERE asset_key = ?1 AND path = ?2")?
            .execute(params![asset.0, path])?,
    };
    Ok(())
}
