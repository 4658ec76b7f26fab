//! What one worker does with one try: prepare it, have it run, and tell how it ended.
//!
//! Knows the way of a try through templates, files, supervisor and XComs. What an end means for retries is not its business.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::builtin::{Finality, Verdict, docker};
use crate::executor::adopt::{self, Memo};
use crate::executor::asked::Asked;
use crate::executor::environment::{self, Folders};
use crate::executor::farewell::farewell;
use crate::executor::gate::Gate;
use crate::executor::mapped::{self, Stop};
use crate::executor::output::{self, Left};
use crate::executor::reclaim::Remains;
use crate::executor::try_log::{self, TryLog};
use crate::executor::{Shared, Told, large, paths, run_as};
use crate::model::tool::ToolKind;
use crate::model::{
    KillTree, Operator, Output, ProcessIdentity, Question, RunRequest, SkipDecision, Task, TryKey, Wait,
};
use crate::model::{asset, retry};
use crate::operators::decider::{self, Answer, Decided, Wrote};
use crate::operators::plugin::{self, Said};
use crate::operators::sensor::{self, Look};
use crate::operators::{self, Fault, Place, Program, Step, TemplateFolder};
use crate::scheduler::event::{Outcome, TryEnd};
use crate::scheduler::port::Work;
use crate::supervisor::protocol::{Cause, End, Exit, Refusal, Start, TAIL_BYTES, Tree};
use crate::template::{self, Context, UndefinedKind};

/// A try that is ready to start.
struct Prepared {
    start: Start,
    value: Option<PathBuf>,
    verdict: Option<PathBuf>,
    xcom: PathBuf,
    files: Vec<PathBuf>,
    variables: Arc<Map<String, Value>>,
}

/// What is left to do for a try.
enum Todo {
    Start(Box<Prepared>),
    /// No process is needed: this is its answer, if its operator has one.
    Nothing(Option<Value>),
    /// The filter of its mapping refuses its element.
    Skip,
    /// It goes on when this has come.
    Wait(Wait),
    /// The loop makes the run that it asks for.
    Ask(Box<RunRequest>),
}

/// A try that the supervisor has: what its end needs.
pub struct Begun {
    work: Box<Work>,
    log: TryLog,
    value: Option<PathBuf>,
    verdict: Option<PathBuf>,
    xcom: PathBuf,
    files: Vec<PathBuf>,
    /// What it has by its mapping; None: it was taken over, and that is looked up when it is needed.
    variables: Option<Arc<Map<String, Value>>>,
}

impl Begun {
    /// A try that an earlier minflow has prepared.
    pub fn adopted(work: Box<Work>, log: TryLog, memo: Memo, xcom: PathBuf) -> Self {
        let Memo { value, verdict, files } = memo;
        Self { work, log, value, verdict, xcom, files, variables: None }
    }

    pub fn key(&self) -> TryKey {
        self.work.key
    }
}

/// What is known of `$MINFLOW_XCOM` when a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XcomFile {
    Absent,
    Possible,
}

/// What the head line of a log begins with.
pub const BEGINS: &str = "begins try";

/// Makes a try ready, and has it begin when the gate is open. None: the supervisor has it, or will.
pub fn run(shared: &Shared, work: Box<Work>, gate: Arc<Gate>) -> Option<TryEnd> {
    let task = work.dag.task(work.task);
    let head = format!(
        "{BEGINS} {} of task {} of DAG {}, run {}",
        work.key.try_number, task.task_id, work.dag.dag_id, work.run.run_id
    );
    let log = match TryLog::open(log_path(shared, &work), &head, shared.clock.now()) {
        Ok(log) => log,
        Err(fault) => return Some(without_process(shared, work.key, outcome_of(fault))),
    };
    if large::may_have_earlier(&work) {
        // Their rows go with the turn. Barred, nobody hears of the end any more.
        gate.pass().ok()?;
        large::clear(shared, &work);
    }
    let asked = Arc::new(Asked::behind(gate, shared.lookup.clone(), shared.settings.tunables.now().secrets.clone()));
    let began_at = shared.clock.now();
    let Prepared { start, value, verdict, xcom, files, variables } =
        match prepare(shared, &work, task, &log, asked.clone()) {
            Ok(Todo::Start(prepared)) => *prepared,
            Ok(Todo::Nothing(answer)) => {
                let end =
                    TryEnd { started_at: Some(began_at), ..without_process(shared, work.key, Outcome::Exited(0)) };
                let said = Answer { value: answer, process: None };
                return Some(close(
                    shared,
                    &log,
                    large::keep(shared, &work, measured(shared, &work, decided(&work, end, said))),
                ));
            }
            Ok(Todo::Wait(wait)) => {
                let waits = without_process(shared, work.key, Outcome::Deferred(Box::new(wait)));
                return Some(close(shared, &log, TryEnd { started_at: Some(began_at), ..waits }));
            }
            Ok(Todo::Ask(request)) => {
                let asks = without_process(shared, work.key, Outcome::Asks(request));
                return Some(close(shared, &log, TryEnd { started_at: Some(began_at), ..asks }));
            }
            Ok(Todo::Skip) => {
                let reason = "the filter of its mapping refuses its element".to_owned();
                return Some(close(shared, &log, without_process(shared, work.key, Outcome::Skipped { reason })));
            }
            Err(fault) => {
                let outcome = asked.failure().map_or_else(
                    || outcome_of(fault),
                    |reason| Outcome::Unstarted {
                        reason: format!("a template asks for what the database has: {reason}"),
                    },
                );
                return Some(close(shared, &log, without_process(shared, work.key, outcome)));
            }
        };
    let begun = Box::new(Begun { work, log, value, verdict, xcom, files, variables: Some(variables) });
    let (begun, told) = shared.hand_over(begun, start).err()?;
    Some(conclude(shared, &begun, told, XcomFile::Absent))
}

/// Whether a try can be concluded without a wait, and without reading more than the end of its log: it left no
/// files, and its output is matched with nothing.
pub fn is_brief(begun: &Begun, told: &Told) -> bool {
    let has_process = matches!(told, Told::Ended(_));
    has_process
        && !has_output_rules(begun.work.dag.task(begun.work.task))
        && begun.work.dag.task(begun.work.task).map_index_template.is_none()
        && begun.value.is_none()
        && begun.files.is_empty()
        && is_absent(&begun.xcom)
}

/// Whether its output is an answer in a form of its own.
fn is_plugin(task: &Task) -> bool {
    matches!(&task.operator, Operator::Tool(tool) if matches!(tool.kind, ToolKind::Plugin(_)))
}

fn has_output_rules(task: &Task) -> bool {
    task.retry_on.iter().any(|rule| rule.output.is_some())
}

fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// From what the supervisor tells to the end of a try.
pub fn conclude(shared: &Shared, begun: &Begun, told: Told, xcom: XcomFile) -> TryEnd {
    let key = begun.key();
    let task = begun.work.dag.task(begun.work.task);
    if task.run_as.is_some() {
        let answers = begun.value.iter().chain(&begun.verdict).chain([&begun.xcom]);
        run_as::drop_unwritten(answers.map(PathBuf::as_path));
    }
    let mut notes = Vec::new();
    let end = match told {
        Told::Ended(end) => {
            if begun.variables.is_none() {
                begun.log.take_back(end.output_to);
            }
            begun.log.skip(end.noted_bytes);
            let concluded = try_end(&begun.work, &end, |end| {
                let tail = last_output(begun, end);
                let xcom = (xcom == XcomFile::Possible).then_some(&*begun.xcom);
                let left = Left { output: looked_at(task), tail: &tail, value: begun.value.as_deref(), xcom };
                output::collect(left, &|lack| shared.outwait(key, lack))
            });
            let mut concluded = worded(begun, &end, concluded);
            concluded.matched = matched(begun, &end, &concluded.outcome);
            let concluded = produced(task, looked(&begun.work, concluded));
            let ended = measured(shared, &begun.work, answered(shared, begun, &end, concluded));
            notes = end.notes;
            large::keep(shared, &begun.work, named(shared, begun, ended))
        }
        Told::NotStarted { kind: Refusal::Transient, message } => {
            without_process(shared, key, Outcome::Unstarted { reason: message })
        }
        Told::NotStarted { kind: Refusal::Permanent, message } => {
            without_process(shared, key, Outcome::Faulted { reason: message })
        }
        Told::Killed { reason } => without_process(shared, key, Outcome::Killed { reason }),
        Told::Gone => {
            let outcome = shared.killed(key).map_or(Outcome::Lost, |reason| Outcome::Killed { reason });
            without_process(shared, key, outcome)
        }
    };
    // Until the end is recorded, somebody else may have to read them.
    let xcom = Some(&begun.xcom).filter(|path| xcom == XcomFile::Possible && !is_absent(path));
    shared.discard_later(key, begun.files.iter().chain(xcom));
    // Not before the output has been read, whose last line they would be.
    notes.iter().for_each(|note| begun.log.note(note, shared.clock.now()));
    close(shared, &begun.log, end)
}

/// What may live of a try whose supervisor is gone.
pub fn remains(shared: &Shared, begun: &Begun, process: Option<ProcessIdentity>) -> Remains {
    let task = begun.work.dag.task(begun.work.task);
    Remains {
        mark: environment::mark(&shared.settings.owner, begun.key()),
        log: Some(begun.log.path().to_owned()),
        process,
        kill_signal: task.kill_signal,
        grace: task.grace,
    }
}

/// The end of what the task wrote; of a log that was cut the supervisor has kept it.
fn last_output(begun: &Begun, end: &End) -> Vec<u8> {
    let tail = end.tail.as_ref().map_or_else(|| begun.log.tail(), |tail| tail.clone().into_bytes());
    let task = begun.work.dag.task(begun.work.task);
    let is_docker = matches!(&task.operator, Operator::Tool(tool) if tool.kind == ToolKind::Docker);
    if is_docker { docker::own_output(&tail).to_vec() } else { tail }
}

/// Adds to the end of a process what it says of it: a built-in operator in a file, a plugin in its last line.
fn worded(begun: &Begun, end: &End, concluded: TryEnd) -> TryEnd {
    let task = begun.work.dag.task(begun.work.task);
    let Outcome::Exited(code) = concluded.outcome else { return concluded };
    if let Some(Verdict { reason, finality }) = begun.verdict.as_deref().filter(|_| code != 0).and_then(Verdict::read) {
        return TryEnd { reason: Some(reason), is_final: finality == Finality::Final, ..concluded };
    }
    if is_plugin(task) && code == 0 {
        let tail = last_output(begun, end);
        return answered_by_plugin(task, concluded, plugin::answer(&tail, tail.len() >= TAIL_BYTES));
    }
    concluded
}

fn answered_by_plugin(task: &Task, concluded: TryEnd, answer: Result<plugin::Answer, String>) -> TryEnd {
    let plugin::Answer { state, xcom, message } = match answer {
        Ok(answer) => answer,
        Err(reason) => return TryEnd { outcome: Outcome::Faulted { reason }, xcoms: Vec::new(), ..concluded },
    };
    let mut xcoms = concluded.xcoms.clone();
    let has_value = xcoms.iter().any(|(key, _)| key == output::RETURN_VALUE);
    let value = xcom.filter(|_| !has_value && task.output != Output::None);
    xcoms.extend(value.map(|value| (output::RETURN_VALUE.to_owned(), value)));
    match state {
        Said::Success => TryEnd { xcoms, reason: message, ..concluded },
        Said::Skipped => {
            let reason = message.unwrap_or_else(|| "its plugin says so".to_owned());
            TryEnd { outcome: Outcome::Skipped { reason }, xcoms, ..concluded }
        }
        Said::Failed => {
            let reason = message.unwrap_or_else(|| "its plugin says so, and not why".to_owned());
            TryEnd { outcome: Outcome::Faulted { reason }, xcoms: Vec::new(), ..concluded }
        }
    }
}

/// What of its output is looked at: that of a task that decides holds its answer, whatever becomes its XCom.
fn looked_at(task: &Task) -> Output {
    // A plugin answers in a form of its own.
    if is_plugin(task) {
        return Output::None;
    }
    let is_asked = task.operator.question().is_some() || matches!(task.operator, Operator::Sensor(_));
    if is_asked && task.output == Output::None { Output::Text } else { task.output }
}

/// The end of what looked for what a sensor waits for.
pub(super) fn looked(work: &Work, end: TryEnd) -> TryEnd {
    let task = work.dag.task(work.task);
    let Operator::Sensor(sensor) = &task.operator else { return end };
    let Outcome::Exited(code) = end.outcome else {
        let is_soft = sensor.soft_fail && end.outcome == Outcome::TimedOut;
        let outcome = if is_soft { Outcome::Skipped { reason: "timed_out".to_owned() } } else { end.outcome };
        return TryEnd { outcome, ..end };
    };
    let value = end.xcoms.iter().find(|(key, _)| key == output::RETURN_VALUE).map(|(_, value)| value.clone());
    match sensor::judge(&sensor.kind, code, task.skip_on_exit_code.contains(&code), value) {
        Look::Failed => end,
        Look::There(value) => {
            let value = value.filter(|_| task.output != Output::None);
            let others = end.xcoms.into_iter().filter(|(key, _)| key != output::RETURN_VALUE);
            let xcoms = others.chain(value.map(|value| (output::RETURN_VALUE.to_owned(), value))).collect();
            TryEnd { xcoms, ..end }
        }
        Look::InVain => {
            let since = work.earlier.as_ref().map(|earlier| earlier.since).or(end.started_at).unwrap_or(end.ended_at);
            let outcome = sensor::look_again(sensor, &work.dag, work.task, since, end.ended_at);
            TryEnd { outcome, xcoms: Vec::new(), matched: Vec::new(), ..end }
        }
    }
}

/// The end of a process that may have been asked for a decision.
fn answered(shared: &Shared, begun: &Begun, end: &End, concluded: TryEnd) -> TryEnd {
    let task = begun.work.dag.task(begun.work.task);
    let asks_bash = matches!(task.operator.question(), Some(Question::Bash(_)));
    let is_test = asks_bash && matches!(task.operator, Operator::ShortCircuit(_));
    match concluded.outcome {
        Outcome::Exited(0) if task.operator.question().is_some() => {
            let is_silent = is_test && last_output(begun, end).is_empty();
            let wrote = if is_silent { Wrote::Nothing } else { Wrote::Something };
            let value = concluded.xcoms.iter().find(|(key, _)| key == output::RETURN_VALUE);
            let answer = Answer { value: value.map(|(_, value)| value.clone()), process: Some((0, wrote)) };
            decided(&begun.work, concluded, answer)
        }
        Outcome::Exited(code) if is_test && !task.skip_on_exit_code.contains(&code) => {
            begun.log.note(&format!("exit code {code}: the short circuit's answer is false"), shared.clock.now());
            let ended = TryEnd { outcome: Outcome::Exited(0), matched: Vec::new(), ..concluded };
            decided(&begun.work, ended, Answer { value: None, process: Some((code, Wrote::Something)) })
        }
        _ => concluded,
    }
}

/// Adds to the end of a try what it says of the events of its outlets.
pub(super) fn produced(task: &Task, mut end: TryEnd) -> TryEnd {
    let said = end.xcoms.iter().find(|(key, _)| key == asset::OUTLET_EVENTS);
    let (Some((_, said)), Outcome::Exited(0), false) = (said, &end.outcome, task.outlets.is_empty()) else {
        return end;
    };
    match asset::outlet_events(said, &task.outlets) {
        Ok(events) => end.outlet_events = events,
        Err(reason) => {
            end.xcoms.clear();
            end.outcome = Outcome::Faulted { reason };
        }
    }
    end
}

/// Adds to the end of a try how long that is which others are mapped over.
pub(super) fn measured(shared: &Shared, work: &Work, end: TryEnd) -> TryEnd {
    mapped::measure(&work.dag, work.task, end, shared.settings.tunables.now().max_map_length)
}

/// Adds to the end of a try of a mapped task its name. A name that cannot be had is no failure of the task's.
fn named(shared: &Shared, begun: &Begun, end: TryEnd) -> TryEnd {
    let work = &begun.work;
    let template = work.dag.task(work.task).map_index_template.as_ref().filter(|_| work.map_index >= 0);
    let Some(template) = template else { return end };
    let run_dir = paths::run_dir(&shared.settings.home, &work.dag.dag_id, &work.run.run_id);
    let lookup = Arc::new(Asked::of(shared.lookup.clone(), shared.settings.tunables.now().secrets.clone()));
    let mut context = context(shared, work, run_dir, lookup);
    context.variables = begun
        .variables
        .clone()
        .unwrap_or_else(|| Arc::new(mapped::variables(&context, &shared.values, work.epoch).unwrap_or_default()));
    match mapped::name(template, &context) {
        Ok(name) => TryEnd { rendered_map_index: Some(name), ..end },
        Err(error) => {
            begun.log.note(&format!("map_index_template gives no name: {error}"), shared.clock.now());
            end
        }
    }
}

/// Adds to the end of a try what it has decided, if its task is one that decides.
fn decided(work: &Work, mut end: TryEnd, answer: Answer) -> TryEnd {
    match decider::decide(&work.dag, work.task, answer) {
        None => {}
        Some(Ok(Decided { value, decision })) => {
            end.xcoms.retain(|(key, _)| key != output::RETURN_VALUE && key != SkipDecision::XCOM_KEY);
            let value = value.filter(|_| work.dag.task(work.task).output != Output::None);
            end.xcoms.extend(value.map(|value| (output::RETURN_VALUE.to_owned(), value)));
            let skips = decision.as_ref().map(|decision| (SkipDecision::XCOM_KEY.to_owned(), decision.to_xcom()));
            end.xcoms.extend(skips);
            end.decision = decision;
        }
        Some(Err(reason)) => {
            end.xcoms.clear();
            end.outcome = Outcome::Faulted { reason };
        }
    }
    end
}

/// The patterns of the task's rules that the end of a failed try's output matches. What minflow has ended is no failure of the
/// task's.
fn matched(begun: &Begun, end: &End, outcome: &Outcome) -> Vec<String> {
    let task = begun.work.dag.task(begun.work.task);
    let is_failure = match outcome {
        Outcome::Exited(code) => *code != 0 && !task.skip_on_exit_code.contains(code),
        Outcome::Killed { .. } => false,
        _ => true,
    };
    if !is_failure || !has_output_rules(task) {
        return Vec::new();
    }
    let tail = last_output(begun, end);
    let text = String::from_utf8_lossy(&tail);
    retry::matched(&task.retry_on, &text)
}

fn try_end(
    work: &Work,
    end: &End,
    collect: impl Fn(&End) -> Result<Vec<(String, serde_json::Value)>, String>,
) -> TryEnd {
    let task = work.dag.task(work.task);
    let mut xcoms = Vec::new();
    let outcome = match (&end.cause, end.exit) {
        (Cause::TimedOut, _) => Outcome::TimedOut,
        (Cause::Exceeded { limit }, Exit::Signal(signal)) => {
            Outcome::Exceeded { limit: *limit, exit_code: None, signal: Some(signal) }
        }
        (Cause::Exceeded { limit }, Exit::Code(code)) => {
            Outcome::Exceeded { limit: *limit, exit_code: Some(code), signal: None }
        }
        (Cause::Killed { reason }, _) => Outcome::Killed { reason: reason.clone() },
        (Cause::Itself, Exit::Signal(signal)) => Outcome::Signaled(signal),
        (Cause::Itself, Exit::Code(code)) => {
            let is_skip = task.skip_on_exit_code.contains(&code);
            match if code == 0 || is_skip { collect(end) } else { Ok(Vec::new()) } {
                Ok(found) => {
                    xcoms = found;
                    Outcome::Exited(code)
                }
                // A task that skips itself need not have printed what it was to print.
                Err(_) if is_skip => Outcome::Exited(code),
                Err(reason) => Outcome::Faulted { reason },
            }
        }
    };
    TryEnd {
        started_at: Some(end.started_at),
        usage: Some(end.usage),
        xcoms,
        ..TryEnd::new(work.key, outcome, end.ended_at)
    }
}

fn without_process(shared: &Shared, key: TryKey, outcome: Outcome) -> TryEnd {
    let ended_at = shared.clock.now();
    TryEnd::new(key, outcome, ended_at)
}

fn outcome_of(fault: Fault) -> Outcome {
    match fault {
        Fault::Task(reason) => Outcome::Faulted { reason },
        Fault::Host(reason) => Outcome::Unstarted { reason },
    }
}

pub(super) fn close(shared: &Shared, log: &TryLog, end: TryEnd) -> TryEnd {
    let end = masked(shared, end);
    log.close(&farewell(&end), shared.clock.now());
    end
}

/// Takes what is secret out of what the end of a try tells.
pub(super) fn masked(shared: &Shared, mut end: TryEnd) -> TryEnd {
    // A template's fault and a faulty output may quote what is secret; from here the reason goes to the database and the pages.
    let masker = shared.settings.tunables.now().secrets.masker();
    match &mut end.outcome {
        Outcome::Faulted { reason }
        | Outcome::Unstarted { reason }
        | Outcome::Skipped { reason }
        | Outcome::GivenUp { reason } => masker.mask_in(reason),
        Outcome::Deferred(wait) => wait.conceal(|text| match masker.mask(text) {
            Cow::Borrowed(_) => None,
            Cow::Owned(masked) => Some(masked),
        }),
        _ => {}
    }
    if let Some(reason) = &mut end.reason {
        masker.mask_in(reason);
    }
    end
}

pub(super) fn log_path(shared: &Shared, work: &Work) -> PathBuf {
    let task_id = &work.dag.task(work.task).task_id;
    let (logs, try_number) = (&shared.settings.logs, work.key.try_number);
    paths::log_path(logs, &work.dag.dag_id, &work.run.run_id, task_id, work.map_index, try_number)
}

/// Renders and writes all that the process needs, if there is to be one.
fn prepare(shared: &Shared, work: &Work, task: &Task, log: &TryLog, lookup: Arc<Asked>) -> Result<Todo, Fault> {
    let settings = &shared.settings;
    let run_dir = paths::run_dir(&settings.home, &work.dag.dag_id, &work.run.run_id);
    let scratch_folder = paths::scratch_folder(&run_dir);
    // All tries of a run share it: looking is cheaper than making it again.
    if !scratch_folder.is_dir() {
        try_log::make_folder(&scratch_folder).map_err(|error| Fault::of_file("make", &scratch_folder, &error))?;
    }
    let scratch = paths::scratch(&run_dir, &task.task_id, work.map_index, work.key.try_number);
    let xcom = xcom_path(&scratch);
    let mut context = context(shared, work, run_dir, lookup);
    match mapped::variables(&context, &shared.values, work.epoch) {
        Ok(variables) => context.variables = Arc::new(variables),
        Err(Stop::Refused) => return Ok(Todo::Skip),
        Err(Stop::Fault(reason)) => return Err(Fault::Task(reason)),
    }
    let account = run_as::account(task)?;
    let owner = &settings.owner;
    let folders = Folders { owner, home: utf8(&settings.home)?, run_dir: utf8(&context.run_dir)?, xcom: utf8(&xcom)? };
    let variables = environment::variables(work, folders);
    let mut env = Vec::with_capacity(task.env.len() + variables.added.len());
    for (name, value) in &task.env {
        env.push((name.clone(), template::render(value, &context)?));
    }
    // minflow's names win: they tell what is so.
    env.retain(|(name, _)| !variables.added.iter().any(|(ours, _)| ours == name));
    let search_path = env.iter().find(|(name, _)| name == "PATH").map_or(&*settings.search_path, |(_, value)| value);
    let dag_file = settings.dags_folder.join(&*work.file);
    let dag_folder = dag_file.parent().unwrap_or(&settings.dags_folder);
    let place = Place {
        dag_folder,
        home: &settings.home,
        scratch: &scratch,
        search_path,
        context: &context,
        earlier: work.earlier.as_deref(),
        now: shared.clock.now(),
    };
    let Program { argv, stdin, value, verdict, files } = match operators::prepare(&task.operator, &place)? {
        Step::Run(program) => program,
        Step::Ask(request) => return Ok(Todo::Ask(request)),
        Step::Answer(answer) => return Ok(Todo::Nothing(Some(answer))),
        Step::Nothing => return Ok(Todo::Nothing(None)),
        Step::Wait(wait) => return Ok(Todo::Wait(wait)),
    };
    for stale in value.iter().chain(&verdict).chain([&xcom]) {
        let _ = fs::remove_file(stale);
    }
    let cwd = match &task.cwd {
        Some(cwd) => utf8(&dag_folder.join(template::render(cwd, &context)?))?.to_owned(),
        None => folders.run_dir.to_owned(),
    };
    if let Some(account) = &account {
        run_as::environment(account, &mut env);
        let written: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let answers: Vec<&Path> = value.iter().chain(&verdict).chain([&xcom]).map(PathBuf::as_path).collect();
        let (run_dir, scratch_folder) = (&*context.run_dir, &*scratch_folder);
        let files = run_as::Files { run_dir, scratch_folder, log: log.path(), written: &written, answers: &answers };
        run_as::share(account, &files)?;
    }
    env.extend(variables.added);
    let start = Start {
        key: work.key,
        argv,
        cwd,
        stdin: stdin.as_deref().map(utf8).transpose()?.map(str::to_owned),
        env,
        env_removed: variables.removed,
        limits: task.limits.as_deref().cloned(),
        user: account.map(run_as::user),
        log: utf8(log.path())?.to_owned(),
        max_log_bytes: settings.tunables.now().max_log_bytes,
        timeout_ms: task.execution_timeout.map(|timeout| timeout.as_millis() as u64),
        kill_signal: task.kill_signal,
        grace_ms: task.grace.as_millis() as u64,
        tree: tree(task),
        leaves: task.leave_running,
        output_from: log.output_from(),
        memo: adopt::memo(value.as_deref(), verdict.as_deref(), &files),
        wants_tail: (value.is_none() && (looked_at(task) != Output::None || is_plugin(task))) || has_output_rules(task),
    };
    let variables = context.variables.clone();
    Ok(Todo::Start(Box::new(Prepared { start, value, verdict, xcom, files, variables })))
}

/// `$MINFLOW_XCOM` of a try.
pub fn xcom_path(scratch: &Path) -> PathBuf {
    let mut xcom = scratch.as_os_str().to_owned();
    xcom.push(".xcom");
    PathBuf::from(xcom)
}

/// Which of its processes end with it.
fn tree(task: &Task) -> Tree {
    match (&task.operator, task.kill_tree) {
        // It ends what it has started of the engine's command, and its container, on its own.
        (Operator::Tool(tool), _) if matches!(tool.kind, ToolKind::Docker) => Tree::Group,
        // What may stay need not be held together.
        (_, KillTree::Strict) if !task.leave_running => Tree::Strict,
        _ => Tree::Whole,
    }
}

pub(super) fn context(shared: &Shared, work: &Work, run_dir: PathBuf, lookup: Arc<Asked>) -> Context {
    let settings = &shared.settings;
    let folder = settings.dags_folder.strip_prefix(&settings.home).unwrap_or(&settings.dags_folder);
    let dag_file = settings.dags_folder.join(&*work.file);
    Context {
        dag: work.dag.clone(),
        file: folder.join(&*work.file).to_string_lossy().into(),
        task: work.task,
        run: work.run.clone(),
        try_number: work.key.try_number,
        max_tries: work.max_tries,
        map_index: work.map_index,
        run_dir,
        host: settings.host.clone(),
        variables: Arc::default(),
        overrides_params: settings.tunables.now().overrides_params,
        now: shared.clock.now(),
        environment: Arc::new(|name: &str| std::env::var(name).ok()),
        lookup,
        files: Arc::new(TemplateFolder::new(dag_file.parent().unwrap_or(&settings.dags_folder))),
        additions: Arc::default(),
        undefined: UndefinedKind::Strict,
    }
}

fn utf8(path: &Path) -> Result<&str, Fault> {
    path.to_str()
        .ok_or_else(|| Fault::Task(format!("the path `{}` is not UTF-8: rename it, or move the home", path.display())))
}
