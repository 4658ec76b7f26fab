//! Shows what a trial's tries write, as they write it: whole lines, under the name of the try whenever another one speaks.
//!
//! Knows log files and their paths; what runs, and when it is over, [`trial`](super::trial) tells.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, unbounded};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::secrets::{Masker, Scrubber};

/// A line that does not end is shown in pieces of this size.
const LONGEST_WAIT: usize = 8 * 1024;

/// Tells when a log grows. Where the host has no inotify left it tells nothing, and logs are shown when their tries end.
pub(super) struct LogWatch(Option<RecommendedWatcher>);

impl LogWatch {
    /// The receiver gets the paths of logs that have grown; the sender keeps it open.
    pub(super) fn new() -> (Self, Sender<PathBuf>, Receiver<PathBuf>) {
        let (sender, grown) = unbounded();
        let tell = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the log is an event too, and our own doing.
            let written = event.ok().filter(|event| !event.kind.is_access());
            for path in written.into_iter().flat_map(|event| event.paths) {
                let _ = tell.send(path);
            }
        });
        (Self(watcher.ok()), sender, grown)
    }

    /// To be called before the log is made.
    pub(super) fn add(&mut self, log: &Path) {
        let folder = log.parent().expect("a log lies in its task's folder");
        // What cannot be watched is shown at the end of its try.
        if let Some(watcher) = &mut self.0
            && std::fs::create_dir_all(folder).is_ok()
        {
            let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
        }
    }
}

/// The logs under way, and where they are shown. A reader that has gone away does not end the trial: what it misses is lost.
pub(super) struct Screen<'a> {
    out: &'a mut dyn Write,
    /// By path.
    logs: BTreeMap<PathBuf, Log>,
    /// Whose lines were shown last.
    speaker: Option<PathBuf>,
    masker: Arc<Masker>,
}

struct Log {
    /// `load try 1`
    title: String,
    file: Option<File>,
    /// The beginning of a line.
    begun: Vec<u8>,
    scrubber: Scrubber,
}

impl<'a> Screen<'a> {
    /// `masker` hides what of the lines is secret.
    pub(super) fn new(out: &'a mut dyn Write, masker: Arc<Masker>) -> Self {
        Self { out, logs: BTreeMap::new(), speaker: None, masker }
    }

    pub(super) fn open(&mut self, log: PathBuf, title: String) {
        self.logs
            .insert(log, Log { title, file: None, begun: Vec::new(), scrubber: Scrubber::new(self.masker.clone()) });
    }

    /// Shows the lines that are new.
    pub(super) fn show(&mut self, path: &Path) {
        let Some(log) = self.logs.get_mut(path) else { return };
        let mut text = std::mem::take(&mut log.begun);
        log.read(path, &mut text);
        let end = text.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
        let end = if text.len() - end > LONGEST_WAIT { text.len() } else { end };
        log.begun = text.split_off(end);
        let shown = log.scrubber.push(&text).into_owned();
        self.write(path, &shown);
    }

    /// Shows what is left of a log, and how its try ended.
    pub(super) fn close(&mut self, path: &Path, ending: &str) {
        self.show(path);
        let Some(log) = self.logs.get_mut(path) else { return };
        let mut rest = log.scrubber.push(&std::mem::take(&mut log.begun)).into_owned();
        rest.extend(log.scrubber.finish());
        if !rest.is_empty() {
            self.write(path, &rest);
            self.write(path, b"\n");
        }
        let title = &self.logs[path].title;
        let _ = writeln!(self.out, "--- {title}: {ending}");
        let _ = self.out.flush();
        self.logs.remove(path);
        self.speaker = None;
    }

    fn write(&mut self, path: &Path, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        if self.speaker.as_deref() != Some(path) {
            let _ = writeln!(self.out, "--- {}", self.logs[path].title);
            self.speaker = Some(path.to_owned());
        }
        let _ = self.out.write_all(text);
        let _ = self.out.flush();
    }
}

impl Log {
    fn read(&mut self, path: &Path, into: &mut Vec<u8>) {
        if self.file.is_none() {
            self.file = File::open(path).ok();
        }
        let begins_at = into.len();
        if let Some(file) = &mut self.file {
            // What was read before an error is shown.
            let _ = file.read_to_end(into);
        }
        // The middle of a log beyond its limit is punched out while it grows, and reads as zeros.
        if into[begins_at..].contains(&0) {
            let kept = into.split_off(begins_at).into_iter().filter(|byte| *byte != 0);
            into.extend(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(path: &Path, text: &str) {
        File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn each_line_is_shown_once_under_the_name_of_its_try() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, Arc::default());
        screen.open(a.clone(), "a try 1".to_owned());
        screen.open(b.clone(), "b try 1".to_owned());
        screen.show(&a);
        append(&a, "one\ntw");
        screen.show(&a);
        append(&b, "10 %\r20 %");
        screen.show(&b);
        append(&a, "o\nend");
        screen.show(&a);
        screen.close(&a, "exit code 0");
        append(&b, "\r");
        screen.close(&b, "exit code 1");
        screen.show(&b);
        let text = String::from_utf8(out).unwrap();
        let expected = [
            "--- a try 1\none\n--- b try 1\n10 %\r--- a try 1\ntwo\nend\n--- a try 1: exit code 0\n",
            "--- b try 1\n20 %\r--- b try 1: exit code 1\n",
        ];
        assert_eq!(text, expected.concat());
    }

    #[test]
    fn a_log_is_told_of_as_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("task/attempt=1.log");
        let (mut watch, _open, grown) = LogWatch::new();
        watch.add(&log);
        append(&log, "one\n");
        assert_eq!(grown.recv_timeout(std::time::Duration::from_secs(10)), Ok(log));
    }
}
