//! One look at the disk for one pattern.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::pattern::{Part, Pattern, join};
use crate::settled::Stamp;
use crate::settled::sightings::Found;

/// Below a `**`, deeper folders are not entered.
const MAX_DEPTH: usize = 100;

/// What a look has found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Regular files, links to them followed, in no order; a file may come twice if the pattern has two `**`.
    pub files: Vec<(PathBuf, Found)>,
    /// Folders that could not be read, each with the reason. That one is missing is none.
    pub closed: Vec<(PathBuf, String)>,
}

/// Finds all files of the pattern. `enter` is called with each folder that decides what is found, before it is read, so that what
/// comes to it afterwards can be told by the kernel; its answer says whether that folder's clock is ours. Where a folder of the
/// pattern is missing, the nearest one above that exists decides.
pub fn list(pattern: &Pattern, mut enter: impl FnMut(&Path) -> bool) -> Listing {
    let mut walk = Walk { counts_folders: pattern.counts_folders(), enter: &mut enter, listing: Listing::default() };
    walk.descend(Path::new("/"), &pattern.parts(), 0);
    walk.listing
}

/// Looks at one file; None if there is no regular file.
pub fn look(path: &Path, is_local: bool) -> Option<Found> {
    let (metadata, changed_at) = follow(path)?;
    metadata.is_file().then(|| found(&metadata, changed_at, is_local))
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

fn changed_at(metadata: &Metadata) -> i64 {
    nanoseconds(metadata.ctime(), metadata.ctime_nsec())
}

/// What lies at the path, links followed, and since when: a new link may lead to an old file.
fn follow(path: &Path) -> Option<(Metadata, i64)> {
    let own = fs::symlink_metadata(path).ok()?;
    let since = changed_at(&own);
    if !own.is_symlink() {
        return Some((own, since));
    }
    let target = fs::metadata(path).ok()?;
    let since = since.max(changed_at(&target));
    Some((target, since))
}

fn found(metadata: &Metadata, changed_at: i64, is_local: bool) -> Found {
    let stamp = Stamp {
        inode: metadata.ino(),
        size: metadata.len(),
        modified_at: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
    };
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let age = u64::try_from(changed_at).map(|at| since_epoch.saturating_sub(Duration::from_nanos(at)));
    Found { stamp, changed_at, unchanged_for: age.ok().filter(|_| is_local) }
}

struct Walk<'a> {
    counts_folders: bool,
    enter: &'a mut dyn FnMut(&Path) -> bool,
    listing: Listing,
}

impl Walk<'_> {
    fn descend(&mut self, folder: &Path, parts: &[Part], depth: usize) {
        let Some((part, rest)) = parts.split_first() else { return };
        match part {
            Part::Name(name) => self.take_named(folder, &folder.join(name), rest, depth),
            Part::Wild(_) => {
                let is_local = (self.enter)(folder);
                for name in self.names(folder) {
                    if part.accepts(&name) {
                        self.take(&join(folder, &name), rest, is_local, depth);
                    }
                }
            }
            Part::Depths => self.take_depths(folder, rest, depth),
        }
    }

    /// A name in the middle of a path needs no look at its folder unless it is missing.
    fn take_named(&mut self, folder: &Path, path: &Path, rest: &[Part], depth: usize) {
        if !rest.is_empty() && path.is_dir() {
            return self.descend(path, rest, depth);
        }
        let is_local = (self.enter)(folder);
        // It may have come before the kernel was asked.
        self.take(path, rest, is_local, depth);
    }

    fn take(&mut self, path: &Path, rest: &[Part], is_local: bool, depth: usize) {
        if !rest.is_empty() {
            if path.is_dir() {
                self.descend(path, rest, depth);
            }
            return;
        }
        match follow(path) {
            Some((metadata, since)) if metadata.is_file() => {
                self.listing.files.push((path.to_owned(), found(&metadata, since, is_local)));
            }
            Some((metadata, _)) if metadata.is_dir() && self.counts_folders => self.take_all(path, depth),
            _ => {}
        }
    }

    /// `rest` matches in this folder and in all below; links to folders are not followed, since they may lead in circles.
    fn take_depths(&mut self, folder: &Path, rest: &[Part], depth: usize) {
        let is_local = (self.enter)(folder);
        if !rest.is_empty() {
            self.descend(folder, rest, depth);
        }
        for name in self.names(folder) {
            let path = join(folder, &name);
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if !Part::Depths.accepts(&name) {
                continue;
            }
            match metadata.is_dir() {
                true if depth < MAX_DEPTH => self.take_depths(&path, rest, depth + 1),
                false if rest.is_empty() => self.take(&path, rest, is_local, depth),
                _ => {}
            }
        }
    }

    fn take_all(&mut self, folder: &Path, depth: usize) {
        let is_local = (self.enter)(folder);
        for name in self.names(folder) {
            let path = join(folder, &name);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => self.take_all(&path, depth + 1),
                Ok(metadata) if metadata.is_file() => {
                    self.listing.files.push((path, found(&metadata, changed_at(&metadata), is_local)));
                }
                _ => {}
            }
        }
    }

    fn names(&mut self, folder: &Path) -> Vec<Vec<u8>> {
        let listed = fs::read_dir(folder).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().as_bytes().to_vec())).collect::<io::Result<Vec<_>>>()
        });
        listed.unwrap_or_else(|error| {
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                self.listing.closed.push((folder.to_owned(), error.to_string()));
            }
            Vec::new()
        })
    }
}
