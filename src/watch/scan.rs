//! What lies under the dags folder: names and stamps of its DAG files, and their bytes. Follows links, blocks on nothing but the disk.
//!
//! Knows nothing of what was there before; [`watch`](super) compares.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::clock::to_micros;

/// The largest file that is read.
pub(super) const MAX_BYTES: u64 = 10_000_000;

/// Folders below folders, beyond which nothing is looked for.
const MAX_DEPTH: usize = 32;

/// Changes with every change of a file's content, except two within one tick of the file system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Null if it is beyond the calendar.
    pub(super) fn modified_at(&self) -> Option<Timestamp> {
        let (seconds, nanos) = self.modified;
        Timestamp::new(seconds, nanos as i32).ok().map(to_micros)
    }

    /// The last change is so recent that another one could leave the same stamp.
    pub(super) fn is_fresh(&self) -> bool {
        let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else {
            return false;
        };
        let (seconds, nanos) = self.modified;
        let modified = Duration::new(u64::try_from(seconds).unwrap_or(0), nanos as u32);
        now.abs_diff(modified) < Duration::from_millis(50)
    }
}

/// Something under the dags folder that concerns minflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    File(Stamp),
    Fault(Fault),
}

/// What cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: String,
}

/// One look at the folder. Paths are relative to it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// By path; compared as bytes, since `Path` takes both apart each time.
    pub(super) entries: BTreeMap<OsString, Entry>,
    /// Folders that could not be listed: what is below them is unknown, not gone.
    pub(super) unknown: Vec<PathBuf>,
    /// Where the linked files really lie.
    pub(super) targets: BTreeSet<PathBuf>,
    /// Links to folders, and where those really lie.
    pub(super) linked_folders: BTreeSet<(PathBuf, PathBuf)>,
}

impl Listing {
    pub(super) fn is_unknown(&self, path: &Path) -> bool {
        self.unknown.iter().any(|folder| path.starts_with(folder))
    }

    fn fault(&mut self, path: PathBuf, code: &'static str, message: String, help: &str) {
        self.entries.insert(path.into_os_string(), Entry::Fault(Fault { code, message, help: help.to_owned() }));
    }
}

/// Lists `root`. Each folder is listed once, at its own place rather than at a link to it, so that loops of links end.
///
/// # Errors
/// `root` itself cannot be listed.
pub(super) fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let mut seen = BTreeSet::new();
    let mut folders = VecDeque::from([(PathBuf::new(), false)]);
    let mut links = VecDeque::new();
    while let Some((folder, is_linked)) = folders.pop_front().or_else(|| links.pop_front()) {
        let path = root.join(&folder);
        let identity = fs::metadata(&path).map(|metadata| (metadata.dev(), metadata.ino()));
        // Only links make loops; some shared file systems give different folders the same number.
        if identity.as_ref().is_ok_and(|identity| !seen.insert(*identity)) && is_linked {
            continue;
        }
        let entries = identity.and_then(|_| fs::read_dir(&path)?.collect::<io::Result<Vec<_>>>());
        match entries {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.file_name();
                    let kind = entry.file_type();
                    let found = Found {
                        path: folder.join(&name),
                        linked: kind.as_ref().is_ok_and(|kind| kind.is_symlink()),
                        is_file: kind.is_ok_and(|kind| kind.is_file()),
                    };
                    if is_ignored(&name) || !listing.visit(root, &found) || folder.iter().count() >= MAX_DEPTH {
                        continue;
                    }
                    // What lies under a linked folder comes after all real ones too.
                    let is_linked = is_linked || found.linked;
                    if is_linked { links.push_back((found.path, true)) } else { folders.push_back((found.path, false)) }
                }
            }
            Err(error) if folder.as_os_str().is_empty() => return Err(error),
            // It went between its parent's listing and now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("failed to list the folder: {error}");
                listing.unknown.push(folder.clone());
                listing.fault(folder, "unreadable", message, "let the user that runs minflow read it");
            }
        }
    }
    Ok(listing)
}

struct Found {
    path: PathBuf,
    linked: bool,
    /// Surely a regular file.
    is_file: bool,
}

impl Listing {
    /// Notes a DAG file. True: it is a folder to list.
    fn visit(&mut self, root: &Path, found: &Found) -> bool {
        let path = root.join(&found.path);
        let has_name = is_dag_file(&found.path);
        if found.is_file && !has_name {
            return false;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                if found.linked
                    && let Ok(target) = fs::canonicalize(&path)
                {
                    self.linked_folders.insert((path, target));
                }
                return true;
            }
            Ok(_) if !has_name => {}
            Ok(_) if found.path.to_str().is_none() => {
                let help = "rename the file with ASCII letters";
                self.fault(found.path.clone(), "file-name", "the file's name is not UTF-8".to_owned(), help);
            }
            Ok(metadata) if !metadata.is_file() => {
                let help = "put a regular file there, or give it another name";
                self.fault(found.path.clone(), "not-a-file", "this is not a regular file".to_owned(), help);
            }
            Ok(metadata) => {
                if found.linked
                    && let Ok(target) = fs::canonicalize(&path)
                {
                    self.targets.insert(target);
                }
                self.entries.insert(found.path.clone().into_os_string(), Entry::File(Stamp::of(&metadata)));
            }
            Err(_) if !has_name => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if found.linked {
                    let message = "the link leads nowhere".to_owned();
                    self.fault(found.path.clone(), "unreadable", message, "mend the link or remove it");
                }
            }
            Err(error) => {
                let message = format!("failed to look at the file: {error}");
                self.fault(found.path.clone(), "unreadable", message, "let the user that runs minflow read it");
            }
        }
        false
    }
}

/// Dot files, and Emacs' `#x.toml#`.
fn is_ignored(name: &OsStr) -> bool {
    matches!(name.as_bytes().first(), Some(b'.' | b'#'))
}

/// A name that ends in `.toml`, and is no editor's own.
pub(super) fn is_dag_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| !is_ignored(name) && name.as_bytes().ends_with(b".toml"))
}

/// The bytes of a file, with the stamp that it had when they were read.
///
/// # Errors
/// It is gone (null), or cannot be read.
pub(super) fn read(path: &Path) -> Result<(Stamp, Vec<u8>), Option<Fault>> {
    let unreadable = |error: io::Error| {
        (error.kind() != io::ErrorKind::NotFound).then(|| Fault {
            code: "unreadable",
            message: format!("failed to read the file: {error}"),
            help: "let the user that runs minflow read it".to_owned(),
        })
    };
    // A FIFO may have taken the file's place since it was listed; opening it must not wait for a writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.len() > MAX_BYTES {
        return Err(Some(Fault {
            code: "too-large",
            message: format!("the file has {} bytes, and at most {MAX_BYTES} are read", metadata.len()),
            help: "split it: one DAG per file, long scripts in files of their own".to_owned(),
        }));
    }
    let bytes = if metadata.is_file() { read_at_most(&file, metadata.len()).map_err(unreadable)? } else { Vec::new() };
    Ok((Stamp::of(&metadata), bytes))
}

fn read_at_most(file: &File, expected: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(expected as usize + 1);
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
