//! One supervisor to a home: the file that the one holds which still accepts starts.
//!
//! Knows no try and no message. Called by the server when it is greeted.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::time::Timespec;

use crate::clock::{Clock, SystemClock};

const LOCK_FILE: &str = "minflow.supervisor";
/// Its mode: who may read a file may lock it, and so keep minflow from starting.
const PRIVATE: u32 = 0o600;
/// How long a new supervisor waits until the earlier one accepts nothing more.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Takes the home's lock on starting processes, and waits for an earlier supervisor that has not noticed yet that its scheduler
/// is gone. Gives up when its own scheduler does.
///
/// # Errors
/// What prevented it, and what to do; the lock is not held.
pub(super) fn take(home: &Path, socket: &UnixStream) -> Result<File, String> {
    let path = home.join(LOCK_FILE);
    let shown = path.display();
    let mut file = File::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(&path)
        .map_err(|error| format!("cannot open `{shown}`: {error}; check the modes of the folder"))?;
    // An earlier minflow left it open to all.
    let _ = file.set_permissions(std::fs::Permissions::from_mode(PRIVATE));
    let begun = SystemClock.boot();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            // A file system without locks: its home is not protected against an old supervisor, but works.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOLCK) => return Ok(file),
            Err(_) => {}
        }
        if SystemClock.boot().since(begun) > LOCK_WAIT {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(format!(
                "an earlier supervisor of this home (pid {}) still holds `{shown}`: see what it waits for, or end it",
                holder.trim()
            ));
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let gone = poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::HUP)], Some(&pause));
        if gone.is_ok_and(|count| count > 0) {
            return Err("the scheduler is gone".to_owned());
        }
    }
    // In one write of a fixed length, so that whoever reads it finds a number at any moment.
    let holder = format!("{:<10}\n", std::process::id());
    let _ = file.write_all_at(holder.as_bytes(), 0).and_then(|()| file.set_len(holder.len() as u64));
    Ok(file)
}
