//! One try's log: a head line and a tail line by minflow, and between them what the task wrote.

use std::cell::{Cell, OnceCell};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::operators::Fault;
use crate::supervisor::protocol::TAIL_BYTES;

/// What stands behind the instant in a line of minflow's.
pub const OWN: &str = "Z] minflow: ";

/// The log of a try that has begun.
#[derive(Debug)]
pub struct TryLog {
    /// Empty until it is needed, which is at the end of a try that was taken over. None: it cannot be opened.
    file: OnceCell<Option<File>>,
    path: PathBuf,
    /// Where the task's own output begins.
    output_from: Cell<u64>,
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
            Ok(metadata) => {
                let output_from = Cell::new(metadata.len());
                Ok(Self { file: OnceCell::from(Some(file)), path, output_from, is_open_line: Cell::new(None) })
            }
            Err(error) => Err(Fault::of_file("write the log", &path, &error)),
        }
    }

    /// The log of a try that an earlier minflow began; `output_from`: see [`Self::output_from`].
    pub fn resume(path: PathBuf, output_from: u64) -> Self {
        Self { file: OnceCell::new(), path, output_from: Cell::new(output_from), is_open_line: Cell::new(None) }
    }

    /// None: it is gone, or the host lacks something; what is written to it is lost, and the database has the end.
    fn file(&self) -> Option<&File> {
        let open = || {
            let refused = |error| log::warn!("the log `{}` cannot be opened: {error}", self.path.display());
            open(&self.path).map_err(refused).ok()
        };
        self.file.get_or_init(open).as_ref()
    }

    /// Where the task's own output begins, in bytes.
    pub fn output_from(&self) -> u64 {
        self.output_from.get()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What follows the head line is minflow's, too.
    pub fn skip(&self, bytes: u64) {
        self.output_from.set(self.output_from.get() + bytes);
    }

    /// The last [`TAIL_BYTES`] of the task's output.
    pub fn tail(&self) -> Vec<u8> {
        let Some(file) = self.file() else { return Vec::new() };
        let mut short = [0; 1024];
        if let Ok(count @ 0..1024) = file.read_at(&mut short, self.output_from.get()) {
            // The output of most tasks: all of it, with one call.
            self.is_open_line.set(Some(count > 0 && short[count - 1] != b'\n'));
            return short[..count].to_vec();
        }
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let from = size.saturating_sub(TAIL_BYTES as u64).max(self.output_from.get());
        let mut bytes = vec![0; size.saturating_sub(from) as usize];
        match file.read_exact_at(&mut bytes, from) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// Takes away what an earlier minflow has written behind the task's output, which ends at `output_to`: it had concluded the try, and
    /// was gone before that was recorded.
    pub fn take_back(&self, output_to: u64) {
        let Some(file) = self.file() else { return };
        let mut behind = [0; 64];
        let count = file.read_at(&mut behind, output_to).unwrap_or_default();
        let behind = behind[..count].strip_prefix(b"\n").unwrap_or(&behind[..count]);
        if output_to > 0 && behind.starts_with(b"[") && behind.windows(OWN.len()).any(|part| part == OWN.as_bytes()) {
            let _ = file.set_len(output_to);
        }
    }

    /// Writes a line of minflow's before the tail line.
    pub fn note(&self, text: &str, now: Timestamp) {
        self.close(text, now);
        self.is_open_line.set(Some(false));
    }

    /// Writes the tail line, on a line of its own. A disk that is full loses it: the database has the end.
    pub fn close(&self, tail: &str, now: Timestamp) {
        let Some(mut file) = self.file() else { return };
        let text = match self.is_open_line.get() {
            Some(true) => format!("\n{}", line(tail, now)),
            Some(false) => line(tail, now),
            None => own_line(file, tail, now),
        };
        let _ = file.write_all(text.as_bytes());
    }
}

/// Adds to the log of a try that goes on, with one call: a head line, what was said, unless the log has `most` bytes already, and a tail
/// line. Each is whole lines, as all that was written before.
///
/// # Errors
/// The disk or the folder does not take it.
pub fn append(path: &Path, [head, said, tail]: [&str; 3], most: u64) -> Result<(), Fault> {
    let file = open(path).map_err(|error| Fault::of_file("open the log", path, &error))?;
    let is_full = file.metadata().is_ok_and(|metadata| metadata.len() >= most);
    let text = [head, if is_full { "" } else { said }, tail].concat();
    (&file).write_all(text.as_bytes()).map_err(|error| Fault::of_file("write the log", path, &error))
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

/// A line of minflow's, with its end.
pub fn line(text: &str, now: Timestamp) -> String {
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
    fn what_an_earlier_minflow_wrote_behind_the_output_is_taken_back_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for (said, is_ours) in [("no newline", true), ("a line\n", true), ("", true), ("kept\n", false)] {
            let path = folder.path().join("log");
            let log = TryLog::open(path.clone(), "begins", Timestamp::UNIX_EPOCH).unwrap();
            File::options().append(true).open(&path).unwrap().write_all(said.as_bytes()).unwrap();
            let output_to = fs::metadata(&path).unwrap().len();
            match is_ours {
                true => log.close("ended", Timestamp::UNIX_EPOCH),
                false => File::options().append(true).open(&path).unwrap().write_all(b"[1] of a daemon\n").unwrap(),
            }
            let whole = fs::read_to_string(&path).unwrap();
            let again = TryLog::resume(path.clone(), log.output_from());
            again.take_back(output_to);
            if is_ours {
                assert_eq!(again.tail(), said.as_bytes());
                again.close("ended", Timestamp::UNIX_EPOCH);
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), whole);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_log_that_cannot_be_opened_again_is_empty_and_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let log = TryLog::resume(file.join("attempt=1.log"), 7);
        assert_eq!((log.tail(), log.output_from()), (Vec::new(), 7));
        log.take_back(9);
        log.close("ended", Timestamp::UNIX_EPOCH);
        assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    }

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
