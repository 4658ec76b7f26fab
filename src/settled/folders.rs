//! The folders that decide what a pattern finds, as the one who waits keeps them: thousands may wait, most of them for one folder.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::pattern::Pattern;
use crate::settled::eyes::Number;

/// What is known of a folder.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// None: the kernel does not tell of it.
    pub number: Option<Number>,
    /// Whether its clock is ours.
    pub is_local: bool,
}

/// All of one pattern, in order.
#[derive(Debug)]
pub enum Folders {
    One(Folder),
    Many(Box<[Folder]>),
}

#[derive(Debug)]
pub struct Folder {
    place: Place,
    known: Known,
}

#[derive(Debug)]
enum Place {
    /// So many bytes of the pattern's own text lead to it.
    Beginning(u32),
    Apart(Arc<Path>),
}

impl Place {
    fn path<'a>(&'a self, pattern: &'a Pattern) -> &'a Path {
        match self {
            Self::Beginning(length) => Path::new(pattern.as_str().get(..*length as usize).unwrap_or_default()),
            Self::Apart(path) => path,
        }
    }
}

impl Default for Folders {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl Folders {
    /// `shared` holds what patterns have in common.
    pub fn new(found: BTreeMap<PathBuf, Known>, pattern: &Pattern, shared: &mut Shared) -> Self {
        let folder = |(path, known): (PathBuf, Known)| {
            let rest = pattern.as_str().as_bytes().strip_prefix(path.as_os_str().as_bytes());
            let length = u32::try_from(path.as_os_str().len()).ok();
            let place = match length.filter(|_| rest.is_some_and(|rest| rest.starts_with(b"/"))) {
                Some(length) => Place::Beginning(length),
                None => Place::Apart(shared.share(&path)),
            };
            Folder { place, known }
        };
        let mut folders: Vec<Folder> = found.into_iter().map(folder).collect();
        match folders.pop() {
            Some(only) if folders.is_empty() => Self::One(only),
            last => Self::Many(folders.into_iter().chain(last).collect()),
        }
    }

    fn as_slice(&self) -> &[Folder] {
        match self {
            Self::One(folder) => std::slice::from_ref(folder),
            Self::Many(folders) => folders,
        }
    }

    /// What the kernel knows them by.
    pub fn numbers(&self) -> BTreeSet<Number> {
        self.as_slice().iter().filter_map(|folder| folder.known.number).collect()
    }

    /// The paths that lead to the folder that the kernel knows by this number.
    pub fn paths_to(&self, number: Number, pattern: &Pattern) -> Vec<PathBuf> {
        let those = self.as_slice().iter().filter(|folder| folder.known.number == Some(number));
        those.map(|folder| folder.place.path(pattern).to_owned()).collect()
    }

    /// What is known of a folder, if it decides.
    pub fn get(&self, folder: &Path, pattern: &Pattern) -> Option<Known> {
        let folders = self.as_slice();
        let at = folders.binary_search_by(|known| known.place.path(pattern).cmp(folder)).ok()?;
        Some(folders[at].known)
    }
}

/// Paths that several patterns have in common, each held once.
#[derive(Debug, Default)]
pub struct Shared(BTreeSet<Arc<Path>>);

impl Shared {
    fn share(&mut self, path: &Path) -> Arc<Path> {
        if let Some(known) = self.0.get(path) {
            return known.clone();
        }
        let path: Arc<Path> = path.into();
        self.0.insert(path.clone());
        path
    }

    /// What nobody else has is held no longer.
    pub fn give_back(&mut self, folders: Folders) {
        let folders = match folders {
            Folders::One(folder) => vec![folder],
            Folders::Many(folders) => folders.into_vec(),
        };
        for folder in folders {
            // This one and the one that is held here.
            if let Place::Apart(path) = folder.place
                && Arc::strong_count(&path) == 2
            {
                self.0.remove(&path);
            }
        }
    }
}
