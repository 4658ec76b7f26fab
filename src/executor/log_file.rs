//! A try's log as it is read: the file, or what it became when it was compressed.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::executor::paths;

/// Reads a log from its beginning, decompressed where it must be. Of one that is being written, more can be read later.
///
/// # Errors
/// There is neither of the two files, or it cannot be opened.
pub fn open(log: &Path) -> io::Result<Box<dyn Read + Send>> {
    match File::open(log) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let compressed = File::open(paths::compressed(log)).map_err(|_| error)?;
            Ok(Box::new(MultiGzDecoder::new(compressed)))
        }
        Err(error) => Err(error),
    }
}
