//! From a request to a process, or to a sentence that says why there is none.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::lack::Lack;
use crate::supervisor::limits::{self, Plan};
use crate::supervisor::protocol::{Refusal, Start, Tree, User};
use crate::supervisor::{cgroup, heap, sys};

/// Linux holds one argument or environment entry to 32 pages, its ending NUL included (MAX_ARG_STRLEN).
const MAX_ENTRY: usize = 32 * 4096;

/// Why nothing was started.
#[derive(Debug, PartialEq, Eq)]
pub struct NotStarted {
    pub kind: Refusal,
    pub message: String,
}

impl NotStarted {
    fn permanent(message: String) -> Self {
        Self { kind: Refusal::Permanent, message }
    }
}

/// The environment that processes inherit.
pub struct Inherited {
    /// `NAME=value`.
    entries: Arc<[CString]>,
    /// Their places, by name.
    places: BTreeMap<Vec<u8>, usize>,
}

impl Inherited {
    pub fn from_this_process() -> Self {
        let entries = std::env::vars_os().filter_map(|(mut name, value)| {
            if name == cgroup::VARIABLE {
                return None;
            }
            let value = if name == heap::VARIABLE { heap::given(&value)? } else { value };
            name.push("=");
            name.push(value);
            CString::new(name.into_vec()).ok()
        });
        let (mut kept, mut places) = (Vec::new(), BTreeMap::new());
        for entry in entries {
            // Of two with the same name, programs see the first.
            if let Entry::Vacant(place) = places.entry(name_of(&entry).to_owned()) {
                place.insert(kept.len());
                kept.push(entry);
            }
        }
        Self { entries: kept.into(), places }
    }

    /// The places of those that a start replaces or takes away, in order.
    fn hidden(&self, start: &Start) -> Vec<usize> {
        let names = start.env.iter().map(|(name, _)| name).chain(&start.env_removed);
        let mut hidden: Vec<usize> = names.filter_map(|name| self.places.get(name.as_bytes())).copied().collect();
        hidden.sort_unstable();
        hidden
    }
}

/// A process that may not have executed its program yet.
pub struct Launching {
    launch: sys::Launch,
    start: Box<Start>,
}

impl Launching {
    /// 0: its subreaper has not made it yet.
    pub fn pid(&self) -> i32 {
        self.launch.pid()
    }

    /// See [`sys::Launch::take_reaper`].
    pub fn take_reaper(&mut self) -> Option<sys::Reaper> {
        self.launch.take_reaper()
    }

    /// None while nobody knows; an error once it has given up, and ends.
    pub fn outcome(&self) -> Option<Result<(), NotStarted>> {
        let outcome = self.launch.outcome()?;
        Some(outcome.map_err(|error| explain(&error, self.launch.step(), &self.start, self.launch.image())))
    }

    /// For the log: the settings that the host refused when the process tried them.
    pub fn refused(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.launch.refused().filter_map(limits::refused)
    }
}

/// Starts the process of `start`; its output goes to `log`.
///
/// # Errors
/// Nothing was started.
pub fn launch(start: Box<Start>, inherited: &Inherited, log: &File, plan: &mut Plan) -> Result<Launching, NotStarted> {
    if start.argv.is_empty() {
        return Err(NotStarted::permanent("there is no program to run".to_owned()));
    }
    let argv = start.argv.iter().map(|text| terminated(text.as_str(), || "an argument".to_owned()));
    let added = start
        .env
        .iter()
        .map(|(name, value)| terminated([name, "=", value].concat(), || format!("the environment variable `{name}`")));
    let input =
        start.stdin.as_ref().map(|path| File::open(path).map_err(|error| unreadable(path, &error))).transpose()?;
    let image = sys::Image {
        argv: argv.collect::<Result<_, _>>()?,
        hidden: inherited.hidden(&start),
        inherited: inherited.entries.clone(),
        added: added.collect::<Result<_, _>>()?,
        cwd: terminated(start.cwd.as_str(), || "the folder to run in".to_owned())?,
        input: input.as_ref().map(File::as_raw_fd),
        output: log.as_raw_fd(),
        settings: plan.settings.take(),
        group: plan.guard.as_ref().and_then(|guard| guard.group()).map(|group| group.entrance().as_raw_fd()),
        has_reaper: start.tree == Tree::Strict && plan.guard.as_ref().is_none_or(|guard| guard.group().is_none()),
    };
    match sys::Launch::begin(image) {
        Ok(launch) => Ok(Launching { launch, start }),
        Err(error) => {
            let program = &start.argv[0];
            let message = refused(program, &error);
            let message = message.unwrap_or_else(|| format!("cannot make a process for `{program}`: {error}"));
            Err(NotStarted { kind: kind_of(&error), message })
        }
    }
}

fn name_of(entry: &CStr) -> &[u8] {
    entry.to_bytes().split(|&byte| byte == b'=').next().unwrap_or_default()
}

fn terminated(text: impl Into<Vec<u8>>, what: impl FnOnce() -> String) -> Result<CString, NotStarted> {
    CString::new(text).map_err(|_| NotStarted::permanent(format!("{} holds a NUL byte: remove it", what())))
}

/// Whether the host may grant later what it refuses now.
pub fn kind_of(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ETXTBSY) => Refusal::Transient,
        _ => Refusal::Permanent,
    }
}

fn explain(error: &io::Error, step: sys::Step, start: &Start, image: &sys::Image) -> NotStarted {
    let program = &start.argv[0];
    let kind = kind_of(error);
    let user = start.user.as_ref();
    if let Some(what) = limits::stopped(step) {
        let message = format!("{what}: {error}; write `enforce = \"prefer\"` to run it all the same");
        return NotStarted { kind, message };
    }
    if let Some(message) = refused(program, error) {
        return NotStarted { kind, message };
    }
    if let (sys::Step::User, Some(user)) = (step, user) {
        let message = format!("cannot become the user `{}` of `run_as`: {error}; minflow must run as root", user.name);
        return NotStarted { kind, message };
    }
    if let (sys::Step::Folder, Some(user), Some(libc::EACCES)) = (step, user, error.raw_os_error()) {
        return NotStarted { kind, message: closed_folder(&start.cwd, user) };
    }
    let message = match error.raw_os_error() {
        Some(libc::E2BIG) => too_long(start, image),
        Some(_) if step == sys::Step::Folder => {
            format!("cannot enter the folder `{}`: create it, or correct `cwd`", start.cwd)
        }
        Some(libc::ENOENT) if Path::new(program).exists() => {
            format!("the interpreter named in the first line of `{program}` does not exist: correct that line")
        }
        Some(libc::ENOENT) => format!("`{program}` does not exist: install it, or correct the task"),
        Some(libc::EACCES) => format!("not allowed to run `{program}` in `{}`: check their modes", start.cwd),
        Some(libc::ENOEXEC) => format!("`{program}` is not a program for this host: check what it is"),
        _ => format!("cannot start `{program}`: {error}"),
    };
    NotStarted { kind, message }
}

/// Names the folder that keeps a user out.
fn closed_folder(cwd: &str, user: &User) -> String {
    let path = Path::new(cwd);
    let above: Vec<&Path> = path.ancestors().collect();
    let closed = above.into_iter().rev().find(|folder| {
        fs::metadata(folder).is_ok_and(|metadata| {
            let by = match metadata.uid() == user.uid {
                true => 0o100,
                false if user.groups.contains(&metadata.gid()) => 0o010,
                false => 0o001,
            };
            metadata.mode() & by == 0
        })
    });
    let closed = closed.unwrap_or(path).display();
    format!(
        "the user `{}` of `run_as` cannot enter the folder `{cwd}`, as `{closed}` is closed to it: open that (`chmod o+x {closed}`), or \
         set `cwd` to a folder of that user's",
        user.name
    )
}

fn unreadable(path: &str, error: &io::Error) -> NotStarted {
    let message = match Lack::of(error) {
        Some(lack) => format!("cannot read the task's input `{path}`: {lack}"),
        None => format!("cannot read the task's input `{path}`: {error}; clear the task to write it anew"),
    };
    NotStarted { kind: kind_of(error), message }
}

/// What the host lacks for it; None: something else is wrong.
fn refused(program: &str, error: &io::Error) -> Option<String> {
    let lack = Lack::of_process(error)?;
    Some(match lack {
        Lack::Processes => format!("no process left for `{program}`: {}", lack.remedy()),
        _ => format!("cannot start `{program}`: {lack}"),
    })
}

fn too_long(start: &Start, image: &sys::Image) -> String {
    if let Some(at) = start.argv.iter().position(|text| text.len() >= MAX_ENTRY) {
        return format!(
            "argument {at} has {} bytes; Linux takes {} at most: put it in a file",
            start.argv[at].len(),
            MAX_ENTRY - 1
        );
    }
    let longest = image.env().find(|entry| entry.to_bytes().len() >= MAX_ENTRY);
    if let Some(entry) = longest {
        let name = String::from_utf8_lossy(name_of(entry)).into_owned();
        return format!(
            "the environment variable `{name}` has {} bytes with its name; Linux takes {} at most: put its value in a file",
            entry.to_bytes().len(),
            MAX_ENTRY - 1
        );
    }
    "arguments and environment are together too long for Linux: put the longest in a file".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_lacks_just_now_is_refused_for_now_and_what_is_wrong_for_good() {
        let kind = |number| kind_of(&io::Error::from_raw_os_error(number));
        for lack in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ETXTBSY] {
            assert_eq!(kind(lack), Refusal::Transient, "{lack}");
        }
        for fault in [libc::ENOENT, libc::EACCES, libc::EPERM, libc::ENOEXEC, libc::ENOTDIR, libc::ELOOP, libc::E2BIG] {
            assert_eq!(kind(fault), Refusal::Permanent, "{fault}");
        }
    }
}
