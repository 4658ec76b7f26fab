//! XComs: those of a task with their places, and values that are too large for their rows.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::params;
use serde_json::Value;

use crate::model::RunKey;
use crate::scheduler::StoreError;
use crate::store::fault::Fault;
use crate::store::read::Reader;
use crate::store::row::Fields;

/// An XCom as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredXcom {
    /// -1 unless the task is mapped.
    pub map_index: i32,
    pub key: String,
    /// None: its file has gone.
    pub value: Option<Value>,
    pub pushed_at: Timestamp,
    /// Of a value that lies in a file.
    pub file: Option<PathBuf>,
}

pub(super) const XCOMS_OF_TASK: &str = "SELECT i.key, i.map_index, x.key, x.value, x.file, x.pushed_at FROM task_instance i \
     JOIN xcom x ON x.instance_key = i.key WHERE i.run_key = ?1 AND i.task_id = ?2 ORDER BY i.map_index, x.key";

impl Reader {
    /// All that a task has pushed in a run, by map index and key.
    ///
    /// # Errors
    /// The database, or a value's file, cannot be read.
    pub fn xcoms_of_task(&self, run: RunKey, task_id: &str) -> Result<Vec<StoredXcom>, StoreError> {
        self.list("list the XComs", XCOMS_OF_TASK, params![run.0, task_id], |row| {
            let mut fields = Fields::new(row, "xcom");
            fields.take::<i64>()?;
            let (map_index, key) = (fields.take()?, fields.take()?);
            let (value, file) = self.xcom_value(&mut fields)?;
            Ok(StoredXcom { map_index, key, value, pushed_at: fields.instant()?, file })
        })
    }

    /// Of the columns `value` and `file`; no value if its file has gone.
    pub(super) fn xcom_value(&self, fields: &mut Fields<'_>) -> Result<(Option<Value>, Option<PathBuf>), Fault> {
        let value: Value = fields.json()?;
        let Some(name) = fields.take::<Option<String>>()? else { return Ok((Some(value), None)) };
        let file = self.folder().join(name);
        let found = match fs::read(&file) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| unreadable(&file, error.into()))?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(&file, error)),
        };
        Ok((found, Some(file)))
    }
}

fn unreadable(file: &Path, error: io::Error) -> Fault {
    Fault::File { path: file.to_owned(), error }
}

/// A path as a row has it: relative to the folder of the database where it lies below, so that a home can be moved.
pub(super) fn stored_path(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned()
}
