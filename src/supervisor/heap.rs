//! Keeps glibc's allocator from hoarding: no thread keeps freed memory for itself alone.
//!
//! By default each thread keeps up to seven freed pieces of each of 64 sizes. It meets the rarer sizes late, so that memory creeps up
//! for hours in which the same work comes again and again. Only the environment turns that off, and it is read before the program
//! begins: so `minflow run` executes itself once more. The supervisor inherits the setting; the tasks do not. Knows no other setting.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable that the allocator reads.
pub const VARIABLE: &str = "GLIBC_TUNABLES";

/// What is said to turn it off, whatever the value.
const SETTING: &[u8] = b"glibc.malloc.tcache_count=";

/// A zero that nobody else writes so: it tells what was added from what a user has set.
const OURS: &[u8] = b"glibc.malloc.tcache_count=0x0";

/// Executes this program once more, with the same arguments, if its threads would keep freed memory for themselves. It comes back if
/// they do not, or if a user has settled it; also if it fails, since all works as well with some more memory. To be called before
/// anything is opened or started.
pub fn share_freed_memory() {
    if !cfg!(target_env = "gnu") {
        return;
    }
    let mut arguments = env::args_os();
    if let (Some(value), Some(name), Ok(exe)) = (extended(env::var_os(VARIABLE)), arguments.next(), env::current_exe())
    {
        let _ = Command::new(exe).arg0(name).args(arguments).env(VARIABLE, value).exec();
    }
}

/// The variable with our setting behind what a user has given. None: it says already how much is kept.
fn extended(given: Option<OsString>) -> Option<OsString> {
    let mut value = given.unwrap_or_default().into_vec();
    if value.windows(SETTING.len()).any(|part| part == SETTING) {
        return None;
    }
    if !value.is_empty() {
        value.push(b':');
    }
    value.extend_from_slice(OURS);
    Some(OsString::from_vec(value))
}

/// What a user has given of `value`; None: nothing.
pub fn given(value: &OsStr) -> Option<OsString> {
    let Some(given) = value.as_bytes().strip_suffix(OURS) else { return Some(value.to_owned()) };
    let given = given.strip_suffix(b":")?;
    Some(OsString::from_vec(given.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_has_given_is_told_from_what_was_added() {
        for (user, added) in [
            (None, "glibc.malloc.tcache_count=0x0"),
            (Some("glibc.malloc.check=3"), "glibc.malloc.check=3:glibc.malloc.tcache_count=0x0"),
        ] {
            let value = extended(user.map(OsString::from)).unwrap();
            assert_eq!(value, added);
            assert_eq!(given(&value).as_deref(), user.map(OsStr::new));
            assert_eq!(extended(Some(value)), None, "it would be executed again and again");
        }
    }

    #[test]
    fn a_users_own_setting_stays_as_it_is() {
        let own = OsString::from("glibc.malloc.tcache_count=0");
        assert_eq!(extended(Some(own.clone())), None);
        assert_eq!(given(&own), Some(own));
    }
}
