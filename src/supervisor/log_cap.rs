//! Keeps one try's log within its limit while the process writes straight to it.
//!
//! What lies behind the limit is punched out of the file as it grows, but for the newest part: so the disk is spared, no byte
//! of the end of the output is lost to a race, and the file is cut to its limit once the process is over. Looks as seldom as
//! the growth allows; a quiet log is watched by the kernel, or where that fails looked at once a second.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FallocateFlags, fallocate};

use crate::clock::BootInstant;
use crate::supervisor::procfs;
use crate::supervisor::protocol::TAIL_BYTES;

/// How far behind its limit a log may grow between two looks, about.
const SLACK: u64 = 16 << 20;
const FIRST_LOOK: Duration = Duration::from_millis(20);
const QUICKEST: Duration = Duration::from_millis(2);
/// Of a log that grows: what a sudden torrent adds until the next look stays bounded.
const SLOWEST: Duration = Duration::from_millis(100);
/// Of a quiet log that the kernel does not watch.
const UNWATCHED: Duration = Duration::from_secs(1);

/// The watch over one log.
#[derive(Debug)]
pub struct LogCap {
    file: File,
    limit: u64,
    size: u64,
    looked_at: BootInstant,
    interval: Duration,
    /// Up to here the file is a hole behind its limit.
    punched_to: u64,
    /// What was cut off where the file system cannot punch holes.
    cut: u64,
    /// The end of what was cut off.
    tail: Vec<u8>,
    attention: Attention,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attention {
    /// It is looked at.
    Looks,
    /// It has not grown for a while, and nobody watches it.
    Quiet,
    /// The kernel tells when it grows again.
    Watched,
}

/// Writes lines of minflow's to a log whose process has not begun, and gives their bytes. A disk that is full loses them.
pub fn note(mut log: &File, notes: &[String], at: Timestamp) -> u64 {
    let text: String = notes.iter().map(|note| format!("[{at:.6}] minflow: {note}\n")).collect();
    if text.is_empty() || log.write_all(text.as_bytes()).is_err() { 0 } else { text.len() as u64 }
}

/// What the limit cost.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How long the log is then; 0: nobody knows.
    pub size: u64,
    pub bytes: u64,
    /// The last [`TAIL_BYTES`] of the output; empty if nothing was dropped.
    pub tail: Vec<u8>,
}

impl LogCap {
    /// `file` is open for reading and appending.
    pub fn new(file: File, limit: u64, now: BootInstant) -> Self {
        let interval = FIRST_LOOK;
        Self {
            file,
            limit,
            size: 0,
            looked_at: now,
            interval,
            punched_to: limit,
            cut: 0,
            tail: Vec::new(),
            attention: Attention::Looks,
        }
    }

    /// What names the file: its device and its inode.
    pub fn identity(&self) -> Option<(u64, u64)> {
        procfs::identity(&self.file)
    }

    /// When to look again. Slow looks fall on whole seconds, so that many quiet tasks cost one wake-up.
    pub fn due(&self) -> Option<BootInstant> {
        let due = self.looked_at.after(self.interval);
        match self.attention {
            Attention::Looks => Some(due),
            Attention::Quiet => Some(BootInstant(Duration::from_secs(due.0.as_secs()))),
            Attention::Watched => None,
        }
    }

    /// The file, if it has become quiet and the kernel should watch it from now on.
    pub fn to_watch(&self) -> Option<&File> {
        (self.attention == Attention::Quiet).then_some(&self.file)
    }

    /// The kernel watches it.
    pub fn watched(&mut self) {
        self.attention = Attention::Watched;
        // What was written before the watch stood is not told of.
        if self.file.metadata().is_ok_and(|metadata| metadata.len() != self.size) {
            self.attention = Attention::Looks;
        }
    }

    /// The kernel says that it grows.
    pub fn wake(&mut self, now: BootInstant) {
        (self.attention, self.interval, self.looked_at) = (Attention::Looks, QUICKEST, now);
    }

    /// Looks at the size, and frees what lies behind the limit.
    pub fn look(&mut self, now: BootInstant) {
        let Ok(metadata) = self.file.metadata() else { return };
        let size = metadata.len();
        let grown = size.saturating_sub(self.size);
        let elapsed = now.since(self.looked_at).max(QUICKEST);
        let room = self.limit.saturating_sub(size) + SLACK / 2;
        self.interval = if grown == 0 {
            let is_quiet = self.interval >= SLOWEST;
            self.attention = if is_quiet { Attention::Quiet } else { Attention::Looks };
            if is_quiet { UNWATCHED } else { (self.interval * 2).min(SLOWEST) }
        } else {
            self.attention = Attention::Looks;
            elapsed.mul_f64(room as f64 / grown as f64 / 2.0).clamp(QUICKEST, SLOWEST)
        };
        (self.size, self.looked_at) = (size, now);
        let end = size.saturating_sub(TAIL_BYTES as u64);
        if end > self.punched_to + SLACK / 16 {
            self.free(end);
        }
    }

    fn free(&mut self, end: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if self.cut == 0 && fallocate(&self.file, flags, self.punched_to, end - self.punched_to).is_ok() {
            self.punched_to = end;
            return;
        }
        self.tail = self.read_tail(self.size);
        if self.file.set_len(self.limit).is_ok() {
            self.cut += self.size - self.limit;
            self.size = self.limit;
        }
    }

    /// The process is over and nobody writes any longer: cuts the log to its limit, and says so in it.
    pub fn finish(mut self, at: Timestamp) -> Dropped {
        let Ok(metadata) = self.file.metadata() else { return Dropped::default() };
        let size = metadata.len();
        let bytes = self.cut + size.saturating_sub(self.limit);
        if bytes == 0 {
            return Dropped { size, ..Dropped::default() };
        }
        let tail = self.read_tail(size);
        let limit = self.limit;
        let notice = format!(
            "\n[{at:.6}] minflow: the log reached its limit of {limit} bytes; {bytes} bytes after it were dropped \
             (to keep more, raise `max_file_size` in [logging] of airflow.toml)\n"
        );
        let _ = self.file.set_len(limit);
        let _ = self.file.seek(SeekFrom::End(0));
        // A full disk loses the notice; the number of bytes is reported all the same.
        let _ = self.file.write_all(notice.as_bytes());
        Dropped { size: limit + notice.len() as u64, bytes, tail }
    }

    fn read_tail(&self, size: u64) -> Vec<u8> {
        let floor = if self.cut == 0 { 0 } else { self.limit };
        let from = size.saturating_sub(TAIL_BYTES as u64).max(floor);
        let mut newest = vec![0; size.saturating_sub(from) as usize];
        if self.file.read_exact_at(&mut newest, from).is_err() {
            newest.clear();
        }
        let mut tail = self.tail.clone();
        tail.extend_from_slice(&newest);
        tail.split_off(tail.len().saturating_sub(TAIL_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn at(millis: u64) -> BootInstant {
        BootInstant(Duration::from_millis(millis))
    }

    fn open() -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let file = File::options().create(true).read(true).append(true).open(folder.path().join("log")).unwrap();
        (folder, file)
    }

    #[test]
    fn what_lies_behind_the_limit_is_freed_and_the_last_line_survives() {
        let (_folder, file) = open();
        let mut writer = file.try_clone().unwrap();
        let mut cap = LogCap::new(file, 1_000_000, at(0));
        for step in 1..=20 {
            writer.write_all(&vec![b'x'; 5_000_000]).unwrap();
            cap.look(at(step * 10));
            assert!(writer.metadata().unwrap().blocks() * 512 < 9_000_000);
        }
        writer.write_all(b"\nthe last line\n").unwrap();
        let dropped = cap.finish(Timestamp::UNIX_EPOCH);
        assert_eq!(dropped.bytes, 99_000_015);
        assert_eq!(dropped.tail.len(), TAIL_BYTES);
        assert!(dropped.tail.ends_with(b"xx\nthe last line\n"));
        assert!(writer.metadata().unwrap().len() < 1_000_300);
    }

    #[test]
    fn a_log_within_its_limit_is_left_alone() {
        let (_folder, file) = open();
        let mut writer = file.try_clone().unwrap();
        let mut cap = LogCap::new(file, 1_000, at(0));
        writer.write_all(&[b'x'; 1_000]).unwrap();
        cap.look(at(20));
        assert_eq!(cap.finish(Timestamp::UNIX_EPOCH), Dropped { size: 1_000, ..Dropped::default() });
        assert_eq!(writer.metadata().unwrap().len(), 1_000);
    }

    #[test]
    fn a_quiet_log_is_looked_at_once_a_second_and_not_at_all_when_it_is_watched() {
        let (_folder, file) = open();
        let mut cap = LogCap::new(file, 1_000, at(0));
        let mut looks = 0;
        while let Some(due) = cap.due().filter(|&due| due < at(60_000)) {
            cap.look(due);
            looks += 1;
        }
        assert!(looks < 70, "{looks}");
        cap.watched();
        assert_eq!(cap.due(), None);
        cap.wake(at(90_000));
        assert_eq!(cap.due(), Some(at(90_002)));
    }
}
