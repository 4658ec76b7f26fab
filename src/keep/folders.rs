//! Where the files of runs lie, what they take, and how they go.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::executor::paths;
use crate::scheduler::StoreError;
use crate::store::Reader;

/// So many runs are asked for at once.
const PAGE: u32 = 1_000;

/// The folders of a home that hold files of runs, and those that runs share.
#[derive(Clone, Debug)]
pub struct Places {
    pub home: PathBuf,
    pub logs: PathBuf,
    pub runs: PathBuf,
    pub xcoms: PathBuf,
    pub venvs: PathBuf,
}

impl Places {
    pub fn of(config: &Config) -> Self {
        Self {
            home: config.home.clone(),
            logs: config.logging.base_log_folder.clone(),
            runs: config.home.join("runs"),
            xcoms: config.home.join("xcoms"),
            venvs: config.home.join("venvs"),
        }
    }

    /// Its logs, its run_dir and its large XComs.
    pub fn of_run(&self, dag_id: &str, run_id: &str) -> [PathBuf; 3] {
        [
            paths::run_logs(&self.logs, dag_id, run_id),
            paths::run_dir(&self.home, dag_id, run_id),
            paths::run_xcoms(&self.xcoms, dag_id, run_id),
        ]
    }

    /// The same of all runs of a DAG.
    pub fn of_dag(&self, dag_id: &str) -> [PathBuf; 3] {
        [self.logs.join(format!("dag_id={dag_id}")), self.runs.join(dag_id), self.xcoms.join(dag_id)]
    }

    /// What the files of all runs that the database knows take on the disk. What else lies in these folders no run takes with it when it
    /// goes, so it does not count.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn bytes(&self, reader: &Reader) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for dag_id in reader.dag_ids()? {
            // Those that runs may share: names of run_dirs have `_` in place of some characters.
            let mut shared = BTreeSet::new();
            let mut after = None;
            loop {
                let run_ids = reader.run_ids(&dag_id, after.as_ref(), PAGE)?;
                for run_id in &run_ids {
                    let is_made_up = run_id.contains("__");
                    for folder in self.of_run(&dag_id, run_id) {
                        if is_made_up || shared.insert(folder.clone()) {
                            bytes += bytes_below(&folder);
                        }
                    }
                }
                match run_ids.into_iter().last() {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
        Ok(bytes)
    }

    pub fn bytes_of(&self, dag_id: &str, run_id: &str) -> u64 {
        self.of_run(dag_id, run_id).iter().map(|folder| bytes_below(folder)).sum()
    }

    /// Removes the folders of a run. What is not there is no error.
    pub(super) fn remove(&self, reader: &Reader, dag_id: &str, run_id: &str) -> io::Result<()> {
        let [logs, run_dir, xcoms] = self.of_run(dag_id, run_id);
        remove(&logs)?;
        // Names of run_dirs have `_` in place of some characters: another run may share them.
        let is_shared = reader.has_namesake(dag_id, run_id).map_err(|error| io::Error::other(error.to_string()))?;
        if is_shared {
            return Ok(());
        }
        remove(&run_dir)?;
        remove(&xcoms)
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("`{}`: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// What a folder and all below it take on the disk, in bytes; 0 where there is none. Links are not followed, and what vanishes meanwhile
/// or cannot be read does not count.
pub fn bytes_below(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}
