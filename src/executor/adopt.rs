//! Takes over what an earlier minflow has left under way: from the supervisor that still runs it, or from what that has written down.
//!
//! A try that a living supervisor has goes on, and its end is concluded as any other. One whose end was written down is concluded by
//! that. What nobody knows is ended and lost (`reclaim`). Knows the memo, by which a try's files outlive the worker that made them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::executor::lost::{Look, Lost};
use crate::executor::try_log::TryLog;
use crate::executor::worker::{self, Begun};
use crate::executor::{CallSlot, Job, Shared, Told, call, paths, reclaim};
use crate::model::{Dag, Graph, Node, Operator, Output, ProcessIdentity, Task, TaskIx, TryKey};
use crate::scheduler::event::{Adopted, Attempt, Event};
use crate::scheduler::port::{Call, Force, Left, Stray, Work};
use crate::supervisor::Supervise;
use crate::supervisor::adopter::{AdoptedLine, Earlier, Heard, Inheritance, Records};
use crate::supervisor::adoption::{self, Ended, Kept, Runs, Verdict, try_key};

/// Why a process is ended that no instance has any longer.
const UNWANTED: &str = "no instance waits for it any longer";

/// The files of a try that its end needs, as the supervisor keeps them: an earlier minflow's are read for ever.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memo {
    pub(super) value: Option<PathBuf>,
    pub(super) verdict: Option<PathBuf>,
    pub(super) files: Vec<PathBuf>,
}

/// Empty if there is none of them, as with most tries.
pub(super) fn memo(value: Option<&Path>, verdict: Option<&Path>, files: &[PathBuf]) -> String {
    if value.is_none() && verdict.is_none() && files.is_empty() {
        return String::new();
    }
    let memo = Memo { value: value.map(Path::to_owned), verdict: verdict.map(Path::to_owned), files: files.to_vec() };
    serde_json::to_string(&memo).unwrap_or_default()
}

impl Memo {
    pub(super) fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// Under which the board tells that an earlier supervisor cannot be heard.
const CONDITION: &str = "adoption";
/// Between two attempts to hear it: nothing tells when the host has threads again.
const PAUSE: Duration = Duration::from_millis(500);

/// How a thread is made that hears an earlier supervisor.
type Spawn = fn(Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

pub(super) fn spawn(work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    // As deep as the reader of the own supervisor goes.
    std::thread::Builder::new().name("adopted".to_owned()).stack_size(1 << 20).spawn(work)
}

/// An earlier supervisor that nobody hears yet.
pub(super) struct Unheard {
    /// Until a thread has it.
    earlier: Mutex<Option<Earlier>>,
    line: Arc<AdoptedLine>,
}

/// What was taken over, until its ends are recorded.
pub(super) struct Adoptions {
    pub(super) spawn: Spawn,
    pub(super) look: Look,
    /// Who has to be told that a try is recorded.
    owners: BTreeMap<TryKey, Arc<AdoptedLine>>,
    /// The files of records, and which of their tries are not recorded yet.
    files: Vec<(PathBuf, BTreeSet<TryKey>)>,
    lines: Vec<Arc<AdoptedLine>>,
    readers: Vec<JoinHandle<()>>,
}

impl Default for Adoptions {
    fn default() -> Self {
        let (owners, files, lines, readers) = Default::default();
        Self { spawn, look: reclaim::processes, owners, files, lines, readers }
    }
}

impl Adoptions {
    /// Keeps all that shows what was begun until the end of what nobody has is recorded: if this minflow is killed before, the next one
    /// needs it. A word goes before the records that it counts.
    fn keep_for(&mut self, unknown: &BTreeSet<TryKey>, witnesses: Vec<PathBuf>) {
        let records = std::mem::take(&mut self.files);
        self.files.extend(witnesses.into_iter().map(|file| (file, BTreeSet::new())));
        self.files.extend(records);
        self.files.iter_mut().for_each(|(_, waiting)| waiting.extend(unknown));
        self.tidy();
    }

    /// Removes the files of which nothing is waited for, in their order.
    fn tidy(&mut self) {
        self.files.retain(|(path, waiting)| {
            if waiting.is_empty() {
                // One that cannot be removed is read again by the next start, which finds nothing in it that it waits for.
                let _ = std::fs::remove_file(path);
            }
            !waiting.is_empty()
        });
    }

    /// Closes the lines. The supervisors keep what they have.
    pub(super) fn hang_up(&mut self) -> Vec<JoinHandle<()>> {
        self.lines.iter().for_each(|line| line.hang_up());
        self.lines.clear();
        std::mem::take(&mut self.readers)
    }
}

/// Those that an earlier minflow has left, and nobody has been found for yet.
struct Wanted {
    tries: BTreeMap<TryKey, Box<Stray>>,
    calls: BTreeMap<TryKey, Box<Call>>,
    /// They are over, nobody understands how.
    puzzles: BTreeSet<TryKey>,
}

impl Wanted {
    fn has(&self, key: TryKey) -> bool {
        self.tries.contains_key(&key) || self.calls.contains_key(&key)
    }
}

/// What is to be done once the loop has been told what was adopted.
#[derive(Default)]
struct Found {
    adopted: Vec<Adopted>,
    jobs: Vec<Job>,
    running: usize,
}

impl Shared {
    /// See [`reclaim`](crate::scheduler::port::Executor::reclaim).
    pub(super) fn reclaim(self: &Arc<Self>, left: Left, inheritance: Inheritance) {
        inheritance.faults.iter().for_each(|fault| log::warn!("{fault}"));
        let mut wanted = Wanted {
            tries: left.tries.into_iter().map(|stray| (stray.key, Box::new(stray))).collect(),
            calls: left.calls.into_iter().map(|call| (call.row.try_key(), Box::new(call))).collect(),
            puzzles: BTreeSet::new(),
        };
        let mut witnesses = inheritance.witnesses;
        let mut found = Found::default();
        let mut listeners = Vec::new();
        // The newest first: a sensor's looks are one try, and an earlier look of it may be told of by an earlier supervisor.
        let mut records = inheritance.records;
        for earlier in inheritance.supervisors.into_iter().rev() {
            while let Some(newer) = records.pop_if(|records| records.name > earlier.name) {
                self.adopt_records(newer, &mut wanted, &mut found);
            }
            match earlier.line() {
                Ok(line) => {
                    self.adopt_from(&earlier, &line, &mut wanted, &mut found);
                    listeners.push((earlier, line));
                }
                Err(error) => {
                    witnesses.discredit();
                    log::warn!("the earlier supervisor {} cannot be heard: {error}", earlier.name.pid);
                }
            }
        }
        while let Some(records) = records.pop() {
            self.adopt_records(records, &mut wanted, &mut found);
        }
        let unknown: BTreeSet<TryKey> = wanted.tries.keys().copied().collect();
        let puzzles = &wanted.puzzles;
        let is_new =
            |stray: &Stray| !puzzles.contains(&stray.key) && stray.handed_at.is_some_and(|at| witnesses.know_of(at));
        let (unbegun, lost): (Vec<_>, Vec<_>) = wanted.tries.into_values().partition(|stray| is_new(stray));
        if !found.adopted.is_empty() || !unknown.is_empty() {
            log::info!(
                "an earlier minflow has left tasks: {} go on, {} have ended meanwhile, {} are unknown and lost, {} had not begun",
                found.running,
                found.adopted.len() - found.running,
                lost.len(),
                unbegun.len()
            );
        }
        self.adoptions.lock().keep_for(&unknown, witnesses.files);
        if !found.adopted.is_empty() {
            self.tell_loop([Event::Adopted(found.adopted)]);
        }
        found.jobs.into_iter().for_each(|job| self.crew.give(job));
        let unknown = lost.into_iter().map(Lost::Stray).chain(unbegun.into_iter().map(Lost::Unbegun));
        self.lose(unknown.chain(wanted.calls.into_values().map(Lost::Call)).collect());
        // Not before: what they tell is of tries that are known by now.
        for (earlier, line) in listeners {
            self.listen(earlier, line);
        }
    }

    /// Takes over what a living supervisor has.
    fn adopt_from(&self, earlier: &Earlier, line: &Arc<AdoptedLine>, wanted: &mut Wanted, found: &mut Found) {
        let mut recorded = Vec::new();
        for ended in &earlier.ended {
            let key = try_key(ended.key);
            if self.adopt_end(ended, wanted, found) {
                self.adoptions.lock().owners.insert(key, line.clone());
            } else {
                // It was told of and recorded, and only the acknowledgement was lost.
                Memo::read(&ended.kept.memo).files.iter().for_each(|file| drop(std::fs::remove_file(file)));
                recorded.push(key);
            }
        }
        if !recorded.is_empty() {
            line.acknowledge(&recorded);
        }
        for runs in &earlier.runs {
            let key = try_key(runs.key);
            if wanted.has(key) {
                self.adopt_running(runs, line, wanted, found);
                self.adoptions.lock().owners.insert(key, line.clone());
            } else {
                // What it tells of its end is acknowledged at once.
                line.kill(key, UNWANTED, Force::Graceful);
            }
        }
    }

    fn adopt_records(&self, records: Records, wanted: &mut Wanted, found: &mut Found) {
        let adopt = |(key, ended): (TryKey, &Ended)| self.adopt_end(ended, wanted, found).then_some(key);
        let waiting: BTreeSet<TryKey> =
            records.ended.iter().map(|(&key, ended)| (key, ended)).filter_map(adopt).collect();
        self.adoptions.lock().files.push((records.path, waiting));
    }

    /// Has a try concluded that is over. False: nobody waits for it.
    fn adopt_end(&self, ended: &Ended, wanted: &mut Wanted, found: &mut Found) -> bool {
        let key = try_key(ended.key);
        let Some(told) = ended.verdict().map(Told::from) else {
            log::warn!(
                "how try {key} of an earlier minflow has ended is told in words of a newer one; it counts as lost"
            );
            wanted.puzzles.insert(key);
            return false;
        };
        if let Some(stray) = wanted.tries.remove(&key) {
            let begun = self.begun(*stray, &ended.kept);
            found.jobs.push(Job::Conclude(begun, told));
            found.adopted.push(Adopted::Over(key));
            return true;
        }
        let Some(call) = wanted.calls.remove(&key) else { return false };
        self.calls.lock().insert(key, CallSlot::default());
        found.jobs.push(Job::ConcludeCall(Box::new(call::adopted(self, call, &ended.kept)), told));
        true
    }

    /// Takes a try over that still runs.
    fn adopt_running(&self, runs: &Runs, line: &Arc<AdoptedLine>, wanted: &mut Wanted, found: &mut Found) {
        let key = try_key(runs.key);
        if let Some(call) = wanted.calls.remove(&key) {
            let begun = Box::new(call::adopted(self, call, &runs.kept));
            let slot = CallSlot { kill: None, begun: Some(begun), line: Some(line.clone()) };
            self.calls.lock().insert(key, slot);
            return;
        }
        let Some(stray) = wanted.tries.remove(&key) else { return };
        match (stray.is_paused, runs.is_paused) {
            (true, false) => line.pause(key),
            (false, true) => line.resume(key),
            _ => {}
        }
        if let Some(reason) = &stray.unwanted {
            line.kill(key, reason, Force::Graceful);
        }
        let process = runs.process.clone().map(ProcessIdentity::from);
        let attempt = process.clone().and_then(|process| attempt(key, process, runs.started_at));
        found.adopted.push(Adopted::Runs(key, attempt));
        found.running += 1;
        let begun = self.begun(*stray, &runs.kept);
        self.adopt_try(begun, process, line.clone());
    }

    /// What the end of a try needs that somebody else has prepared.
    fn begun(&self, stray: Stray, kept: &Kept) -> Box<Begun> {
        let (run, try_number) = (&stray.run, stray.key.try_number);
        let (logs, home) = (&self.settings.logs, &self.settings.home);
        let log = paths::log_path(logs, &run.dag_id, &run.run_id, &stray.task_id, stray.map_index, try_number);
        let scratch = paths::scratch(
            &paths::run_dir(home, &run.dag_id, &run.run_id),
            &stray.task_id,
            stray.map_index,
            try_number,
        );
        let work = stray.work.clone().unwrap_or_else(|| bare_work(&stray));
        let log = TryLog::resume(log, kept.output_from);
        Box::new(Begun::adopted(Box::new(work), log, Memo::read(&kept.memo), worker::xcom_path(&scratch)))
    }

    /// Hears it on a thread of its own. If the host has none left, a worker tries again until it has: meanwhile what ends there is kept
    /// there.
    pub(super) fn listen(self: &Arc<Self>, earlier: Earlier, line: Arc<AdoptedLine>) {
        self.adoptions.lock().lines.push(line.clone());
        let unheard = Arc::new(Unheard { earlier: Mutex::new(Some(earlier)), line });
        if self.try_to_hear(&unheard).is_err() {
            self.crew.give(Job::Hear(unheard));
        }
    }

    pub(super) fn hear_at_last(self: &Arc<Self>, unheard: &Arc<Unheard>) {
        while let Err(error) = self.try_to_hear(unheard) {
            let reason = format!(
                "an earlier supervisor cannot be heard, and the ends of its tasks wait: {error}; free threads or memory (ulimit -u)"
            );
            self.health.raise(CONDITION, reason);
            let _ = self.closing.recv_timeout(PAUSE);
            if self.is_closing() {
                return;
            }
        }
        self.health.clear(CONDITION);
    }

    fn try_to_hear(self: &Arc<Self>, unheard: &Arc<Unheard>) -> io::Result<()> {
        let (shared, mine) = (self.clone(), unheard.clone());
        let listen = move || {
            let Some(earlier) = mine.earlier.lock().take() else { return };
            let pid = earlier.name.pid;
            earlier.listen(|heard| shared.hear_adopted(&mine.line, pid, heard));
        };
        let mut adoptions = self.adoptions.lock();
        let thread = (adoptions.spawn)(Box::new(listen))?;
        adoptions.readers.push(thread);
        Ok(())
    }

    fn hear_adopted(&self, line: &Arc<AdoptedLine>, pid: i32, heard: Heard) {
        let mut news = Vec::new();
        match heard {
            Heard::Told(adoption::Told::Ended(ended)) => {
                let key = try_key(ended.key);
                match ended.verdict() {
                    Some(verdict) if self.has_adopted(key) => self.tell(key, verdict.into(), &mut news),
                    _ => line.acknowledge(&[key]),
                }
            }
            Heard::Told(adoption::Told::Started { key, process, started_at }) => {
                let key = try_key(key);
                let process = ProcessIdentity::from(process);
                self.note_process(key, &process);
                news.extend(attempt(key, process, started_at).filter(|_| !call::is_call(key)).map(Event::Started));
            }
            Heard::Told(_) => {}
            Heard::Gone(records) => self.lose_adopted(line, pid, records, &mut news),
        }
        self.tell_loop(news);
    }

    /// An earlier supervisor has ended. What it still had is concluded by what it has written down, or lost.
    fn lose_adopted(&self, line: &Arc<AdoptedLine>, pid: i32, records: Option<Records>, news: &mut Vec<Event>) {
        if self.is_closing() {
            return;
        }
        let mut left: BTreeMap<TryKey, Option<ProcessIdentity>> = self.tries_of(line);
        let calls = self.calls.lock();
        left.extend(calls.iter().filter(|(_, slot)| slot.is_of(line)).map(|(&key, _)| (key, None)));
        drop(calls);
        if !left.is_empty() {
            log::warn!("the earlier supervisor {pid} ended while it had {} tasks", left.len());
        }
        let (mut waiting, mut lost) = (BTreeSet::new(), Vec::new());
        for (key, process) in left {
            match records.as_ref().and_then(|records| records.ended.get(&key)?.verdict()) {
                Some(verdict) => {
                    waiting.insert(key);
                    self.tell(key, verdict.into(), news);
                }
                None => lost.extend(self.take_lost(key, process)),
            }
        }
        self.lose(lost);
        let mut adoptions = self.adoptions.lock();
        adoptions.lines.retain(|known| !Arc::ptr_eq(known, line));
        // Those that were told before and are not recorded yet stand in the file as well.
        let untold = adoptions.owners.iter().filter(|(_, owner)| Arc::ptr_eq(owner, line)).map(|(&key, _)| key);
        waiting.extend(untold);
        adoptions.owners.retain(|_, owner| !Arc::ptr_eq(owner, line));
        if let Some(records) = records {
            waiting.retain(|key| records.ended.contains_key(key));
            adoptions.files.push((records.path, waiting));
            adoptions.tidy();
        }
    }

    /// Tells those who had started them that these tries are recorded. Gives those that the own supervisor has.
    pub(super) fn acknowledge_adopted(&self, keys: &[TryKey]) -> Vec<TryKey> {
        let mut adoptions = self.adoptions.lock();
        let (mut own, mut told) = (Vec::with_capacity(keys.len()), Vec::<(Arc<AdoptedLine>, Vec<TryKey>)>::new());
        for &key in keys {
            match adoptions.owners.remove(&key) {
                None => own.push(key),
                Some(owner) => match told.iter_mut().find(|(line, _)| Arc::ptr_eq(line, &owner)) {
                    Some((_, keys)) => keys.push(key),
                    None => told.push((owner, vec![key])),
                },
            }
            for (_, waiting) in &mut adoptions.files {
                waiting.remove(&key);
            }
        }
        adoptions.tidy();
        drop(adoptions);
        told.into_iter().for_each(|(line, keys)| line.acknowledge(&keys));
        own
    }
}

impl From<Verdict> for Told {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ended(end) => Self::Ended(end),
            Verdict::NotStarted { kind, message } => Self::NotStarted { kind, message },
        }
    }
}

/// None: its instant is none.
fn attempt(key: TryKey, process: ProcessIdentity, started_at: i64) -> Option<Attempt> {
    Some(Attempt { key, process, started_at: Timestamp::from_microsecond(started_at).ok()? })
}

/// A try whose task nobody defines any longer: its exit code is all that counts.
fn bare_work(stray: &Stray) -> Work {
    let task = Task {
        kill_signal: stray.kill_signal,
        grace: stray.grace,
        output: Output::None,
        ..Task::new(stray.task_id.clone(), Operator::Empty)
    };
    let graph = Graph::new(vec![Node::default()], &[]).expect("one task makes no cycle");
    Work {
        key: stray.key,
        dag: Arc::new(Dag::new(stray.run.dag_id.clone(), vec![task], graph)),
        file: Arc::from(""),
        task: TaskIx(0),
        map_index: stray.map_index,
        run: stray.run.clone(),
        max_tries: 0,
        earlier: None,
        epoch: 0,
    }
}
