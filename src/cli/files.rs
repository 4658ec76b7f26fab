//! The DAG files below a folder, and their bytes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::dagfile::MAX_BYTES;

/// Every `*.toml` below `folder`, in sub-folders too, relative to it and in order. Hidden files and folders are left out.
/// A folder that cannot be read has none.
pub fn dag_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let here = folder.join(&below);
        // A symbolic link may lead back up.
        let is_new = here.canonicalize().is_ok_and(|real| seen.insert(real));
        let Some(entries) = is_new.then(|| fs::read_dir(&here).ok()).flatten() else { continue };
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if path.is_dir() {
                open.push(below.join(name));
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                found.insert(below.join(name));
            }
        }
    }
    found.into_iter().collect()
}

/// The bytes of a DAG file; of one that is too long, enough to see that it is.
///
/// # Errors
/// Code, message and help of the fault.
pub fn read(path: &Path) -> Result<Vec<u8>, (&'static str, String, &'static str)> {
    let fault = |error: std::io::Error| {
        let help = match error.kind() {
            ErrorKind::NotFound => "check the path",
            ErrorKind::PermissionDenied => "make it readable for this user",
            _ => "see whether it is a regular file on a healthy disk",
        };
        ("unreadable", format!("it cannot be read: {error}"), help)
    };
    if !fs::metadata(path).map_err(fault)?.is_file() {
        return Err(("unreadable", "it is no regular file".to_owned(), "name a file"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(fault)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(fault)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dag_files_are_found_in_sub_folders_and_links_that_lead_back_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etl/deep")).unwrap();
        fs::create_dir_all(folder.path().join(".git")).unwrap();
        for name in ["b.toml", "etl/deep/a.toml", ".git/c.toml", ".d.toml", "e.toml~", "f.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("etl/up")).unwrap();
        assert_eq!(dag_files(folder.path()), [PathBuf::from("b.toml"), PathBuf::from("etl/deep/a.toml")]);
    }
}
