//! Files that have a name when they are whole, and not before: whatever ends this process, nothing of them is left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// A file that is being written.
pub struct Draft {
    file: File,
    path: PathBuf,
    /// Its name until then, on a file system that has none without. Of a process that is killed it stays, and the next one takes it up.
    part: Option<PathBuf>,
}

impl Draft {
    /// Of the file (mode 0600) that is to be `path`.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unnamed =
            rustix::fs::open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        if let Ok(file) = unnamed {
            return Ok(Self { file: file.into(), path: path.to_owned(), part: None });
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let mut how = OpenOptions::new();
        how.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        Ok(Self { file: how.open(&part)?, path: path.to_owned(), part: Some(part) })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, unless something is there.
    fn settle(&self) -> io::Result<()> {
        let Some(part) = &self.part else {
            let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            return Ok(rustix::fs::linkat(CWD, open, CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?);
        };
        match fs::hard_link(part, &self.path) {
            // A file system without links.
            Err(error) if error.kind() != ErrorKind::AlreadyExists && !self.path.exists() => {
                fs::rename(part, &self.path)
            }
            linked => linked,
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let _ = fs::remove_file(part);
        }
    }
}

/// Gives all of them their names, or none.
pub fn publish(drafts: Vec<Draft>) -> Result<(), (PathBuf, io::Error)> {
    for (at, draft) in drafts.iter().enumerate() {
        if let Err(error) = draft.settle() {
            for settled in &drafts[..at] {
                let _ = fs::remove_file(&settled.path);
            }
            return Err((draft.path.clone(), error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn drafts_have_no_name_until_all_are_whole_and_none_if_one_finds_its_own_taken() {
        let folder = tempfile::tempdir().unwrap();
        let begin = |name: &str| {
            let draft = Draft::begin(&folder.path().join(name)).unwrap();
            draft.file().write_all(name.as_bytes()).unwrap();
            draft
        };
        drop(begin("given up"));
        let drafts = vec![begin("a"), begin("b"), begin("c")];
        fs::write(folder.path().join("b"), "of somebody else").unwrap();
        let (path, error) = publish(drafts).unwrap_err();
        assert_eq!((path, error.kind()), (folder.path().join("b"), ErrorKind::AlreadyExists));
        assert_eq!(names(folder.path()), ["b"]);
        fs::remove_file(folder.path().join("b")).unwrap();
        publish(vec![begin("a"), begin("b")]).unwrap();
        assert_eq!(names(folder.path()), ["a", "b"]);
        assert_eq!(fs::read_to_string(folder.path().join("b")).unwrap(), "b");
    }

    #[test]
    fn where_no_file_can_be_without_a_name_it_has_another_one_until_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let named = |name: &str| {
            let (path, part) = (folder.path().join(name), folder.path().join(format!("{name}.part")));
            Draft { file: File::create(&part).unwrap(), path, part: Some(part) }
        };
        drop(named("given up"));
        assert_eq!(names(folder.path()), [""; 0]);
        publish(vec![named("a"), named("b")]).unwrap();
        assert_eq!(names(folder.path()), ["a", "b"]);
        assert_eq!(publish(vec![named("c"), named("a")]).unwrap_err().1.kind(), ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()), ["a", "b"]);
    }
}
