//! From a request to a process, or to a sentence that says why there is none.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::supervisor::protocol::{Refusal, Start};
use crate::supervisor::sys;

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

/// The environment that processes inherit, as `NAME=value`.
pub struct Inherited(Vec<CString>);

impl Inherited {
    pub fn from_this_process() -> Self {
        let entries = std::env::vars_os().filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_vec()).ok()
        });
        Self(entries.collect())
    }
}

/// Starts the process of `start`; its output goes to `log`. Gives its pid.
///
/// # Errors
/// Nothing was started.
pub fn launch(start: &Start, inherited: &Inherited, log: &File) -> Result<i32, NotStarted> {
    let argv = start.argv.iter().map(|text| terminated(text, "an argument")).collect::<Result<Vec<_>, _>>()?;
    let Some(path) = argv.first() else {
        return Err(NotStarted::permanent("there is no program to run".to_owned()));
    };
    let cwd = terminated(&start.cwd, "the folder to run in")?;
    let added = start
        .env
        .iter()
        .map(|(name, value)| terminated(&format!("{name}={value}"), &format!("the environment variable `{name}`")))
        .collect::<Result<Vec<_>, _>>()?;
    let hidden: BTreeSet<&[u8]> =
        start.env.iter().map(|(name, _)| name).chain(&start.env_removed).map(|name| name.as_bytes()).collect();
    let kept = inherited.0.iter().filter(|entry| !hidden.contains(name_of(entry)));
    let env: Vec<&CStr> = kept.chain(&added).map(CString::as_c_str).collect();
    let argv: Vec<&CStr> = argv.iter().map(CString::as_c_str).collect();
    let image = sys::Image { path, argv: &argv, env: &env, cwd: &cwd, output: log.as_fd() };
    sys::spawn(&image).map_err(|error| explain(&error, start, &env))
}

fn name_of(entry: &CStr) -> &[u8] {
    entry.to_bytes().split(|&byte| byte == b'=').next().unwrap_or_default()
}

fn terminated(text: &str, what: &str) -> Result<CString, NotStarted> {
    CString::new(text).map_err(|_| NotStarted::permanent(format!("{what} holds a NUL byte: remove it")))
}

/// Whether the host may grant later what it refuses now.
pub fn kind_of(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ETXTBSY) => Refusal::Transient,
        _ => Refusal::Permanent,
    }
}

/// `posix_spawn` gives one number for the folder and for the program: looks at both to say which it was.
fn explain(error: &io::Error, start: &Start, env: &[&CStr]) -> NotStarted {
    let program = &start.argv[0];
    let kind = kind_of(error);
    let message = match error.raw_os_error() {
        Some(libc::E2BIG) => too_long(start, env),
        Some(libc::EAGAIN) => format!("no process left for `{program}`: raise the limit of processes (ulimit -u)"),
        Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES) if !Path::new(&start.cwd).is_dir() => {
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

fn too_long(start: &Start, env: &[&CStr]) -> String {
    if let Some(at) = start.argv.iter().position(|text| text.len() >= MAX_ENTRY) {
        return format!(
            "argument {at} has {} bytes; Linux takes {} at most: put it in a file",
            start.argv[at].len(),
            MAX_ENTRY - 1
        );
    }
    let longest = env.iter().find(|entry| entry.to_bytes().len() >= MAX_ENTRY);
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
