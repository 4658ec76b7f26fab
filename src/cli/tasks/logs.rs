//! `minflow tasks logs`

use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, engine};
use crate::executor::{log_file, paths};
use crate::model::{DagRun, Instance, TaskState};
use crate::secrets::Scrubber;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minflow tasks logs host_report report\n  \
    minflow tasks logs second_try fetch --try-number 1\n  minflow tasks logs programs merge -f")]
pub struct Arguments {
    dag_id: String,
    task_id: String,
    /// The run: its run_id or its logical date [default: the newest run]
    logical_date_or_run_id: Option<String>,
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    map_index: Option<i32>,
    /// Which try [default: the latest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    try_number: Option<u32>,
    /// Go on until the try has ended
    #[arg(short, long)]
    follow: bool,
}

/// One try's log, and how far it has been shown.
struct Log {
    path: PathBuf,
    file: Option<Box<dyn Read + Send>>,
    scrubber: Scrubber,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    if arguments.follow {
        engine::expect_running(&home)?;
    }
    let run = match &arguments.logical_date_or_run_id {
        Some(text) => home.run(&arguments.dag_id, text)?,
        None => home.newest_run(&arguments.dag_id)?,
    };
    let instance = home.instance(&run, &arguments.task_id, arguments.map_index)?;
    if arguments.follow {
        follow(&home, &run, instance, arguments.try_number, output)
    } else {
        print(&home, &run, &instance, arguments, output)
    }
}

fn print(home: &Home, run: &DagRun, instance: &Instance, arguments: &Arguments, output: &mut Output) -> Outcome {
    let latest = instance.try_number;
    let number = arguments.try_number.unwrap_or(latest);
    let mut log = Log::new(home, log_path(home, run, instance, number.max(1)));
    if log.copy(output)? {
        return log.finish(output);
    }
    let (task, run_id, state) = (&instance.task_id, &run.run_id, instance.state);
    if latest == 0 {
        return Err(Failure::refused(
            format!("`{task}` has not begun in run `{run_id}`: its state is {state}"),
            "add -f to wait for it",
        ));
    }
    if number > latest {
        let message = format!("`{task}` has had {latest} tries in run `{run_id}`, no try {number}");
        return Err(Failure::refused(message, format!("ask for --try-number {latest}, or leave it out")));
    }
    let reason = instance.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    Err(Failure::refused(
        format!("try {number} of `{task}` in run `{run_id}` left no log: its state is {state}{reason}"),
        format!("it would be `{}`; a task that is `empty` or was not started has none", log.path.display()),
    ))
}

fn log_path(home: &Home, run: &DagRun, instance: &Instance, try_number: u32) -> PathBuf {
    let logs = &home.config.logging.base_log_folder;
    paths::log_path(logs, &run.dag_id, &run.run_id, &instance.task_id, instance.map_index, try_number)
}

impl Log {
    fn new(home: &Home, path: PathBuf) -> Self {
        Self { path, file: None, scrubber: Scrubber::new(home.secrets.masker()) }
    }

    /// Shows what was held back, since it might have become a secret.
    fn finish(&mut self, output: &mut Output) -> Outcome {
        output.write_all(&self.scrubber.finish())?;
        Ok(output.flush()?)
    }

    /// Copies what is new, without the home's secrets; false if there is no file yet.
    fn copy(&mut self, output: &mut Output) -> Result<bool, Failure> {
        if self.file.is_none() {
            match log_file::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(unreadable(&self.path, &error)),
            }
        }
        let file = self.file.as_mut().expect("it was opened above");
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => output.write_all(&self.scrubber.push(&buffer[..length]))?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&self.path, &error)),
            }
        }
        output.flush()?;
        Ok(true)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let help = "a log is readable by the user whose minflow wrote it";
    Failure::refused(format!("failed to read `{}`: {error}", path.display()), help)
}

/// Why the follower wakes.
enum Wake {
    /// Something was written: to the log, or to the database.
    Written,
    /// The run is over.
    RunEnded,
    /// minflow has gone.
    Gone,
}

/// A commit becomes visible a moment after its bytes are written: so long after the last write, one more look is taken.
const SETTLE: Duration = Duration::from_millis(300);

fn follow(home: &Home, run: &DagRun, mut instance: Instance, wanted: Option<u32>, output: &mut Output) -> Outcome {
    let (wake, wakes) = channel::unbounded();
    // Without a wish it is the try that runs now, or the next one to come.
    let number = wanted.unwrap_or(instance.try_number).max(1);
    let mut log = Log::new(home, log_path(home, run, &instance, number));
    let mut watch = Watch::new(home, &log.path, &wake)?;
    await_run(home, run, wake);
    let (task_id, map_index) = (instance.task_id.clone(), Some(instance.map_index).filter(|&index| index >= 0));
    let (mut is_over, mut is_fresh) = (false, true);
    loop {
        // The state first: what a try wrote before its end is in the log by the time its end is committed.
        let has_ended = is_over || instance.try_number > number || has_ended(&instance);
        watch.add_folder()?;
        let is_there = log.copy(output)?;
        if has_ended {
            if !is_there {
                eprint(&format!("try {number} of `{task_id}` left no log: its state is {}\n", instance.state));
            }
            return log.finish(output);
        }
        match next(&wakes, &mut is_fresh) {
            Wake::Written => {}
            Wake::RunEnded => is_over = true,
            Wake::Gone => return Err(home.not_running()),
        }
        instance = home.instance(run, &task_id, map_index)?;
    }
}

/// Whether its current try is over.
fn has_ended(instance: &Instance) -> bool {
    instance.state.is_finished() || instance.state == TaskState::UpForRetry
}

/// Blocks until something has happened. `is_fresh`: something has, a moment ago, and one more look is due when it is quiet.
fn next(wakes: &Receiver<Wake>, is_fresh: &mut bool) -> Wake {
    let woken = if *is_fresh { wakes.recv_timeout(SETTLE) } else { wakes.recv().map_err(RecvTimeoutError::from) };
    *is_fresh = woken.is_ok();
    match woken {
        Ok(wake) => wake,
        Err(RecvTimeoutError::Timeout) => Wake::Written,
        Err(RecvTimeoutError::Disconnected) => Wake::Gone,
    }
}

/// Watches the database's write-ahead log, and the task's log folder as soon as that is there.
struct Watch {
    watcher: RecommendedWatcher,
    folder: PathBuf,
    has_folder: bool,
}

impl Watch {
    fn new(home: &Home, log: &Path, wake: &Sender<Wake>) -> Result<Self, Failure> {
        let sender = wake.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the log is an event too, and our own doing.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = sender.send(Wake::Written);
            }
        })
        .map_err(|error| unwatchable(&error))?;
        let mut wal = home.config.database.path.clone().into_os_string();
        wal.push("-wal");
        watcher.watch(Path::new(&wal), RecursiveMode::NonRecursive).map_err(|error| unwatchable(&error))?;
        let folder = log.parent().expect("a log lies in its task's folder").to_owned();
        Ok(Self { watcher, folder, has_folder: false })
    }

    fn add_folder(&mut self) -> Outcome {
        if !self.has_folder && self.folder.is_dir() {
            self.watcher.watch(&self.folder, RecursiveMode::NonRecursive).map_err(|error| unwatchable(&error))?;
            self.has_folder = true;
        }
        Ok(())
    }
}

fn unwatchable(error: &notify::Error) -> Failure {
    Failure::refused(format!("failed to watch the log: {error}"), "leave out -f, and ask again later")
}

/// Has a thread wait for the end of the run, so that the end of minflow is noticed too. It ends with this process.
fn await_run(home: &Home, run: &DagRun, wake: Sender<Wake>) {
    let (folder, dag_id, run_id) = (home.config.home.clone(), run.dag_id.clone(), run.run_id.clone());
    std::thread::spawn(move || {
        let ended = engine::await_end(&folder, &dag_id, &run_id);
        let _ = wake.send(if ended.is_ok() { Wake::RunEnded } else { Wake::Gone });
    });
}
