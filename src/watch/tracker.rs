//! What has been told of each DAG file, and what of a new look at the folder is news.
//!
//! Reads and parses only what has changed. What may be a moment between two writes, a broken file or a missing one, is news only
//! when it lasts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;

use super::Parse;
use super::scan::{Entry, Fault, Listing, Stamp, read};
use crate::diagnostic::Diagnostic;
use crate::scheduler::event::{DagFile, Found};

/// How long a file must stay broken or missing before that is told.
pub(super) const SETTLE: Duration = Duration::from_millis(200);

/// Files in one event of the first scan, and in one thread's hand.
const PIECE: usize = 500;

/// Threads that read and parse when there is much to do.
const READERS: usize = 2;

pub(super) struct Tracker {
    reader: Reader,
    /// By path; compared as bytes, since `Path` takes both apart each time.
    known: BTreeMap<OsString, Known>,
}

/// One file, as far as it has been told.
#[derive(Debug, Default)]
struct Known {
    /// Null: read it again at the next look.
    stamp: Option<Stamp>,
    /// The hash of what was told last; null if nothing was.
    told: Option<u128>,
    /// It seems broken with this hash since then.
    broken: Option<(u128, Instant)>,
    /// It seems gone since then.
    missing: Option<Instant>,
    /// What was told last were faults.
    is_faulty: bool,
}

/// News, and whether something unsettled needs another look soon.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) files: Vec<DagFile>,
    pub(super) is_unsettled: bool,
}

/// What was found of one file.
struct Reading {
    stamp: Option<Stamp>,
    hash: u128,
    file: DagFile,
}

impl Reading {
    fn is_faulty(&self) -> bool {
        matches!(self.file.found, Found::Broken(_))
    }
}

impl Tracker {
    pub(super) fn new(root: PathBuf, shown_root: PathBuf, parse: Parse) -> Self {
        Self { reader: Reader { root, shown_root, parse }, known: BTreeMap::new() }
    }

    /// The first look: everything is news, told piece by piece in the order of the paths. True: something is unsettled.
    pub(super) fn begin(&mut self, listing: &Listing, mut tell: impl FnMut(Vec<DagFile>)) -> bool {
        let mut is_unsettled = false;
        let entries: Vec<_> = listing.entries.iter().collect();
        let Self { reader, known } = self;
        reader.read_all(&entries, |readings| {
            let mut piece = Vec::with_capacity(readings.len());
            for reading in readings.into_iter().flatten() {
                let stamp = reading.stamp.filter(|stamp| !stamp.is_fresh());
                is_unsettled |= stamp.is_none();
                let is_faulty = reading.is_faulty();
                let told = Known { stamp, told: Some(reading.hash), is_faulty, ..Known::default() };
                known.insert(reading.file.path.clone().into_os_string(), told);
                piece.push(reading.file);
            }
            tell(piece);
        });
        is_unsettled
    }

    /// The next look reads again in which files faults were found.
    pub(super) fn forget_faulty(&mut self) {
        for known in self.known.values_mut().filter(|known| known.is_faulty) {
            known.stamp = None;
        }
    }

    /// Tells again, piece by piece, of the files whose text is as it was told: it may mean something else now. What holds no longer, or
    /// did not hold, is read again by the next look.
    pub(super) fn retell(&mut self, listing: &Listing, mut tell: impl FnMut(Vec<DagFile>)) {
        self.forget_faulty();
        let Self { reader, known } = self;
        let is_sound = |known: &Known| known.told.is_some() && !known.is_faulty;
        let entries: Vec<_> =
            listing.entries.iter().filter(|(path, _)| known.get(*path).is_some_and(is_sound)).collect();
        reader.read_all(&entries, |readings| {
            let mut piece = Vec::with_capacity(readings.len());
            for reading in readings.into_iter().flatten() {
                match known.get_mut(reading.file.path.as_os_str()) {
                    Some(file) if file.told == Some(reading.hash) => piece.push(reading.file),
                    Some(file) => file.stamp = None,
                    None => {}
                }
            }
            if !piece.is_empty() {
                tell(piece);
            }
        });
    }

    /// Another look: what is new since the last one. Gone files come first.
    pub(super) fn look(&mut self, listing: &Listing, now: Instant) -> News {
        let mut news = News::default();
        let Self { reader, known } = self;
        let due: Vec<_> = listing.entries.iter().filter(|(path, entry)| is_due(known.get(*path), entry)).collect();
        reader.read_all(&due, |readings| {
            for reading in readings {
                let Some(reading) = reading else {
                    news.is_unsettled = true;
                    continue;
                };
                let file = known.entry(reading.file.path.clone().into_os_string()).or_default();
                let (is_news, is_settled) = file.judge(&reading, now);
                news.is_unsettled |= !is_settled;
                if is_news {
                    news.files.push(reading.file);
                }
            }
        });
        self.miss(listing, now, &mut news);
        news
    }

    /// A file that went while another came was renamed: both are told at once, so that its DAG is never without a file, nor in two.
    fn miss(&mut self, listing: &Listing, now: Instant, news: &mut News) {
        let has_arrival = news.files.iter().any(|file| matches!(file.found, Found::Parsed { .. }));
        let mut gone = Vec::new();
        self.known.retain(|path, known| {
            if listing.entries.contains_key(path) || listing.is_unknown(Path::new(path)) {
                known.missing = None;
                return true;
            }
            let since = *known.missing.get_or_insert(now);
            if known.told.is_some() && !has_arrival && now.duration_since(since) < SETTLE {
                news.is_unsettled = true;
                return true;
            }
            if known.told.is_some() {
                gone.push(DagFile { path: path.into(), modified_at: None, found: Found::Gone });
            }
            false
        });
        gone.append(&mut news.files);
        news.files = gone;
    }
}

fn is_due(known: Option<&Known>, entry: &Entry) -> bool {
    match (known, entry) {
        (Some(known), Entry::File(stamp)) => known.stamp != Some(*stamp),
        (Some(known), Entry::Fault(fault)) => known.told != Some(fault.hash()),
        (None, _) => true,
    }
}

impl Known {
    /// Whether `reading` is news, and whether it may be taken as final.
    fn judge(&mut self, reading: &Reading, now: Instant) -> (bool, bool) {
        let is_fresh = reading.stamp.is_some_and(|stamp| stamp.is_fresh());
        self.stamp = reading.stamp.filter(|_| !is_fresh);
        if self.told == Some(reading.hash) {
            self.broken = None;
            return (false, !is_fresh);
        }
        if reading.is_faulty() {
            let since = match self.broken {
                Some((hash, since)) if hash == reading.hash => since,
                _ => now,
            };
            if now.duration_since(since) < SETTLE {
                self.broken = Some((reading.hash, since));
                self.stamp = None;
                return (false, false);
            }
        }
        self.broken = None;
        self.told = Some(reading.hash);
        self.is_faulty = reading.is_faulty();
        (true, !is_fresh)
    }
}

impl Fault {
    fn hash(&self) -> u128 {
        // No file begins with a zero byte and is a DAG.
        fnv(format!("\0{}\0{}", self.code, self.message).as_bytes())
    }
}

/// Reads and parses; shared by the threads.
struct Reader {
    root: PathBuf,
    /// The dags folder as diagnostics name it.
    shown_root: PathBuf,
    parse: Parse,
}

impl Reader {
    /// Reads all, and hands them over in pieces in their order. A file that is gone is null.
    fn read_all(&self, entries: &[(&OsString, &Entry)], mut take: impl FnMut(Vec<Option<Reading>>)) {
        let read_piece = |piece: &[(&OsString, &Entry)]| -> Vec<Option<Reading>> {
            piece.iter().map(|(path, entry)| self.read(Path::new(path), entry)).collect()
        };
        if entries.len() <= PIECE / 10 {
            return take(read_piece(entries));
        }
        let pieces: Vec<_> = entries.chunks(PIECE).collect();
        let next = AtomicUsize::new(0);
        let (sender, receiver) = unbounded();
        std::thread::scope(|scope| {
            for _ in 0..READERS.min(pieces.len()) {
                let (sender, pieces, next) = (sender.clone(), &pieces, &next);
                scope.spawn(move || {
                    while let Some((at, piece)) = claim(next, pieces) {
                        // The receiver lives as long as the scope.
                        let _ = sender.send((at, read_piece(piece)));
                    }
                });
            }
            drop(sender);
            let mut early = BTreeMap::new();
            let mut awaited = 0;
            for (at, piece) in receiver {
                early.insert(at, piece);
                while let Some(piece) = early.remove(&awaited) {
                    take(piece);
                    awaited += 1;
                }
            }
        });
    }

    fn read(&self, path: &Path, entry: &Entry) -> Option<Reading> {
        let (stamp, bytes) = match entry {
            Entry::Fault(fault) => return Some(self.broken(path, None, fault)),
            Entry::File(listed) => match read(&self.root.join(path)) {
                Ok(read) => read,
                Err(None) => return None,
                Err(Some(fault)) => return Some(self.broken(path, Some(*listed), &fault)),
            },
        };
        let hash = fnv(&bytes);
        let shown = self.shown_root.join(path);
        let parsed = catch_unwind(AssertUnwindSafe(|| (self.parse)(&shown, &bytes))).unwrap_or_else(|_| {
            let message = "minflow failed on this file, which is a fault of minflow";
            Err(vec![Diagnostic::of_file(&shown, "internal", message, "please report it with the file")])
        });
        let mut told = hash;
        let found = match parsed {
            Ok(dag) => Found::Parsed {
                dag: Arc::new(dag),
                source: String::from_utf8_lossy(&bytes).into(),
                hash: format!("{hash:032x}").into(),
            },
            Err(diagnostics) => {
                // The same text may be wrong for another reason once a plugin has come or gone.
                told ^= diagnostics.iter().fold(0, |all, fault| all ^ fnv(fault.to_string().as_bytes()));
                Found::Broken(diagnostics)
            }
        };
        let file = DagFile { path: path.to_owned(), modified_at: stamp.modified_at(), found };
        Some(Reading { stamp: Some(stamp), hash: told, file })
    }

    fn broken(&self, path: &Path, stamp: Option<Stamp>, fault: &Fault) -> Reading {
        let diagnostic = Diagnostic::of_file(self.shown_root.join(path), fault.code, &fault.message, &fault.help);
        let modified_at = stamp.and_then(|stamp| stamp.modified_at());
        let file = DagFile { path: path.to_owned(), modified_at, found: Found::Broken(vec![diagnostic]) };
        Reading { stamp, hash: fault.hash(), file }
    }
}

fn claim<'a, T>(next: &AtomicUsize, pieces: &[&'a [T]]) -> Option<(usize, &'a [T])> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    pieces.get(at).map(|piece| (at, *piece))
}

/// FNV-1a of 128 bits: the same on every host and in every version, since it is stored.
fn fnv(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(format!("{:032x}", fnv(b"")), "6c62272e07bb014262b821756295c58d");
        assert_eq!(format!("{:032x}", fnv(b"a")), "d228cb696f1a8caf78912b704e4a8964");
    }
}
