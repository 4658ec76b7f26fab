//! Virtual environments of tasks that nobody needs any longer.
//!
//! Knows what `builtin::venv` leaves in their folder: a file for each task that has used one, and a lock that is held for as long as a
//! task does. What a loaded DAG's task has used last stays; of the rest goes what was not used for long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::builtin::venv::{COMPLETE, USERS, lock_of};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Venv {
    pub path: PathBuf,
    /// By any task.
    pub used_at: SystemTime,
    /// The tasks, by DAG and task, and when each has used it last.
    users: BTreeMap<(String, String), SystemTime>,
}

/// All that are in the folder. One of before tasks left their names is taken for one that was used just now, from the first look on.
pub fn list(folder: &Path) -> Vec<Venv> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| path.extension().is_none() && path.is_dir();
    names.map(|entry| entry.path()).filter(is_one).filter_map(read).collect()
}

fn read(path: PathBuf) -> Option<Venv> {
    let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let users_folder = path.join(USERS);
    let mut used_at = modified(&path).ok()?;
    used_at = modified(&path.join(COMPLETE)).map_or(used_at, |at| at.max(used_at));
    used_at = modified(&users_folder).map_or(used_at, |at| at.max(used_at));
    let mut users = BTreeMap::new();
    for entry in fs::read_dir(&users_folder).into_iter().flatten().flatten() {
        let Ok(at) = modified(&entry.path()) else { continue };
        used_at = at.max(used_at);
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if let Some((dag_id, task_id)) = text.trim_end().split_once('\n') {
            users.insert((dag_id.to_owned(), task_id.to_owned()), at);
        }
    }
    Some(Venv { path, used_at, users })
}

/// Those that may go: not used since `before`, and not what a task of a loaded DAG has used last.
pub fn superfluous(all: &[Venv], loaded: &BTreeSet<String>, before: SystemTime) -> Vec<Venv> {
    let mut last: BTreeMap<&(String, String), (SystemTime, &Path)> = BTreeMap::new();
    for venv in all {
        for (user, &at) in venv.users.iter().filter(|((dag_id, _), _)| loaded.contains(dag_id)) {
            let newest = last.entry(user).or_insert((at, &venv.path));
            *newest = (*newest).max((at, &venv.path));
        }
    }
    let named: BTreeSet<&Path> = last.into_values().map(|(_, path)| path).collect();
    all.iter().filter(|venv| venv.used_at < before && !named.contains(&*venv.path)).cloned().collect()
}

/// Removes one, unless a task has it or has used it since `before`. False: it stays.
///
/// # Errors
/// Something of it cannot be removed; what is left counts as no virtual environment.
pub fn remove(venv: &Venv, before: SystemTime) -> io::Result<bool> {
    let lock = lock_of(&venv.path);
    let held = File::create(&lock)?;
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        locked => locked?,
    }
    if read(venv.path.clone()).is_none_or(|now| now.used_at >= before) {
        return Ok(false);
    }
    // First, so that what a failure leaves is made anew.
    remove_if_there(fs::remove_file(venv.path.join(COMPLETE)))?;
    remove_if_there(fs::remove_dir_all(&venv.path))?;
    // Who waits for the lock sees that its file is gone, and makes another.
    remove_if_there(fs::remove_file(lock))?;
    Ok(true)
}

fn remove_if_there(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::builtin::venv::{hold, note_use};

    const DAY: Duration = Duration::from_secs(86_400);

    /// One that these tasks have used so many days ago.
    fn made(folder: &Path, name: &str, users: &[(&str, &str, u32)]) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(path.join("bin")).unwrap();
        for file in ["bin/python", COMPLETE] {
            fs::write(path.join(file), "").unwrap();
        }
        let long_ago = SystemTime::now() - 100 * DAY;
        for (dag_id, task_id, days) in users {
            note_use(&path, Some((dag_id, task_id)));
            let newest = fs::read_dir(path.join(USERS)).unwrap().map(|entry| entry.unwrap().path());
            let newest = newest.max_by_key(|file| fs::metadata(file).unwrap().modified().unwrap()).unwrap();
            age(&newest, SystemTime::now() - *days * DAY);
        }
        for file in [COMPLETE, USERS, ""] {
            if path.join(file).exists() {
                age(&path.join(file), long_ago);
            }
        }
        path
    }

    fn age(path: &Path, at: SystemTime) {
        File::open(path).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn what_a_loaded_dag_has_used_last_stays_and_of_the_rest_what_was_not_used_for_long_goes() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        made(folder, "last", &[("loaded", "t", 40)]);
        made(folder, "before", &[("loaded", "t", 50)]);
        made(folder, "other-task", &[("loaded", "u", 90)]);
        made(folder, "gone", &[("gone", "t", 40)]);
        made(folder, "gone-lately", &[("gone", "t", 5)]);
        made(folder, "shared", &[("gone", "t", 80), ("loaded", "v", 80)]);
        made(folder, "unnamed", &[]);
        fs::write(folder.join("last.lock"), "").unwrap();
        let before = SystemTime::now() - 30 * DAY;
        let all = list(folder);
        assert_eq!(all.len(), 7, "{all:?}");
        let loaded = BTreeSet::from(["loaded".to_owned()]);
        let mut names: Vec<String> = superfluous(&all, &loaded, before)
            .iter()
            .map(|venv| venv.path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["before", "gone", "unnamed"]);
    }

    #[test]
    fn one_that_a_task_has_or_has_used_meanwhile_stays_and_one_that_goes_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = made(folder.path(), "one", &[("d", "t", 40)]);
        let before = SystemTime::now() - 30 * DAY;
        let [venv] = &list(folder.path())[..] else { panic!() };
        let held = hold(&path).unwrap();
        assert!(!remove(venv, before).unwrap(), "a task has it");
        drop(held);
        note_use(&path, Some(("d", "t")));
        assert!(!remove(venv, before).unwrap(), "it was used since it was listed");
        fs::remove_dir_all(path.join(USERS)).unwrap();
        age(&path, SystemTime::now() - 40 * DAY);
        assert!(remove(venv, before).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
