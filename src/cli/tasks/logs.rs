//! `minflow tasks logs`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::tasks::log::{Log, Span, Until};
use crate::cli::{Failure, Globals, Outcome, engine};
use crate::executor::paths;
use crate::model::{DagRun, Instance, TaskState};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minflow tasks logs host_report report\n  \
    minflow tasks logs second_try fetch --try-number 1\n  minflow tasks logs programs merge -f\n  \
    minflow tasks logs programs merge --bytes -2000 -f")]
pub struct Arguments {
    dag_id: String,
    task_id: String,
    /// The run: its run_id or its logical date [default: the newest run]
    logical_date_or_run_id: Option<String>,
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    map_index: Option<i32>,
    /// Which try [default: the latest; with -f also those that follow it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    try_number: Option<u32>,
    /// Go on until the task has ended; with --try-number, until that try has
    #[arg(short, long)]
    follow: bool,
    /// Only these bytes of what would be shown, counted from 0: `0-499`, `500-`, or `-500` for the last 500
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true, value_parser = Span::parse)]
    bytes: Option<Span>,
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
        follow(&home, &run, instance, arguments, output)
    } else {
        print(&home, &run, &instance, arguments, output)
    }
}

impl Arguments {
    fn span(&self) -> Span {
        self.bytes.unwrap_or(Span::ALL)
    }
}

fn print(home: &Home, run: &DagRun, instance: &Instance, arguments: &Arguments, output: &mut Output) -> Outcome {
    let latest = instance.try_number;
    let number = arguments.try_number.unwrap_or(latest);
    let mut log = Log::new(home, log_path(home, run, instance, number.max(1)), arguments.span());
    let until = if is_over(instance, number) { Until::End } else { Until::Limit };
    if log.copy(until, output)? {
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

fn follow(home: &Home, run: &DagRun, mut instance: Instance, arguments: &Arguments, output: &mut Output) -> Outcome {
    let (wake, wakes) = channel::unbounded();
    // Without a wish it is the try that runs now, or the next one to come.
    let mut number = arguments.try_number.unwrap_or(instance.try_number).max(1);
    let mut log = Log::new(home, log_path(home, run, &instance, number), arguments.span());
    let mut watch = Watch::new(home, &log.path, &wake)?;
    await_run(home, run, wake);
    let (task_id, map_index) = (instance.task_id.clone(), Some(instance.map_index).filter(|&index| index >= 0));
    let (mut run_is_over, mut is_fresh, mut has_shown) = (false, true, false);
    loop {
        // The state first: what a try wrote before its end is in the log by the time its end is committed.
        let has_ended = run_is_over || is_over(&instance, number);
        let has_next = instance.try_number > number || !(run_is_over || instance.state.is_finished());
        watch.add_folder()?;
        has_shown |= log.show_new(if has_ended { Until::End } else { Until::Limit }, output)?;
        if has_ended && has_next && arguments.try_number.is_none() && !log.is_full() {
            number += 1;
            log.follow_with(log_path(home, run, &instance, number));
            continue;
        }
        if has_ended || log.is_full() {
            if !has_shown {
                eprint(&format!("try {number} of `{task_id}` left no log: its state is {}\n", instance.state));
            }
            return log.finish(output);
        }
        match next(&wakes, &mut is_fresh) {
            Wake::Written => {}
            Wake::RunEnded => run_is_over = true,
            Wake::Gone => return Err(home.not_running()),
        }
        instance = home.instance(run, &task_id, map_index)?;
    }
}

/// Whether this try of it is over, or will never be.
fn is_over(instance: &Instance, number: u32) -> bool {
    let waits_for_next = instance.state == TaskState::UpForRetry && instance.try_number == number;
    instance.try_number > number || instance.state.is_finished() || waits_for_next
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
