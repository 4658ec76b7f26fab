//! A try's log as it is read: the file, or what it became when it was compressed.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::executor::paths;

/// A log that is read from its beginning.
pub enum Opened {
    /// It may still be written to.
    Plain(File),
    Compressed(Box<dyn Read + Send>),
}

/// # Errors
/// There is neither of the two files, or it cannot be opened.
pub fn open(log: &Path) -> io::Result<Opened> {
    match File::open(log) {
        Ok(file) => Ok(Opened::Plain(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let compressed = File::open(paths::compressed(log)).map_err(|_| error)?;
            Ok(Opened::Compressed(Box::new(MultiGzDecoder::new(compressed))))
        }
        Err(error) => Err(error),
    }
}
