//! Sockets that lie in a home: reached however deep the home is, and private from their first moment.
//!
//! Knows no protocol. minflow's own socket and those of supervisors are opened and reached through it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// `sun_path` has 108 bytes, and the last one is zero.
const MAX_SOCKET_PATH: usize = 107;

/// A path of a socket in a home that fits into a socket address, however deep the home is.
#[derive(Debug)]
pub struct SocketPath {
    pub path: PathBuf,
    /// Keeps `/proc/self/fd/N` alive as long as the path is in use.
    _folder: Option<OwnedFd>,
}

impl SocketPath {
    /// # Errors
    /// The home cannot be opened.
    pub fn new(home: &Path, name: &str) -> io::Result<Self> {
        let path = home.join(name);
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self { path, _folder: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(home, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// Listens at `HOME/NAME`, mode 0600. Binds under another name, sets the mode, then renames: whoever finds the socket finds it private
/// and listening. A socket that lies there is a dead process's, and is replaced.
///
/// # Errors
/// The home cannot hold a socket, or the name is taken by a file that is none (`AlreadyExists`).
pub fn listen(home: &Path, name: &str) -> io::Result<UnixListener> {
    let fresh_name = format!("{name}.new");
    let (path, fresh_path) = (home.join(name), home.join(&fresh_name));
    for taken in [&path, &fresh_path] {
        match std::fs::symlink_metadata(taken) {
            Ok(found) if !found.file_type().is_socket() => {
                let message = format!("`{}` is there and is no socket", taken.display());
                return Err(io::Error::new(ErrorKind::AlreadyExists, message));
            }
            Ok(_) => std::fs::remove_file(taken)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let fresh = SocketPath::new(home, &fresh_name)?;
    let listener = UnixListener::bind(&fresh.path)?;
    std::fs::set_permissions(&fresh_path, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh_path, &path)?;
    Ok(listener)
}
