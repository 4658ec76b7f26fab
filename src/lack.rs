//! What a host lacks when it refuses something, and how it gets more of it.
//!
//! Knows the system's errors, and who met them only as far as an error means different things to different callers.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::fs::statvfs;

/// Something of which a host has none left, or grants none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Of this process.
    Descriptors,
    /// Of all processes together.
    Files,
    Processes,
    Memory,
    Disk,
    FileSize,
}

impl Lack {
    /// Of what an act on a file has met.
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            libc::EMFILE => Some(Self::Descriptors),
            libc::ENFILE => Some(Self::Files),
            libc::ENOMEM => Some(Self::Memory),
            libc::ENOSPC | libc::EDQUOT => Some(Self::Disk),
            libc::EFBIG => Some(Self::FileSize),
            _ => None,
        }
    }

    /// Of what the making of a process or a thread has met.
    pub fn of_process(error: &io::Error) -> Option<Self> {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Some(Self::Processes),
            _ => Self::of(error),
        }
    }

    /// Of an error that tells no number, about a file in `folder`: what is lacking there at this moment.
    pub fn now(folder: &Path) -> Option<Self> {
        match statvfs(folder) {
            Ok(disk) if disk.f_bavail == 0 || (disk.f_files > 0 && disk.f_favail == 0) => Some(Self::Disk),
            _ => std::fs::File::open(folder).err().and_then(|error| Self::of(&error)),
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Descriptors => "raise the limit (ulimit -n)",
            Self::Files => "raise the limit of all processes together (sysctl fs.file-max)",
            Self::Processes => {
                "raise the limit of processes (ulimit -u), or that of the cgroup (pids.max; TasksMax in a systemd unit)"
            }
            Self::Memory => "free some, or run fewer tasks at once (core.parallelism)",
            Self::Disk => "make room (df and df -i show where)",
            Self::FileSize => "raise it (ulimit -f)",
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Descriptors => "no file descriptors left",
            Self::Files => "no file descriptors left on this host",
            Self::Processes => "no process left",
            Self::Memory => "no memory left",
            Self::Disk => "the disk is full",
            Self::FileSize => "the limit of file sizes is reached",
        };
        write!(f, "{what}; {}", self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_a_lack_names_its_own_limit() {
        let of = |number| Lack::of_process(&io::Error::from_raw_os_error(number)).map(|lack| lack.to_string());
        let table = [
            (libc::EMFILE, "ulimit -n"),
            (libc::ENFILE, "fs.file-max"),
            (libc::EAGAIN, "ulimit -u"),
            (libc::EAGAIN, "pids.max"),
            (libc::ENOMEM, "memory"),
            (libc::ENOSPC, "df -i"),
            (libc::EDQUOT, "make room"),
            (libc::EFBIG, "ulimit -f"),
        ];
        for (number, words) in table {
            assert!(of(number).is_some_and(|said| said.contains(words)), "{:?}", of(number));
        }
        assert_eq!(of(libc::ENOENT), None);
        assert_eq!(Lack::of(&io::Error::from_raw_os_error(libc::EAGAIN)), None, "a file's is no lack of processes");
    }
}
