//! Old logs become smaller: `attempt=1.log` becomes `attempt=1.log.gz`, which every host can read (`zless`).
//!
//! The compressed file is written beside the log, is on the disk before it gets its name, and only then the log goes: whoever looks finds one
//! of the two whole. A crash leaves both, of which the log counts, or a file without a name, which the next round replaces.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::executor::paths;
use crate::keep::Places;
use crate::scheduler::StoreError;
use crate::store::Reader;

/// Compresses the logs that nobody has written to for `age`, without those of runs that are not over. Answers how many.
///
/// # Errors
/// The database cannot be read. A log that cannot be compressed stays as it is, and is said.
pub fn compress(
    reader: &Reader,
    places: &Places,
    age: Duration,
    goes_on: &dyn Fn() -> bool,
) -> Result<usize, StoreError> {
    let alive: BTreeSet<PathBuf> =
        reader.unfinished()?.iter().map(|(dag_id, run_id)| paths::run_logs(&places.logs, dag_id, run_id)).collect();
    let Some(before) = SystemTime::now().checked_sub(age) else { return Ok(0) };
    let mut count = 0;
    for dag in folders_in(&places.logs, "dag_id=") {
        for run in folders_in(&dag, "run_id=") {
            if alive.contains(&run) {
                continue;
            }
            for log in old_logs(&run, before) {
                if !goes_on() {
                    return Ok(count);
                }
                match shrink(&log) {
                    Ok(()) => count += 1,
                    Err(error) => log::warn!("`{}` cannot be compressed: {error}", log.display()),
                }
            }
        }
    }
    Ok(count)
}

fn folders_in(folder: &Path, head: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_one = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(head);
    entries.filter(is_one).map(|entry| entry.path()).collect()
}

/// The logs below a folder that were written to last before an instant.
fn old_logs(folder: &Path, before: SystemTime) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, Ok(about)) = (entry.path(), entry.metadata()) else { continue };
            if about.is_dir() {
                folders.push(path);
            } else if about.is_file()
                && path.extension().is_some_and(|extension| extension == "log")
                && about.modified().is_ok_and(|modified| modified < before)
            {
                found.push(path);
            }
        }
    }
    found
}

fn shrink(log: &Path) -> io::Result<()> {
    let (part, whole) = (paths::compressed(log).with_extension("gz.part"), paths::compressed(log));
    let mut from = File::open(log)?;
    let about = from.metadata()?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    let mut encoder = GzEncoder::new(BufWriter::new(file), Compression::default());
    let copied = io::copy(&mut from, &mut encoder)
        .and_then(|_| encoder.finish())
        .and_then(|mut file| file.flush().and_then(|()| file.into_inner().map_err(io::IntoInnerError::into_error)));
    let file = match copied {
        Ok(file) => file,
        Err(error) => {
            let _ = fs::remove_file(&part);
            return Err(error);
        }
    };
    file.set_permissions(about.permissions())?;
    file.set_modified(about.modified()?)?;
    file.sync_all()?;
    fs::rename(&part, &whole)?;
    if let Some(folder) = whole.parent() {
        File::open(folder)?.sync_all()?;
    }
    fs::remove_file(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::log_file;
    use std::io::Read;

    #[test]
    fn a_log_is_replaced_by_a_file_that_reads_the_same_and_keeps_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("attempt=1.log");
        let text = "the same line again\n".repeat(10_000);
        fs::write(&log, &text).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(86_400 * 30);
        File::options().write(true).open(&log).unwrap().set_modified(long_ago).unwrap();
        // What a crash has left of an earlier attempt, and of one that came as far as both files.
        fs::write(folder.path().join("attempt=1.log.gz.part"), "half").unwrap();
        fs::write(folder.path().join("attempt=1.log.gz"), "half").unwrap();
        assert_eq!(old_logs(folder.path(), SystemTime::now()), std::slice::from_ref(&log));
        shrink(&log).unwrap();
        assert!(!log.exists() && !folder.path().join("attempt=1.log.gz.part").exists());
        let compressed = folder.path().join("attempt=1.log.gz");
        let about = compressed.metadata().unwrap();
        assert!(about.len() < 2_000 && about.modified().unwrap() == long_ago, "{about:?}");
        let mut read = String::new();
        let log_file::Opened::Compressed(mut packed) = log_file::open(&log).unwrap() else { panic!() };
        packed.read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
        assert_eq!(old_logs(folder.path(), SystemTime::now()), [""; 0].map(PathBuf::from));
    }
}
