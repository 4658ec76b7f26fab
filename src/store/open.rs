//! Opening the file: what it is, which version it has, and how an older one becomes the newest.
//!
//! A file that is newer, damaged or another program's is looked at through a connection that cannot write, and left as it is.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ffi::SQLITE_READONLY_ROLLBACK;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::config::Synchronous;
use crate::lack::Lack;
use crate::scheduler::StoreError;
use crate::store::backup;
use crate::store::fault::help_for;
use crate::store::place::target;

/// What a file of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A home's, or a backup of one.
    Database,
    /// What `db clean` has archived.
    Archive,
}

impl Kind {
    /// "mflw" or "mfla": tells our files from those of other programs, and from each other.
    const fn application_id(self) -> i32 {
        match self {
            Self::Database => 0x6d66_6c77,
            Self::Archive => 0x6d66_6c61,
        }
    }

    fn of(application_id: i64) -> Option<Self> {
        [Self::Database, Self::Archive].into_iter().find(|kind| i64::from(kind.application_id()) == application_id)
    }
}

/// The version that this minflow writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// How long opening waits for another program's lock.
const OPEN_PATIENCE: Duration = Duration::from_secs(1);

/// How long a reader waits for a lock: only while another program recovers or vacuums the file.
const READ_PATIENCE: Duration = Duration::from_secs(1);

/// Statements that each connection keeps prepared: more than there are.
const PREPARED: usize = 64;

/// Step `n` (from 0) makes version `n + 1` of version `n`. A step is never changed once it is released; a new file takes all.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
    include_str!("schema_9.sql"),
];

/// Why a database cannot be opened. Nothing in it was changed.
#[derive(Debug)]
pub enum OpenError {
    /// There is no such file, and the caller only reads.
    Absent(PathBuf),
    /// Its folder is not there.
    FolderMissing(PathBuf),
    /// The operating system refuses to create or open it.
    Inaccessible {
        path: PathBuf,
        source: io::Error,
    },
    /// The bytes are not SQLite's.
    NotADatabase(PathBuf),
    /// A database of another program.
    Foreign(PathBuf),
    /// An archive where a database is wanted.
    Archive(PathBuf),
    /// A database of minflow's, or a backup of one, where an archive is wanted.
    NoArchive(PathBuf),
    /// Written by a newer minflow.
    Newer {
        path: PathBuf,
        found: u32,
    },
    /// Written by an older minflow, and the caller only reads.
    Older {
        path: PathBuf,
        found: u32,
    },
    Damaged {
        path: PathBuf,
        detail: String,
    },
    /// Another program holds it.
    Locked(PathBuf),
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
    /// The copy could not be made without which an older one is not migrated.
    NoBackup(StoreError),
}

impl OpenError {
    /// What the user can do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Absent(_) => {
                "start minflow there once with `minflow run`, or name the right home with --home".to_owned()
            }
            Self::FolderMissing(path) => {
                let folder = path.parent().unwrap_or(Path::new("."));
                format!("create the folder `{}`, or correct `database.path` in airflow.toml", folder.display())
            }
            Self::Inaccessible { path, source } if let Some(lack) = lack(path, source) => {
                format!("at `{}`: {lack}", path.display())
            }
            Self::Inaccessible { path, .. } => {
                format!("make `{}` and its folder readable and writable for this user", path.display())
            }
            Self::NotADatabase(_) | Self::Foreign(_) => {
                "move that file away, or name another one (the database's is `database.path` in airflow.toml); it was not changed"
                    .to_owned()
            }
            Self::Archive(path) => format!(
                "`minflow db export --output-path DIR --archive {}` reads it; name a database or a backup here",
                path.display()
            ),
            Self::NoArchive(_) => {
                "name another file with --archive: a new one, or one that `minflow db clean` has made; that one was not changed".to_owned()
            }
            Self::Newer { .. } => {
                "run the newer minflow that wrote it, or restore a backup made before; the file was not changed"
                    .to_owned()
            }
            Self::Older { .. } => "run `minflow db migrate`, or start minflow once with `minflow run`".to_owned(),
            Self::Damaged { path, .. } => format!(
                "keep a copy of `{0}`, then restore a backup, or save what can be saved with `sqlite3 {0} .recover`; the \
                 file was not changed",
                path.display()
            ),
            Self::Locked(path) => {
                format!("`fuser {}` names the program that holds it: end it, or let it finish", path.display())
            }
            Self::Sqlite { path, source } => help_for(source, path),
            Self::NoBackup(error) => error.help.clone(),
        }
    }

    fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotADatabase(path),
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, detail: source.to_string() },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked(path),
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::Inaccessible { path, source: io::Error::other(source.to_string()) }
            }
            _ => Self::Sqlite { path, source },
        }
    }
}

/// SQLite does not tell what the host has refused.
fn lack(path: &Path, source: &io::Error) -> Option<Lack> {
    match source.raw_os_error() {
        Some(_) => Lack::of(source),
        None => path.parent().and_then(Lack::now),
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(path) => write!(f, "open `{}`: there is no such database", path.display()),
            Self::FolderMissing(path) => write!(f, "open `{}`: its folder does not exist", path.display()),
            Self::Inaccessible { path, source } => write!(f, "open `{}`: {source}", path.display()),
            Self::NotADatabase(path) => write!(f, "open `{}`: it is not a database", path.display()),
            Self::Foreign(path) => write!(f, "open `{}`: it is the database of another program", path.display()),
            Self::Archive(path) => {
                write!(
                    f,
                    "open `{}`: it is an archive of `minflow db clean`, and no database to go on with",
                    path.display()
                )
            }
            Self::NoArchive(path) => {
                write!(
                    f,
                    "open the archive `{}`: it is a database of minflow's or a backup of one, and no archive",
                    path.display()
                )
            }
            Self::Newer { path, found } => write!(
                f,
                "open `{}`: it has version {found}, and this minflow knows versions up to {SCHEMA_VERSION}",
                path.display()
            ),
            Self::Older { path, found } => write!(
                f,
                "open `{}`: it has version {found}, and this minflow reads version {SCHEMA_VERSION}",
                path.display()
            ),
            Self::Damaged { path, detail } => write!(f, "open `{}`: it is damaged: {detail}", path.display()),
            Self::Locked(path) => write!(f, "open `{}`: another program has locked it", path.display()),
            Self::Sqlite { path, source } => write!(f, "open `{}`: {source}", path.display()),
            Self::NoBackup(error) => {
                write!(f, "make a backup before the database is brought to version {SCHEMA_VERSION}: failed to {error}")
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Inaccessible { source, .. } => Some(source),
            Self::Sqlite { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        Self { message: error.to_string(), help: error.help() }
    }
}

/// The connection that writes. Creates the file (mode 0600) and brings it to the newest version.
pub(super) fn writer(path: &Path, synchronous: Synchronous, kind: Kind) -> Result<Connection, OpenError> {
    if exists(path)? {
        let (_, found) = look(path)?.expect(kind, path)?;
        if (1..SCHEMA_VERSION).contains(&found) {
            let backup = backup::before_migration(path, found).map_err(OpenError::NoBackup)?;
            log::info!(
                "the database has version {found}; before it becomes version {SCHEMA_VERSION} it is kept as `{}`",
                backup.display()
            );
        }
    } else {
        create(&target(path))?;
    }
    let fail = |source| OpenError::of(path, source);
    let mut connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(fail)?;
    connection.busy_timeout(OPEN_PATIENCE).map_err(fail)?;
    settle(&mut connection, synchronous, MIGRATIONS, kind).map_err(fail)?;
    Ok(connection)
}

/// As [`look`], of a database that is to be there; with its version.
pub(super) fn present(path: &Path) -> Result<(Connection, u32), OpenError> {
    any(path)?.expect(Kind::Database, path)
}

/// As [`look`], of a database or an archive that is to be there.
pub(super) fn any(path: &Path) -> Result<Looked, OpenError> {
    if exists(path)? { look(path) } else { Err(OpenError::Absent(path.to_owned())) }
}

/// A connection that only reads a database of the newest version.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    newest(present(path)?, path)
}

/// The same of an archive, or of a database; with what it is.
pub(super) fn reader_of_any(path: &Path) -> Result<(Connection, Kind), OpenError> {
    let Looked { connection, version, kind } = any(path)?;
    Ok((newest((connection, version), path)?, kind))
}

fn newest((connection, found): (Connection, u32), path: &Path) -> Result<Connection, OpenError> {
    match found {
        // Its first minflow makes it just now.
        0 => Err(OpenError::Absent(path.to_owned())),
        _ if found < SCHEMA_VERSION => Err(OpenError::Older { path: path.to_owned(), found }),
        _ => Ok(connection),
    }
}

/// Pages that the writer keeps, in KiB (negative, as SQLite wants it): what a turn touches. The rest is in the kernel's cache,
/// and 2 MB, SQLite's default, would be a third of an idle minflow's memory.
const CACHE: &str = "-512";

/// A second connection beside the writer's, for checkpoints.
pub(super) fn beside(path: &Path, synchronous: Synchronous) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    pragma(&connection, "synchronous", level(synchronous))?;
    pragma(&connection, "wal_autocheckpoint", "0")?;
    Ok(connection)
}

fn exists(path: &Path) -> Result<bool, OpenError> {
    // Never opened by hand: to close a descriptor of the file would drop the locks that SQLite holds on it in this process.
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            Err(OpenError::Inaccessible { path: path.to_owned(), source: io::Error::other("it is a folder") })
        }
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(OpenError::Inaccessible { path: path.to_owned(), source }),
    }
}

fn create(path: &Path) -> Result<(), OpenError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::FolderMissing(path.to_owned())),
        Err(source) => Err(OpenError::Inaccessible { path: path.to_owned(), source }),
    }
}

/// A file of ours, opened without the right to write.
pub(super) struct Looked {
    pub(super) connection: Connection,
    /// Of this minflow or an earlier one; 0 for a file without any table.
    pub(super) version: u32,
    /// A file without any table may become either.
    kind: Kind,
}

impl Looked {
    fn expect(self, kind: Kind, path: &Path) -> Result<(Connection, u32), OpenError> {
        if self.version == 0 || self.kind == kind {
            return Ok((self.connection, self.version));
        }
        Err(match kind {
            Kind::Database => OpenError::Archive(path.to_owned()),
            Kind::Archive => OpenError::NoArchive(path.to_owned()),
        })
    }
}

/// Opens without the right to write.
///
/// # Errors
/// What must not be touched.
fn look(path: &Path) -> Result<Looked, OpenError> {
    let fail = |source| OpenError::of(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.busy_timeout(READ_PATIENCE).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(fail);
    undo_half(&connection, path).map_err(fail)?;
    let version = ask("PRAGMA user_version")?;
    let application = ask("PRAGMA application_id")?;
    let tables = ask("SELECT count(*) FROM sqlite_schema")?;
    let Some(kind) = Kind::of(application) else {
        let is_blank = application == 0 && version == 0 && tables == 0;
        let blank = Looked { connection, version: 0, kind: Kind::Database };
        return if is_blank { Ok(blank) } else { Err(OpenError::Foreign(path.to_owned())) };
    };
    let found = u32::try_from(version).unwrap_or(u32::MAX);
    if found > SCHEMA_VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    is_whole(&connection, path)?;
    Ok(Looked { connection, version: found, kind })
}

/// Takes back what a process has left by half that ended before the file had its write-ahead log: who only reads is refused until
/// somebody who may write has done so. That concerns a file which is new, or comes from a backup.
fn undo_half(reading: &Connection, path: &Path) -> rusqlite::Result<()> {
    let look = |connection: &Connection| connection.query_row("PRAGMA user_version", [], |_| Ok(()));
    match look(reading) {
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.extended_code == SQLITE_READONLY_ROLLBACK => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let writing = Connection::open_with_flags(path, flags)?;
            writing.busy_timeout(OPEN_PATIENCE)?;
            look(&writing)
        }
        seen => seen,
    }
}

/// The facts that show a cut-off file at once: its length, and the first page of each table. `db check` looks at all pages.
fn is_whole(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let damaged = |detail: String| OpenError::Damaged { path: path.to_owned(), detail };
    let facts = || -> rusqlite::Result<Vec<String>> {
        let mut roots = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
        let tables = roots.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        for table in &tables {
            connection.prepare(&format!("SELECT 1 FROM \"{table}\" LIMIT 1"))?.exists([])?;
        }
        Ok(tables)
    };
    let tables = facts().map_err(|source| OpenError::of(path, source))?;
    match TABLES.iter().find(|&table| !tables.iter().any(|found| found == table)) {
        Some(missing) => Err(damaged(format!("the table {missing} is missing"))),
        None => Ok(()),
    }
}

/// Every table of version 1.
const TABLES: &[&str] = &[
    "dag",
    "dag_run",
    "dag_version",
    "import_error",
    "log",
    "pool",
    "state_count",
    "task_instance",
    "task_instance_history",
    "xcom",
];

/// Files give pages back that hold nothing, when they are told to.
pub(super) const INCREMENTAL: &str = "INCREMENTAL";

fn level(synchronous: Synchronous) -> &'static str {
    match synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    }
}

pub(super) fn pragma(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, name, value, |_| Ok(())).or_else(|error| match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    })
}

pub(super) fn settle(
    connection: &mut Connection,
    synchronous: Synchronous,
    steps: &[&str],
    kind: Kind,
) -> rusqlite::Result<()> {
    // Of a new file alone, before its first page is written; `db vacuum` brings it to older ones.
    pragma(connection, "auto_vacuum", INCREMENTAL)?;
    pragma(connection, "journal_mode", "WAL")?;
    pragma(connection, "synchronous", level(synchronous))?;
    pragma(connection, "wal_autocheckpoint", "0")?;
    pragma(connection, "foreign_keys", "OFF")?;
    pragma(connection, "cache_size", CACHE)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    // Taken even if there is nothing to migrate: it tells at once that the file is locked, or cannot be written.
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    migrate(&transaction, steps, kind)?;
    transaction.commit()
}

fn migrate(transaction: &Transaction<'_>, steps: &[&str], kind: Kind) -> rusqlite::Result<()> {
    let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found as usize >= steps.len() {
        return Ok(());
    }
    for step in steps.iter().skip(found as usize) {
        transaction.execute_batch(step)?;
    }
    pragma(transaction, "application_id", &kind.application_id().to_string())?;
    pragma(transaction, "user_version", &steps.len().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_database_takes_the_missing_steps_alone_and_a_failing_step_leaves_it_as_it_was() {
        let mut connection = Connection::open_in_memory().unwrap();
        let settle = |connection: &mut Connection, steps: &[&str]| {
            super::settle(connection, Synchronous::Full, steps, Kind::Database)
        };
        let version = |connection: &Connection| -> i64 {
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
        };
        settle(&mut connection, &["CREATE TABLE a (x)"]).unwrap();
        assert_eq!(version(&connection), 1);
        let broken = ["-", "CREATE TABLE b (x)", "CREATE TABLE a (x)"];
        settle(&mut connection, &broken).unwrap_err();
        assert_eq!(version(&connection), 1);
        settle(&mut connection, &["-", "CREATE TABLE b (x)", "INSERT INTO b VALUES (1)"]).unwrap();
        assert_eq!(version(&connection), 3);
    }
}
