//! One try's log: a head line and a tail line by minflow, and between them what the task wrote.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::operators::Fault;
use crate::supervisor::protocol::TAIL_BYTES;

/// An open log.
#[derive(Debug)]
pub struct TryLog {
    file: File,
    path: PathBuf,
    /// Where the task's own output begins.
    output_from: u64,
    /// Whether the output was seen to the end, and left its last line open.
    is_open_line: Cell<Option<bool>>,
}

impl TryLog {
    /// Opens it, mode 0600, and writes the head line. A log that exists is continued.
    ///
    /// # Errors
    /// The disk or the folder does not take it.
    pub fn open(path: PathBuf, head: &str, now: Timestamp) -> Result<Self, Fault> {
        let file = open(&path).map_err(|error| Fault::of_file("open the log", &path, &error))?;
        let written = (&file).write_all(line(head, now).as_bytes()).and_then(|()| file.metadata());
        match written {
            Ok(metadata) => Ok(Self { file, path, output_from: metadata.len(), is_open_line: Cell::new(None) }),
            Err(error) => Err(Fault::of_file("write the log", &path, &error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last [`TAIL_BYTES`] of the task's output.
    pub fn tail(&self) -> Vec<u8> {
        let mut short = [0; 1024];
        if let Ok(count @ 0..1024) = self.file.read_at(&mut short, self.output_from) {
            // The output of most tasks: all of it, with one call.
            self.is_open_line.set(Some(count > 0 && short[count - 1] != b'\n'));
            return short[..count].to_vec();
        }
        let size = self.file.metadata().map_or(0, |metadata| metadata.len());
        let from = size.saturating_sub(TAIL_BYTES as u64).max(self.output_from);
        let mut bytes = vec![0; size.saturating_sub(from) as usize];
        match self.file.read_exact_at(&mut bytes, from) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// Writes lines that somebody has said for the task, each with its end, unless the log has `most` bytes already.
    pub fn write(&self, lines: &str, most: u64) {
        if self.file.metadata().is_ok_and(|metadata| metadata.len() < most) {
            // A disk that is full loses it.
            let _ = (&self.file).write_all(lines.as_bytes());
        }
        self.is_open_line.set(None);
    }

    /// Writes a line of minflow's before the tail line.
    pub fn note(&self, text: &str, now: Timestamp) {
        self.close(text, now);
        self.is_open_line.set(Some(false));
    }

    /// Writes the tail line, on a line of its own. A disk that is full loses it: the database has the end.
    pub fn close(&self, tail: &str, now: Timestamp) {
        let text = match self.is_open_line.get() {
            Some(true) => format!("\n{}", line(tail, now)),
            Some(false) => line(tail, now),
            None => own_line(&self.file, tail, now),
        };
        let _ = (&self.file).write_all(text.as_bytes());
    }
}

/// Writes a tail line to the log of a try that somebody else began. Without a log there is nothing to close.
pub fn close_left(path: &Path, tail: &str, now: Timestamp) {
    if let Ok(mut file) = File::options().read(true).append(true).open(path) {
        let _ = file.write_all(own_line(&file, tail, now).as_bytes());
    }
}

fn own_line(file: &File, text: &str, now: Timestamp) -> String {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut last = [b'\n'];
    let _ = file.read_at(&mut last, size.saturating_sub(1));
    let gap = if last == *b"\n" { "" } else { "\n" };
    format!("{gap}{}", line(text, now))
}

fn line(text: &str, now: Timestamp) -> String {
    format!("[{now:.6}] minflow: {text}\n")
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).read(true).append(true).mode(0o600);
    match options.open(path) {
        // Tried first: of a task's later tries, and of most of a run's tasks, the folders exist.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            options.open(path)
        }
        opened => opened,
    }
}

/// Makes a folder and what is missing above it; most often only the last one is.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::create_dir_all(folder),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_log_is_private_and_its_tail_line_stands_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/attempt=1.log");
        let log = TryLog::open(path.clone(), "begins", Timestamp::UNIX_EPOCH).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"no newline").unwrap();
        assert_eq!(log.tail(), b"no newline");
        log.close("ended", Timestamp::UNIX_EPOCH);
        let text = fs::read_to_string(&path).unwrap();
        let time = "[1970-01-01T00:00:00.000000Z] minflow:";
        assert_eq!(text, format!("{time} begins\nno newline\n{time} ended\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
