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
use crate::lack::Lack;
use crate::supervisor::procfs;

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
    let mut file =
        File::options().create(true).read(true).write(true).truncate(false).mode(PRIVATE).open(&path).map_err(
            |error| match Lack::of(&error) {
                Some(lack) => format!("cannot open `{shown}`: {lack}"),
                None => format!("cannot open `{shown}`: {error}; check the modes of the folder"),
            },
        )?;
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
            return Err(held(holder.trim(), &path));
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

/// What is said of who does not let the lock go, and what its user can do: a supervisor whose scheduler is gone lets go at once, unless it
/// stands still.
fn held(holder: &str, path: &Path) -> String {
    let shown = path.display();
    let stat = holder.parse().ok().and_then(procfs::stat).filter(|stat| !stat.has_ended());
    match stat {
        Some(stat) if matches!(stat.state, b'T' | b't') => format!(
            "the earlier supervisor of this home (pid {holder}) is stopped and still holds `{shown}`; `kill -CONT {holder}` has it go on, \
             and its tasks with it"
        ),
        Some(_) => format!(
            "the earlier supervisor of this home (pid {holder}) still holds `{shown}` and does not let go; try again when the host is \
             less busy, or end it with `kill -9 {holder}`: what it still runs is then ended by the next start, and lost"
        ),
        None => format!("another process holds `{shown}`; `fuser {shown}` names it: end it, and start minflow again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_the_lock_is_named_with_what_helps() {
        let path = Path::new("/h/minflow.supervisor");
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let holder = child.id().to_string();
        let living = held(&holder, path);
        assert!(living.contains(&format!("`kill -9 {holder}`")), "{living}");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while procfs::stat(child.id() as i32).unwrap().state != b'T' {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        let stopped = held(&holder, path);
        assert!(stopped.contains(&format!("`kill -CONT {holder}`")), "{stopped}");
        child.kill().unwrap();
        child.wait().unwrap();
        for nobody in [&*holder, ""] {
            assert!(held(nobody, path).contains("`fuser /h/minflow.supervisor`"));
        }
    }
}
