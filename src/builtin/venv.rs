//! Python with packages of its own: makes the virtual environment that a task asks for, unless it is there, and becomes its Python.
//!
//! Tasks that ask for the same share one: its folder is named by what was asked for. It is made where it stays, since the programs
//! in its `bin` know their folder; the file `complete` is written last, and without it what is there counts for nothing. Who makes
//! one holds a lock, which the kernel takes back from those that are killed; who uses one shares it to its end, and leaves its name there,
//! so that `keep::venvs` knows what nobody needs. `operators::python` writes its tasks.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};
use sha1_smol::Sha1;

use crate::builtin::{Failed, Finality, Verdict};

/// What to do; all of it is rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VenvTask {
    /// The folder of all virtual environments.
    pub venvs: PathBuf,
    /// Where relative paths among the requirements begin.
    pub folder: PathBuf,
    /// The Python that it is made of.
    pub interpreter: String,
    pub requirements: Asked,
    /// What its Python is given.
    pub argv: Vec<String>,
    /// Where the reason of a failure goes.
    pub verdict: PathBuf,
}

/// What a virtual environment is to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// Lines of a requirements file.
    Lines(Vec<String>),
    /// Such a file.
    File(PathBuf),
}

/// Written when all is there.
pub const COMPLETE: &str = "complete";
/// The folder in it with a file for each task that has used it, written to each time.
pub const USERS: &str = "users";
/// Requirements files may name others.
const MOST_FILES: usize = 100;
/// A package is source, which has no more files.
const MOST_ENTRIES: usize = 20_000;
/// The longest part of an installer's complaint that becomes the reason, in characters.
const MAX_REASON: usize = 400;

/// Becomes the Python of the virtual environment; returns only if it cannot.
///
/// # Errors
/// There is no such Python, it cannot make virtual environments, a package cannot be had.
pub fn run(task: &VenvTask) -> Result<(), Failed> {
    // It is asked from other folders than the task's.
    let interpreter = std::path::absolute(&task.interpreter)
        .map_or_else(|_| task.interpreter.clone(), |path| path.to_string_lossy().into_owned());
    let task = &VenvTask { interpreter, ..task.clone() };
    let failed = become_python(task).err().unwrap_or_else(|| Failed("its Python did not start".to_owned()));
    Verdict::failed(failed.0.clone(), Finality::Open).leave(&task.verdict)?;
    Err(failed)
}

fn become_python(task: &VenvTask) -> Result<(), Failed> {
    let venv = task.venvs.join(identity(task)?);
    let held = loop {
        let held = hold(&venv);
        if is_complete(&venv) {
            break held;
        }
        drop(held);
        make(task, &venv)?;
        if !is_complete(&venv) {
            return Err(Failed(format!("`{}` was made and has no Python: look at the log", venv.display())));
        }
    };
    let variable = |name: &str| std::env::var(name).ok();
    let user = variable("MINFLOW_DAG_ID").zip(variable("MINFLOW_TASK_ID"));
    note_use(&venv, user.as_ref().map(|(dag_id, task_id)| (&**dag_id, &**task_id)));
    let bin = venv.join("bin");
    let mut path = bin.clone().into_os_string();
    if let Some(others) = std::env::var_os("PATH") {
        path.push(OsString::from(":"));
        path.push(others);
    }
    let mut python = Command::new(bin.join("python"));
    python.args(&task.argv).env("VIRTUAL_ENV", &venv).env("PATH", path).env_remove("PYTHONHOME").stdin(Stdio::null());
    if let Some(held) = &held {
        // What becomes of this process has it, and what that starts: it is in use until all of them have ended.
        let _ = fcntl_setfd(held, FdFlags::empty());
    }
    let error = python.exec();
    Err(Failed(format!("`{}` cannot be started: {error}; remove `{}`", bin.join("python").display(), venv.display())))
}

/// The file by which it is locked.
pub fn lock_of(venv: &Path) -> PathBuf {
    venv.with_extension("lock")
}

/// Says that somebody uses it, until what is given is dropped; waits for who makes or removes it. None: the folder takes no file, as that
/// of another user.
pub fn hold(venv: &Path) -> Option<File> {
    loop {
        let lock = File::options().create(true).truncate(false).write(true).open(lock_of(venv)).ok()?;
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => {
                println!("waits for who makes the same virtual environment, {}", venv.display());
                flock(&lock, FlockOperation::LockShared).ok()?;
            }
            locked => locked.ok()?,
        }
        if is_at(&lock, &lock_of(venv)) {
            return Some(lock);
        }
    }
}

/// Whether it still is what lies there: who has removed a virtual environment has removed its lock as well.
fn is_at(lock: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    lock.metadata().ok().map(identity) == fs::metadata(path).ok().map(identity)
}

/// Notes who uses it, and when. One that cannot be written is another user's, who looks after it.
pub fn note_use(venv: &Path, user: Option<(&str, &str)>) {
    let Some((dag_id, task_id)) = user else { return };
    let text = format!("{dag_id}\n{task_id}\n");
    let mut hash = Sha1::new();
    hash.update(text.as_bytes());
    let users = venv.join(USERS);
    let _ = fs::create_dir(&users);
    let _ = fs::write(users.join(hash.digest().to_string()), text);
}

/// A Python that has been removed from the host leaves a link to nothing.
fn is_complete(venv: &Path) -> bool {
    venv.join(COMPLETE).exists() && venv.join("bin/python").exists()
}

fn make(task: &VenvTask, venv: &Path) -> Result<(), Failed> {
    fs::create_dir_all(&task.venvs).map_err(|error| of_file("create", &task.venvs, &error))?;
    let path = lock_of(venv);
    let lock = loop {
        let lock = File::create(&path).map_err(|error| of_file("create", &path, &error))?;
        let locked = match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                println!("waits for another task that makes the same virtual environment, {}", venv.display());
                flock(&lock, FlockOperation::LockExclusive)
            }
            locked => locked,
        };
        locked.map_err(|error| of_file("lock", &path, &error.into()))?;
        if is_at(&lock, &path) {
            break lock;
        }
    };
    if is_complete(venv) {
        return Ok(());
    }
    match fs::remove_dir_all(venv) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(of_file("remove", venv, &error)),
        _ => {}
    }
    println!("makes the virtual environment {} of {}", venv.display(), task.interpreter);
    fill(task, venv)?;
    let complete = venv.join(COMPLETE);
    let written = fs::write(&complete, "").map_err(|error| of_file("write", &complete, &error));
    drop(lock);
    written
}

/// By uv if the host has it, which is many times as fast.
fn fill(task: &VenvTask, venv: &Path) -> Result<(), Failed> {
    let is_empty = matches!(&task.requirements, Asked::Lines(lines) if lines.is_empty());
    let asked =
        Command::new("uv").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has_uv = asked.is_ok_and(|status| status.success());
    let mut command = if has_uv { Command::new("uv") } else { Command::new(&task.interpreter) };
    if has_uv {
        command.args(["venv", "--python", &task.interpreter]);
    } else {
        command.args(["-m", "venv"]);
        command.args(is_empty.then_some("--without-pip"));
    }
    execute(command.arg(venv), task).map_err(|said| {
        Failed(format!(
            "no virtual environment can be made of `{}`: {said}; install its module `venv` (Debian: python3-venv) or uv, or correct `python`",
            task.interpreter
        ))
    })?;
    if is_empty {
        return Ok(());
    }
    let file = match &task.requirements {
        Asked::File(path) => path.clone(),
        Asked::Lines(lines) => {
            let path = venv.join("requirements.txt");
            fs::write(&path, lines.join("\n") + "\n").map_err(|error| of_file("write", &path, &error))?;
            path
        }
    };
    let python = venv.join("bin/python");
    let mut command = if has_uv { Command::new("uv") } else { Command::new(&python) };
    if has_uv {
        command.args(["pip", "install", "--python"]).arg(&python);
    } else {
        command.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]);
    }
    execute(command.arg("-r").arg(file), task).map_err(|said| {
        Failed(format!(
            "the packages of `venv` cannot be installed: {said}; see the log. Without a network name wheels by their paths, or a folder of them by `--no-index --find-links FOLDER`; `env` may name another index (PIP_INDEX_URL, UV_DEFAULT_INDEX)"
        ))
    })
}

/// Runs it to its end. What it says is the try's log; of a failure its last complaint is the error.
fn execute(command: &mut Command, task: &VenvTask) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.current_dir(&task.folder).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    let said = child.stderr.take().map(|said| complaint(said, &mut io::stderr())).unwrap_or_default();
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if said.is_empty() => Err(status.to_string()),
        Ok(_) => Err(said),
        Err(error) => Err(error.to_string()),
    }
}

/// Hands on what is said, and keeps its last line, or its last error if there is one.
fn complaint(said: impl Read, log: &mut impl Write) -> String {
    let mut lines = BufReader::new(said);
    let (mut last, mut error, mut line) = (String::new(), String::new(), Vec::new());
    while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        // The log may be at its limit: what is said is lost, and its end is not.
        let _ = log.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim().chars().take(MAX_REASON).collect();
        if text.to_ascii_lowercase().starts_with("error") {
            error.clone_from(&text);
        }
        if !text.is_empty() {
            last = text;
        }
        line.clear();
    }
    if error.is_empty() { last } else { error }
}

/// The name of the folder: what was asked for, down to the contents of files.
fn identity(task: &VenvTask) -> Result<String, Failed> {
    let mut hash = Sha1::new();
    hash.update(python(&task.interpreter)?.as_bytes());
    let mut seen = BTreeSet::new();
    match &task.requirements {
        Asked::Lines(lines) => add_lines(&mut hash, lines.iter().map(String::as_str), &task.folder, task, &mut seen)?,
        Asked::File(path) => add_file(&mut hash, path, task, &mut seen)?,
    }
    Ok(hash.digest().to_string())
}

/// Which Python this is: its file, or what it says of itself where a script stands before it.
fn python(interpreter: &str) -> Result<String, Failed> {
    let path = fs::canonicalize(interpreter).map_err(|error| of_file("find", Path::new(interpreter), &error))?;
    let mut begin = Vec::new();
    let file = File::open(&path).and_then(|file| file.take(2).read_to_end(&mut begin));
    if file.is_ok() && begin == b"#!" {
        let words = ["-c", "import sys; print(sys.executable, sys.version)"];
        let asked = Command::new(interpreter).args(words).stdin(Stdio::null()).output();
        let asked = asked.map_err(|error| of_file("start", Path::new(interpreter), &error))?;
        if !asked.status.success() {
            let said = String::from_utf8_lossy(&asked.stderr);
            let said = said.trim().lines().last().unwrap_or_default().to_owned();
            return Err(Failed(format!("`{interpreter}` is no Python that works: {said}; correct `python`")));
        }
        return Ok(String::from_utf8_lossy(&asked.stdout).into_owned());
    }
    let stamp = stamp(&path).map_err(|error| of_file("read", &path, &error))?;
    Ok(format!("{} {stamp}", path.display()))
}

/// Size and time of change.
fn stamp(path: &Path) -> io::Result<String> {
    let found = fs::metadata(path)?;
    let since = found.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{} {}", found.len(), since.as_nanos()))
}

fn add_file(hash: &mut Sha1, path: &Path, task: &VenvTask, seen: &mut BTreeSet<PathBuf>) -> Result<(), Failed> {
    if !seen.insert(path.to_owned()) || seen.len() > MOST_FILES {
        return Ok(());
    }
    let text = fs::read(path).map_err(|error| of_file("read", path, &error))?;
    let text = String::from_utf8_lossy(&text);
    let folder = path.parent().unwrap_or(&task.folder);
    add_lines(hash, text.lines(), folder, task, seen)
}

/// The lines, and what they name on this host. `folder` is where the files that they include are.
fn add_lines<'a>(
    hash: &mut Sha1,
    lines: impl Iterator<Item = &'a str>,
    folder: &Path,
    task: &VenvTask,
    seen: &mut BTreeSet<PathBuf>,
) -> Result<(), Failed> {
    for line in lines {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        hash.update(line.as_bytes());
        hash.update(b"\n");
        let (option, rest) = line.split_once([' ', '=']).unwrap_or((line, ""));
        if ["-r", "--requirement", "-c", "--constraint"].contains(&option) {
            let included = folder.join(rest.trim());
            if included.is_file() {
                add_file(hash, &included, task, seen)?;
            }
            continue;
        }
        // `./x.whl`, `name @ file:///srv/x.whl`, `-e ./pkg`, `--find-links wheels`: words that are paths.
        for word in line.split_whitespace() {
            let word = word.rsplit_once('=').map_or(word, |(_, path)| path);
            let path = word.strip_prefix("file://").unwrap_or(word);
            let path = path.split(['[', ';', '#']).next().unwrap_or_default();
            if path.contains('/') && !path.contains("://") {
                add_path(hash, &task.folder.join(path));
            }
        }
    }
    Ok(())
}

/// The contents of a file; of a folder names, sizes and times of all below it. What is not there is the installer's to tell.
fn add_path(hash: &mut Sha1, path: &Path) {
    if path.is_file() {
        let mut buffer = vec![0; 1 << 16];
        let Ok(mut file) = File::open(path) else { return };
        while let Ok(count @ 1..) = file.read(&mut buffer) {
            hash.update(&buffer[..count]);
        }
        return;
    }
    let (mut folders, mut entries) = (vec![path.to_owned()], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_made = name == "__pycache__" || name == "build" || name.to_string_lossy().ends_with(".egg-info");
            match entry.file_type() {
                // An installer leaves them behind.
                _ if is_made => {}
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => drop(entries.insert(entry.path())),
                Err(_) => {}
            }
        }
        if entries.len() > MOST_ENTRIES {
            break;
        }
    }
    for entry in entries {
        hash.update(entry.as_os_str().as_encoded_bytes());
        hash.update(stamp(&entry).unwrap_or_default().as_bytes());
    }
}

fn of_file(act: &str, path: &Path, error: &io::Error) -> Failed {
    Failed(format!("cannot {act} `{}`: {error}; check the path, its modes and the disk", path.display()))
}

#[cfg(test)]
#[path = "venv_tests.rs"]
mod tests;
