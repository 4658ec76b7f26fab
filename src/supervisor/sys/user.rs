//! Users of the host, as its C library knows them: from `/etc/passwd` and whatever else it asks.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::ptr;

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Those of the user, `gid` among them.
    pub groups: Vec<u32>,
    pub home: String,
    pub shell: String,
}

/// The most bytes of an entry, and the most groups.
const MOST: usize = 1 << 20;

/// Looks a user up. It may take long where users come from a network.
///
/// # Errors
/// Whom the C library asks does not answer.
pub fn find_user(name: &str) -> io::Result<Option<Account>> {
    let Ok(wanted) = CString::new(name) else { return Ok(None) };
    let mut buffer: Vec<c_char> = vec![0; 1024];
    let (uid, gid, home, shell) = loop {
        // SAFETY: plain memory which `getpwnam_r` fills.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: all of it is valid for writes, the buffer for as many as are named.
        let error =
            unsafe { libc::getpwnam_r(wanted.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
        match error {
            libc::ERANGE if buffer.len() < MOST => buffer.resize(buffer.len() * 4, 0),
            // So some libraries say that there is none.
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM if found.is_null() => return Ok(None),
            0 => break (entry.pw_uid, entry.pw_gid, text(entry.pw_dir), text(entry.pw_shell)),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    };
    Ok(Some(Account { name: name.to_owned(), uid, gid, groups: groups_of(&wanted, gid)?, home, shell }))
}

fn groups_of(name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = groups.len() as c_int;
        // SAFETY: the list is valid for as many writes as are named.
        let given = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
        if given >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or_default());
            return Ok(groups);
        }
        if groups.len() >= MOST {
            return Err(io::Error::other("it is in too many groups"));
        }
        groups.resize(groups.len() * 4, 0);
    }
}

fn text(of_entry: *const c_char) -> String {
    if of_entry.is_null() {
        return String::new();
    }
    // SAFETY: it points into the buffer of the entry, which is alive, and ends with a zero.
    unsafe { CStr::from_ptr(of_entry) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_nobody_else_by_that_name() {
        let root = find_user("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid, &*root.home), (0, 0, "/root"));
        assert!(root.groups.contains(&0), "{root:?}");
        assert_eq!(find_user("no-such-user-here").unwrap(), None);
        assert_eq!(find_user("ro\0ot").unwrap(), None);
        assert_eq!(find_user("").unwrap(), None);
    }
}
