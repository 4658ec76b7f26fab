//! Which files of one pattern have been seen, since when each is as it is, and which of them have been told.
//!
//! Knows neither disk nor clock: it is told what was found, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::settled::Stamp;

/// What was found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub stamp: Stamp,
    /// When the file's inode was changed the last time, in nanoseconds since 1970: not part of what it is, but of how long it has
    /// been so.
    pub changed_at: i64,
    /// For how long it has been as it is; None where the disk's clock may not be ours.
    pub unchanged_for: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    stamp: Stamp,
    changed_at: i64,
    settles_at: Instant,
    /// As it is.
    is_told: bool,
    /// As it is, or as what it was before.
    was_told: bool,
    /// Found by the first look at all.
    lay_there: bool,
}

#[derive(Debug, Default)]
pub struct Sightings {
    /// None: nothing has been seen, as by most that wait.
    seen: Option<Box<Seen>>,
    /// All that lay there has been seen: what is found from here on has come since.
    has_looked: bool,
}

#[derive(Debug, Default)]
struct Seen {
    files: BTreeMap<PathBuf, Sighting>,
    /// Those that are not told yet.
    waiting: BTreeSet<(Instant, PathBuf)>,
}

impl Sightings {
    /// These have been told before.
    pub fn of_told(told: Vec<(PathBuf, Stamp)>, now: Instant) -> Self {
        let sighting =
            |stamp| Sighting { stamp, changed_at: 0, settles_at: now, is_told: true, was_told: true, lay_there: true };
        if told.is_empty() {
            return Self::default();
        }
        let files = told.into_iter().map(|(path, stamp)| (path, sighting(stamp))).collect();
        Self { seen: Some(Box::new(Seen { files, waiting: BTreeSet::new() })), has_looked: false }
    }

    /// The first look at all is over.
    pub fn end_first_look(&mut self) {
        self.has_looked = true;
    }

    /// Whether a file that is known was found by the first look at all, as it is or as what it was before.
    pub fn lay_there(&self, path: &Path) -> bool {
        self.seen.as_ref().and_then(|seen| seen.files.get(path)).is_some_and(|known| known.lay_there)
    }

    /// A file has been looked at. True if it has settled now and was not told as it is: it counts as told from here on.
    pub fn see(&mut self, path: &Path, found: Found, settle: Duration, now: Instant) -> bool {
        let seen = self.seen.get_or_insert_default();
        let known = seen.files.get(path).copied();
        let mut sighting = match known {
            Some(known) if known.stamp == found.stamp && (known.is_told || known.changed_at == found.changed_at) => {
                known
            }
            _ => {
                let age = found.unchanged_for.unwrap_or_default().min(settle);
                let settles_at = now + (settle - age);
                Sighting {
                    stamp: found.stamp,
                    changed_at: found.changed_at,
                    settles_at,
                    is_told: false,
                    was_told: known.is_some_and(|known| known.was_told),
                    lay_there: known.map_or(!self.has_looked, |known| known.lay_there),
                }
            }
        };
        if sighting.is_told {
            return false;
        }
        if let Some(known) = known {
            seen.waiting.remove(&(known.settles_at, path.to_owned()));
        }
        sighting.is_told = sighting.settles_at <= now;
        sighting.was_told |= sighting.is_told;
        if !sighting.is_told {
            seen.waiting.insert((sighting.settles_at, path.to_owned()));
        }
        seen.files.insert(path.to_owned(), sighting);
        sighting.is_told
    }

    /// There is no such file. True if it had been told, if only as what it was before.
    pub fn miss(&mut self, path: &Path) -> bool {
        let Some(seen) = &mut self.seen else { return false };
        let Some(known) = seen.files.remove(path) else { return false };
        seen.waiting.remove(&(known.settles_at, path.to_owned()));
        self.seen.take_if(|seen| seen.files.is_empty());
        known.was_told
    }

    /// Those that are known and not among `there`, in order.
    pub fn absent(&self, there: &BTreeSet<&Path>) -> Vec<PathBuf> {
        let seen = self.seen.iter().flat_map(|seen| seen.files.keys());
        seen.filter(|path| !there.contains(path.as_path())).cloned().collect()
    }

    /// Those that should have settled by now, to be looked at once more.
    pub fn due(&self, now: Instant) -> Vec<PathBuf> {
        let waiting = self.seen.iter().flat_map(|seen| &seen.waiting);
        waiting.take_while(|(at, _)| *at <= now).map(|(_, path)| path.clone()).collect()
    }

    /// When the next one should have settled.
    pub fn next_at(&self) -> Option<Instant> {
        self.seen.as_ref()?.waiting.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(2);

    fn found(size: u64, unchanged_for: Option<u64>) -> Found {
        let stamp = Stamp { inode: 1, size, modified_at: 7 };
        Found { stamp, changed_at: i64::try_from(size).unwrap(), unchanged_for: unchanged_for.map(Duration::from_secs) }
    }

    #[test]
    fn a_file_settles_once_nothing_of_it_has_changed_for_long_enough() {
        let (path, start) = (Path::new("/in/a"), Instant::now());
        let mut sightings = Sightings::default();
        assert!(!sightings.see(path, found(1, None), SETTLE, start));
        let later = start + Duration::from_millis(1_500);
        assert!(!sightings.see(path, found(2, None), SETTLE, later));
        assert_eq!(sightings.next_at(), Some(later + SETTLE));
        assert!(sightings.due(start + SETTLE).is_empty());
        assert_eq!(sightings.due(later + SETTLE), [path]);
        assert!(sightings.see(path, found(2, None), SETTLE, later + SETTLE));
        assert_eq!(sightings.next_at(), None);
    }

    #[test]
    fn a_file_is_told_once_for_each_thing_that_it_was() {
        let (path, now) = (Path::new("/in/a"), Instant::now());
        let mut sightings = Sightings::default();
        assert!(sightings.see(path, found(1, Some(60)), SETTLE, now));
        assert!(!sightings.see(path, found(1, Some(60)), SETTLE, now));
        assert!(!sightings.see(path, found(2, Some(0)), SETTLE, now));
        assert!(sightings.see(path, found(2, Some(2)), SETTLE, now + SETTLE));
        assert!(sightings.miss(path));
        assert!(!sightings.miss(path));
        assert!(sightings.see(path, found(2, Some(9)), SETTLE, now + SETTLE));
    }

    #[test]
    fn what_lies_there_for_long_has_settled_at_first_sight_only_where_the_disks_clock_is_ours() {
        let now = Instant::now();
        let mut sightings = Sightings::default();
        assert!(sightings.see(Path::new("/in/a"), found(1, Some(2)), SETTLE, now));
        assert!(!sightings.see(Path::new("/in/b"), found(1, None), SETTLE, now));
        assert!(!sightings.see(Path::new("/in/c"), found(1, Some(1)), SETTLE, now));
        assert_eq!(sightings.next_at(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn what_is_not_there_any_longer_is_named() {
        let now = Instant::now();
        let mut sightings = Sightings::default();
        for path in ["/in/a", "/in/b"] {
            sightings.see(Path::new(path), found(1, None), SETTLE, now);
        }
        assert_eq!(sightings.absent(&[Path::new("/in/b")].into()), [Path::new("/in/a")]);
        assert!(!sightings.miss(Path::new("/in/a")), "it had not been told");
        assert_eq!(sightings.due(now + SETTLE), [Path::new("/in/b")]);
        assert!(sightings.see(Path::new("/in/b"), found(1, None), SETTLE, now + SETTLE));
        assert!(!sightings.see(Path::new("/in/b"), found(2, None), SETTLE, now + SETTLE));
        assert!(sightings.miss(Path::new("/in/b")), "it had been told as what it was before");
    }
}
