//! Whether the database's files still stand where they were opened.
//!
//! A file that is deleted lives on for those who have it open, and nobody else: what is committed into it is lost with the process.
//! That holds of the write-ahead log as well, which alone has what was committed last. So before each commit the paths are looked at.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::store::backup::beside;

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

/// The file at a path; None: there is none.
///
/// # Errors
/// The path cannot be looked at.
pub(super) fn identity(path: &Path) -> io::Result<Option<FileIdentity>> {
    match path.metadata() {
        Ok(found) => Ok(Some(FileIdentity { device: found.dev(), inode: found.ino() })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path that a link leads to, also where nothing is there; of all else the path itself. The log lies beside the file, not beside a link.
pub(super) fn target(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    // As many as the kernel follows.
    for _ in 0..40 {
        let Ok(next) = target.read_link() else { break };
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    target
}

/// The files of a database that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) main: Option<FileIdentity>,
    log: Option<FileIdentity>,
    index: Option<FileIdentity>,
}

impl Files {
    /// # Errors
    /// One of the paths cannot be looked at.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let file = target(path);
        let [log, index] = ["-wal", "-shm"].map(|tail| identity(&beside(&file, tail)));
        Ok(Self { main: identity(path)?, log: log?, index: index? })
    }

    /// Whether one of them is not there any more, going by what is `found` there now.
    pub(super) fn are_gone(&self, found: &Self) -> bool {
        let is_gone = |had: Option<FileIdentity>, has| had.is_some() && had != has;
        is_gone(self.main, found.main) || is_gone(self.log, found.log) || is_gone(self.index, found.index)
    }
}
