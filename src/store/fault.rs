//! What can go wrong inside the store, and how the user is told: every fault becomes a message and what to do next.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::lack::Lack;
use crate::scheduler::StoreError;

/// A statement that failed, or a row that no minflow wrote.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    /// `row` is the table and the row, e.g. `dag_run 17`.
    Value {
        row: String,
        column: String,
        what: String,
    },
    /// A file that a row names cannot be read.
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    /// Another file stands where the database was.
    Replaced,
    /// The database cannot be written anew.
    Gone(StoreError),
    /// A row that the scheduler changes is not there.
    Missing {
        table: &'static str,
        key: i64,
    },
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
        let column = match &error {
            InvalidColumnType(_, name, _) => name.clone(),
            FromSqlConversionFailure(at, ..) | IntegralValueOutOfRange(at, _) | Utf8Error(at, _) => {
                (at + 1).to_string()
            }
            _ => return Self::Sqlite(error),
        };
        Self::Value { row: "a row".to_owned(), column, what: error.to_string() }
    }
}

/// So many rows are told of; by then it is known that something is wrong.
const TOLD: usize = 100;

/// Rows that lists leave out, since they cannot be read: each is told of once.
pub(super) struct LeftOut {
    tell: fn(&str),
    told: RefCell<BTreeSet<String>>,
}

impl LeftOut {
    pub(super) fn telling(tell: fn(&str)) -> Self {
        Self { tell, told: RefCell::default() }
    }

    pub(super) fn logged() -> Self {
        Self::telling(|row| log::error!("{row}"))
    }

    pub(super) fn note(&self, row: &str, column: &str, what: &str) {
        let mut told = self.told.borrow_mut();
        let sentence = format!(
            "{row} cannot be read and is left out: column {column}: {what} (`minflow db check` names all such rows)"
        );
        if told.len() < TOLD && told.insert(sentence.clone()) {
            (self.tell)(&sentence);
        }
    }
}

impl Fault {
    /// `action` is what was tried, e.g. "commit a turn".
    pub(super) fn into_store_error(self, action: &str, path: &Path) -> StoreError {
        match self {
            Self::Sqlite(error) => StoreError { message: format!("{action}: {error}"), help: help_for(&error, path) },
            Self::Value { row, column, what } => StoreError {
                message: format!("{action}: {row}, column {column}: {what}"),
                help: format!(
                    "something other than minflow changed `{}`: correct that value with sqlite3, or restore a backup",
                    path.display()
                ),
            },
            Self::File { path: file, error } => StoreError {
                message: format!("{action}: `{}`: {error}", file.display()),
                help: "check the disk and the file's modes; to have it written anew, run its task again".to_owned(),
            },
            Self::Replaced => StoreError {
                message: format!("{action}: another file has taken the place of `{}`", path.display()),
                help: "move it away, and minflow puts its own there again, with all that happened; to use that file instead, stop minflow, \
                       then put it there"
                    .to_owned(),
            },
            Self::Gone(error) => StoreError { message: format!("{action}: {}", error.message), help: error.help },
            Self::Missing { table, key } => StoreError {
                message: format!("{action}: there is no row {key} in {table}"),
                help: format!(
                    "something other than minflow changed `{}`: restart minflow, so that it reads what is there now",
                    path.display()
                ),
            },
        }
    }
}

/// What to do about an error of SQLite. Answers for every code that a user can meet.
pub(super) fn help_for(error: &rusqlite::Error, path: &Path) -> String {
    // SQLite does not tell what the host has refused.
    let lack = path.parent().and_then(Lack::now);
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("another program is writing to `{path}`: `fuser {path}` names it; end it, or let it finish")
        }
        Some(ErrorCode::DiskFull) => {
            format!("the file system of `{path}` is full: free some space there")
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if let Some(lack) = lack => {
            format!("at `{path}`: {lack}")
        }
        Some(ErrorCode::SystemIoFailure) => format!(
            "the file system of `{path}` reports an error: look for free space, quota and file size limit (`df`, `quota`, \
             `ulimit -f`), and for the disk in `dmesg`"
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => format!(
            "stop minflow, keep a copy of `{path}`, and run `minflow db check`; restore a backup, or move the file away to \
             begin with an empty history"
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            format!("make `{path}` and its folder writable for the user who runs minflow")
        }
        Some(ErrorCode::CannotOpen) => {
            format!("see whether the folder of `{path}` is still there, and whether this user may read and write in it")
        }
        Some(ErrorCode::OutOfMemory) => "free some memory on this host".to_owned(),
        _ => format!(
            "run `minflow db check` on `{path}`; if it finds nothing, this is a fault of minflow: please report it"
        ),
    }
}
