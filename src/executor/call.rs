//! What one worker does with one callback: prepare it, have it run, and tell how it ended.
//!
//! Knows the files and the environment of a callback. Who is told what, and how, is `operators::notify`; whether another try follows
//! is the scheduler's. Its log lies beside that of the try that it is about.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::executor::adopt::{self, Memo};
use crate::executor::asked::Asked;
use crate::executor::environment::{self, Variables};
use crate::executor::reclaim::Remains;
use crate::executor::try_log::{self, TryLog};
use crate::executor::{Shared, Told, mapped, paths};
use crate::model::callback::{DEFAULT_TIMEOUT, Subject};
use crate::model::{InstanceKey, TaskIx, TryKey};
use crate::operators::notify::{self, Notice};
use crate::operators::{Fault, Place, Program, TemplateFolder};
use crate::scheduler::LOST;
use crate::scheduler::event::{CallEnd, CallOutcome};
use crate::scheduler::port::{Call, Work};
use crate::supervisor::adoption::Kept;
use crate::supervisor::protocol::{Cause, End, Exit, Refusal, Start, Tree};
use crate::template::{Context, UndefinedKind};

const GRACE: Duration = Duration::from_secs(2);
/// How many lines of a try's log a callback sees, and how many bytes of it at most.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 << 10;
/// A callback says little; what is more is dropped.
const MAX_LOG_BYTES: u64 = 1 << 20;
/// The most of its last line that a reason quotes.
const MAX_QUOTED: usize = 300;

/// A callback that the supervisor has: what its end needs.
pub struct Begun {
    call: Box<Call>,
    log: TryLog,
    files: Vec<PathBuf>,
    origin: Origin,
}

/// Who has prepared it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Own,
    Adopted,
}

impl Begun {
    pub fn key(&self) -> TryKey {
        self.call.row.try_key()
    }
}

/// Whether the key is that of a callback's try: instances have positive keys.
pub fn is_call(key: TryKey) -> bool {
    key.instance < InstanceKey(0)
}

/// Begins a callback. None: the supervisor has it.
pub fn run(shared: &Shared, call: Box<Call>) -> Option<CallEnd> {
    let key = call.row.try_key();
    let head = format!("begins try {} of {} {}: {}", call.row.tries, call.row.hook, call.row.number, about(&call));
    let log = match TryLog::open(log_path(shared, &call), &head, shared.clock.now()) {
        Ok(log) => log,
        Err(fault) => return Some(ended(shared, key, outcome_of(fault))),
    };
    let (start, files) = match prepare(shared, &call, &log) {
        Ok(prepared) => prepared,
        Err(fault) => return Some(close(shared, &call, &log, outcome_of(fault))),
    };
    let (begun, told) =
        shared.hand_over_call(Box::new(Begun { call, log, files, origin: Origin::Own }), start).err()?;
    Some(conclude(shared, &begun, told))
}

/// From what the supervisor tells to the end of a callback.
pub fn conclude(shared: &Shared, begun: &Begun, told: Told) -> CallEnd {
    let outcome = match told {
        Told::Ended(end) => {
            if begun.origin == Origin::Adopted {
                begun.log.take_back(end.output_to);
            }
            of_end(&end, begun)
        }
        Told::NotStarted { kind: Refusal::Transient, message: reason } | Told::Killed { reason } => {
            CallOutcome::CutOff { reason }
        }
        Told::NotStarted { kind: Refusal::Permanent, message } => CallOutcome::Failed { reason: message },
        Told::Gone => CallOutcome::CutOff { reason: "the supervisor ended before it did".to_owned() },
    };
    begun.files.iter().for_each(remove);
    close(shared, &begun.call, &begun.log, outcome)
}

fn of_end(end: &End, begun: &Begun) -> CallOutcome {
    let failed = |what: String| {
        let tail = begun.log.tail();
        let text = String::from_utf8_lossy(&tail);
        let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let quoted = last.map(|line| format!(": {}", line.chars().take(MAX_QUOTED).collect::<String>()));
        CallOutcome::Failed { reason: format!("{what}{}", quoted.unwrap_or_default()) }
    };
    match (&end.cause, end.exit) {
        (Cause::Killed { reason }, _) => CallOutcome::CutOff { reason: reason.clone() },
        (Cause::Exceeded { limit }, _) => failed(format!("it was ended {limit}")),
        (Cause::TimedOut, _) => failed("it took longer than its `timeout`".to_owned()),
        (Cause::Itself, Exit::Code(0)) => CallOutcome::Done,
        (Cause::Itself, Exit::Code(code)) => failed(format!("exit code {code}")),
        (Cause::Itself, Exit::Signal(signal)) => failed(format!("signal {signal}")),
    }
}

/// A callback that an earlier minflow had begun, and that a supervisor knows.
pub fn adopted(shared: &Shared, call: Box<Call>, kept: &Kept) -> Begun {
    let log = TryLog::resume(log_path(shared, &call), kept.output_from);
    Begun { call, log, files: Memo::read(&kept.memo).files, origin: Origin::Adopted }
}

/// One that nobody knows, and of which nothing lives any longer: it is made again.
pub fn lost(shared: &Shared, key: TryKey) -> CallEnd {
    ended(shared, key, CallOutcome::CutOff { reason: LOST.to_owned() })
}

/// What may live of a callback.
pub fn remains(shared: &Shared, key: TryKey) -> Remains {
    let mark = environment::mark(&shared.settings.owner, key);
    Remains { mark, log: None, process: None, kill_signal: libc::SIGTERM, grace: GRACE }
}

fn remove(path: &PathBuf) {
    let _ = fs::remove_file(path);
}

fn outcome_of(fault: Fault) -> CallOutcome {
    match fault {
        Fault::Task(reason) => CallOutcome::Failed { reason },
        Fault::Host(reason) => CallOutcome::CutOff { reason },
    }
}

fn ended(shared: &Shared, key: TryKey, outcome: CallOutcome) -> CallEnd {
    CallEnd { key, outcome, ended_at: shared.clock.now() }
}

/// Writes how it ended to its log and, for who looks there, to the log of the try that it is about.
fn close(shared: &Shared, call: &Call, log: &TryLog, mut outcome: CallOutcome) -> CallEnd {
    if let CallOutcome::Failed { reason } | CallOutcome::CutOff { reason } = &mut outcome {
        // It may quote a template's fault or what was said in answer; from here it goes to the database and the pages.
        shared.settings.tunables.now().secrets.masker().mask_in(reason);
    }
    let now = shared.clock.now();
    let words = match &outcome {
        CallOutcome::Done => "done".to_owned(),
        CallOutcome::Failed { reason } => format!("failed: {reason}"),
        CallOutcome::CutOff { reason } => format!("cut off, is made again: {reason}"),
    };
    log.close(&words, now);
    let (hook, number) = (call.row.hook, call.row.number);
    if let Some(of_try) = try_log_path(shared, call).filter(|_| call.row.occasion.subject == Subject::Task) {
        let more = if outcome == CallOutcome::Done { String::new() } else { format!("; see {}", log.path().display()) };
        try_log::close_left(&of_try, &format!("callback {hook} {number}, try {}: {words}{more}", call.row.tries), now);
    }
    if let CallOutcome::Failed { reason } = &outcome {
        log::warn!("callback {hook} {number} of {}: {reason}; see {}", about(call), log.path().display());
    }
    ended(shared, call.row.try_key(), outcome)
}

/// Whom it is about, in words.
fn about(call: &Call) -> String {
    let row = &call.row;
    match (&row.occasion.task, row.occasion.subject) {
        (Some(task), Subject::Task) => {
            format!("try {} of task {} of DAG {}, run {}", task.try_number, task.task_id, row.dag_id, call.run.run_id)
        }
        (_, Subject::Dag) => format!("DAG {}", row.dag_id),
        _ => format!("run {} of DAG {}", call.run.run_id, row.dag_id),
    }
}

fn log_path(shared: &Shared, call: &Call) -> PathBuf {
    let row = &call.row;
    let task = row.occasion.task.as_ref().filter(|_| row.occasion.subject == Subject::Task);
    let place = task.map(|task| (&*task.task_id, task.map_index, task.try_number));
    paths::callback_log(&shared.settings.logs, &row.dag_id, &call.run.run_id, place, row.hook, row.number)
}

/// The log of the try that it is about.
fn try_log_path(shared: &Shared, call: &Call) -> Option<PathBuf> {
    let task = call.row.occasion.task.as_ref()?;
    let (logs, row) = (&shared.settings.logs, &call.row);
    Some(paths::log_path(logs, &row.dag_id, &call.run.run_id, &task.task_id, task.map_index, task.try_number))
}

/// Renders and writes all that the process needs.
fn prepare(shared: &Shared, call: &Call, log: &TryLog) -> Result<(Start, Vec<PathBuf>), Fault> {
    let settings = &shared.settings;
    let row = &call.row;
    let key = row.try_key();
    let run_dir = paths::run_dir(&settings.home, &row.dag_id, &call.run.run_id);
    let scratch_folder = paths::scratch_folder(&run_dir);
    try_log::make_folder(&scratch_folder).map_err(|error| Fault::of_file("make", &scratch_folder, &error))?;
    let scratch = scratch_folder.join(format!("callback.{}", row.key));
    let mut context = context(shared, call, run_dir);
    // What it had by its mapping; where that cannot be had any longer, it is told of without.
    let mut variables = mapped::variables(&context, &shared.values, u64::MAX).unwrap_or_default();
    let tail = try_log_path(shared, call).map(|path| log_tail(&path)).unwrap_or_default();
    let tail = settings.tunables.now().secrets.masker().mask(&tail).into_owned();
    let notice = Notice { call, home: &settings.home, log_tail: tail };
    variables.extend(notice.variables());
    context.variables = Arc::new(variables);
    let dag_file = settings.dags_folder.join(&*call.file);
    let place = Place {
        dag_folder: dag_file.parent().unwrap_or(&settings.dags_folder),
        home: &settings.home,
        scratch: &scratch,
        search_path: &settings.search_path,
        context: &context,
        now: shared.clock.now(),
        earlier: None,
    };
    let Program { argv, stdin, files, .. } = notify::prepare(&notice, &settings.tunables.now().notifiers, &place)?;
    let run_dir = utf8(&context.run_dir)?;
    let Variables { added, removed } = environment_of(shared, call, &context, &notice)?;
    let timeout = row.callback.timeout.or_else(|| notify::timeout(&row.callback, &settings.tunables.now().notifiers));
    let start = Start {
        key,
        argv,
        cwd: run_dir.to_owned(),
        stdin: stdin.as_deref().map(utf8).transpose()?.map(str::to_owned),
        env: added,
        env_removed: removed,
        limits: None,
        user: None,
        log: utf8(log.path())?.to_owned(),
        max_log_bytes: settings.tunables.now().max_log_bytes.min(MAX_LOG_BYTES),
        timeout_ms: Some(timeout.unwrap_or(DEFAULT_TIMEOUT).as_millis() as u64),
        kill_signal: libc::SIGTERM,
        grace_ms: GRACE.as_millis() as u64,
        tree: Tree::Whole,
        leaves: false,
        wants_tail: false,
        output_from: log.output_from(),
        memo: adopt::memo(None, None, &files),
    };
    Ok((start, files))
}

/// What a task finds in its environment, and what there is to say.
fn environment_of(shared: &Shared, call: &Call, context: &Context, notice: &Notice<'_>) -> Result<Variables, Fault> {
    let row = &call.row;
    let work = Work {
        key: TryKey { instance: InstanceKey(0), try_number: context.try_number },
        dag: call.dag.clone(),
        file: call.file.clone(),
        task: context.task,
        map_index: context.map_index,
        run: call.run.clone(),
        max_tries: context.max_tries,
        epoch: 0,
        earlier: None,
    };
    let folders = environment::Folders {
        owner: &shared.settings.owner,
        home: utf8(&shared.settings.home)?,
        run_dir: utf8(&context.run_dir)?,
        xcom: "",
    };
    let mut variables = environment::variables(&work, folders);
    let is_ours = |name: &str| [environment::MARK, "MINFLOW_XCOM"].contains(&name);
    variables.added.retain(|(name, _)| !is_ours(name));
    let mark = environment::mark(&shared.settings.owner, row.try_key());
    let mut more = vec![(environment::MARK, mark), ("MINFLOW_CALLBACK", row.hook.to_string())];
    more.push(("MINFLOW_STATE", row.occasion.state.clone()));
    more.push(("MINFLOW_REASON", row.occasion.reason.clone().unwrap_or_default()));
    more.push(("MINFLOW_TITLE", notice.title()));
    variables.added.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value.replace('\0', ""))));
    variables.removed.push("MINFLOW_XCOM".to_owned());
    Ok(variables)
}

fn context(shared: &Shared, call: &Call, run_dir: PathBuf) -> Context {
    let settings = &shared.settings;
    let folder = settings.dags_folder.strip_prefix(&settings.home).unwrap_or(&settings.dags_folder);
    let dag_file = settings.dags_folder.join(&*call.file);
    let task = call.row.occasion.task.as_ref();
    let file = call.row.callback.file.clone();
    Context {
        dag: call.dag.clone(),
        file: file.unwrap_or_else(|| folder.join(&*call.file).to_string_lossy().into()),
        task: task.and_then(|task| call.dag.find(&task.task_id)).unwrap_or(TaskIx(0)),
        run: call.run.clone(),
        try_number: task.map_or(0, |task| task.try_number),
        max_tries: task.map_or(0, |task| task.max_tries),
        map_index: task.map_or(-1, |task| task.map_index),
        run_dir,
        host: settings.host.clone(),
        variables: Arc::new(Map::<String, Value>::new()),
        overrides_params: settings.tunables.now().overrides_params,
        now: shared.clock.now(),
        environment: Arc::new(|name: &str| std::env::var(name).ok()),
        lookup: Arc::new(Asked::of(shared.lookup.clone(), settings.tunables.now().secrets.clone())),
        files: Arc::new(TemplateFolder::new(dag_file.parent().unwrap_or(&settings.dags_folder))),
        additions: Arc::default(),
        undefined: UndefinedKind::Strict,
    }
}

/// The last lines that the task wrote, without minflow's own.
fn log_tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let is_ours = |line: &str| line.starts_with('[') && line.contains("Z] minflow: ");
    let lines: Vec<&str> = text.lines().filter(|line| !is_ours(line)).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn utf8(path: &Path) -> Result<&str, Fault> {
    path.to_str()
        .ok_or_else(|| Fault::Task(format!("the path `{}` is not UTF-8: rename it, or move the home", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_the_last_lines_of_the_task_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempt=1.log");
        let own: Vec<String> = (0..30).map(|line| format!("line {line}")).collect();
        let text = format!(
            "[2026-11-21T00:00:00.000000Z] minflow: begins\n{}\n[2026-11-21T00:00:01.000000Z] minflow: ended\n",
            own.join("\n")
        );
        fs::write(&path, text).unwrap();
        assert_eq!(log_tail(&path), own[10..].join("\n"));
        assert_eq!(log_tail(&folder.path().join("absent.log")), "");
    }
}
