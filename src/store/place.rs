//! Whether the database's file still stands where it was opened.
//!
//! A file that is deleted lives on for those who have it open, and nobody else: what is committed into it is lost with the process.
//! So before each commit the path is looked at.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
