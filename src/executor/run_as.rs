//! What a try needs that runs as another user: who that is, and files that it can reach.
//!
//! The run_dir stays minflow's own, as `/tmp` is root's: the user may write to it, and cannot put anything in the place of minflow's
//! files in it, which minflow writes as root.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use crate::model::Task;
use crate::operators::Fault;
use crate::supervisor::protocol::User;
use crate::supervisor::sys::{self, Account};

/// The group and others: read, write, enter. With the bit that keeps everybody from the files of others.
const OF_GROUP: u32 = 0o1070;
const OF_ALL: u32 = 0o1077;
/// Others may go through a folder, and not see what is in it.
const THROUGH: u32 = 0o011;

/// The user as whom a task runs; None: minflow's own.
pub(super) fn account(task: &Task) -> Result<Option<Account>, Fault> {
    let Some(name) = task.run_as.as_ref().map(|run_as| &*run_as.user) else { return Ok(None) };
    let own = rustix::process::geteuid();
    if !own.is_root() {
        return Err(Fault::Task(format!(
            "`run_as = \"{name}\"` needs a minflow that runs as root, and this one is the user with the number {}: start it as root, or \
             take `run_as` out",
            own.as_raw()
        )));
    }
    match sys::find_user(name) {
        Ok(Some(account)) => Ok(Some(account)),
        Ok(None) => Err(Fault::Task(format!(
            "the user `{name}` of `run_as` does not exist on this host: create it (`useradd {name}`), or correct the name"
        ))),
        Err(error) => Err(Fault::Host(format!("cannot look up the user `{name}` of `run_as`: {error}"))),
    }
}

/// What the user finds in its environment; what the task sets itself wins.
pub(super) fn environment(account: &Account, env: &mut Vec<(String, String)>) {
    let own = [("HOME", &account.home), ("USER", &account.name), ("LOGNAME", &account.name), ("SHELL", &account.shell)];
    for (name, value) in own {
        if !env.iter().any(|(given, _)| given == name) {
            env.push((name.to_owned(), value.clone()));
        }
    }
}

pub(super) fn user(account: Account) -> User {
    User { name: account.name, uid: account.uid, gid: account.gid, groups: account.groups }
}

/// The files of a try.
pub(super) struct Files<'a> {
    pub run_dir: &'a Path,
    pub scratch_folder: &'a Path,
    pub log: &'a Path,
    /// Those that minflow has written.
    pub written: &'a [&'a Path],
    /// Those that the task may write.
    pub answers: &'a [&'a Path],
}

/// Lets the user reach them. The answers are made here, empty: the folder that they lie in is closed to the user.
pub(super) fn share(account: &Account, files: &Files<'_>) -> Result<(), Fault> {
    let give = |path: &Path| {
        let given = chown(path, Some(account.uid), Some(account.gid));
        given.map_err(|error| Fault::of_file("give to the user of `run_as`", path, &error))
    };
    open_folder(files.run_dir, account).map_err(|error| Fault::of_file("open", files.run_dir, &error))?;
    let shut = |error| Fault::of_file("open", files.scratch_folder, &error);
    add_mode(files.scratch_folder, THROUGH).map_err(shut)?;
    for path in files.answers {
        let made = File::options().write(true).create_new(true).mode(0o600).open(path);
        made.map_err(|error| Fault::of_file("make", path, &error))?;
        give(path)?;
    }
    files.written.iter().try_for_each(|path| give(path))?;
    // So that what opens `/dev/stdout` anew may write there, too.
    give(files.log)
}

/// Answers that the task has not written are none.
pub(super) fn drop_unwritten<'a>(answers: impl Iterator<Item = &'a Path>) {
    for path in answers {
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The first user's group gets a folder; where users of several groups share it, all get it.
fn open_folder(folder: &Path, account: &Account) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    if metadata.uid() == account.uid || metadata.mode() & OF_ALL == OF_ALL {
        return Ok(());
    }
    if account.groups.contains(&metadata.gid()) && metadata.mode() & OF_GROUP == OF_GROUP {
        return Ok(());
    }
    if metadata.mode() & OF_GROUP == OF_GROUP {
        return add_mode(folder, OF_ALL);
    }
    chown(folder, None, Some(account.gid))?;
    add_mode(folder, OF_GROUP)
}

fn add_mode(folder: &Path, bits: u32) -> io::Result<()> {
    let mode = fs::metadata(folder)?.mode() & 0o7777;
    if mode & bits == bits { Ok(()) } else { fs::set_permissions(folder, Permissions::from_mode(mode | bits)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dag::Position;
    use crate::model::{Bash, Operator, RunAs, Script, Template};

    fn task(user: &str) -> Task {
        let script = Script::Text(Template { text: "true".to_owned(), at: Position::default() });
        let run_as = RunAs { user: user.to_owned(), at: Position::default() };
        Task { run_as: Some(Box::new(run_as)), ..Task::new("a".into(), Operator::Bash(Bash { script })) }
    }

    #[test]
    fn only_root_runs_tasks_as_others_and_only_as_users_that_exist() {
        let is_root = rustix::process::geteuid().is_root();
        let Err(Fault::Task(reason)) = account(&task("no-such-user-here")) else { panic!("it was found") };
        let expected = if is_root {
            "`no-such-user-here` of `run_as` does not exist"
        } else {
            "needs a minflow that runs as root"
        };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(account(&task("root")).is_ok(), is_root);
        assert_eq!(account(&Task { run_as: None, ..task("") }).unwrap(), None);
    }

    #[test]
    fn the_tasks_own_environment_wins_over_the_users() {
        let account = Account {
            name: "ada".to_owned(),
            uid: 1,
            gid: 1,
            groups: vec![1],
            home: "/home/ada".to_owned(),
            shell: "/bin/zsh".to_owned(),
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut env = vec![pair("HOME", "/srv")];
        environment(&account, &mut env);
        let expected = [pair("HOME", "/srv"), pair("USER", "ada"), pair("LOGNAME", "ada"), pair("SHELL", "/bin/zsh")];
        assert_eq!(env, expected);
    }
}
