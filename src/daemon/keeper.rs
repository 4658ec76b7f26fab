//! The thread that looks after a running home's history: it goes on with what a crash has interrupted, and follows `[retention]` and
//! `logging.compress_after`. What it changes are orders to the loop; it waits for each, and pauses between two.

use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError, after, bounded, never, unbounded};
use jiff::Timestamp;

use crate::config::{Config, Retention};
use crate::health::Health;
use crate::keep::{self, Places, Port};
use crate::model::RunKey;
use crate::scheduler::command::{Command, CommandError, Done, Keep};
use crate::scheduler::event::{Event, EventSender};
use crate::scheduler::port::ReplyTo;
use crate::store::{Reader, Unreadable};

/// How long after a start the rules are first followed, and how often from then on.
const FIRST: Duration = Duration::from_secs(5);
const PERIOD: Duration = Duration::from_secs(3_600);

/// How soon what has failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The name under which the health board shows that history cannot go.
const CONDITION: &str = "retention";

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Has the rest of what was retired go.
    Sweep,
    /// Follows the rules, and sweeps.
    Follow,
}

impl Work {
    /// What has failed is tried again, whatever else there is.
    fn next(failed: Option<Self>, is_rung: bool) -> Self {
        failed.unwrap_or(if is_rung { Self::Sweep } else { Self::Follow })
    }
}

/// The thread; it ends when this is dropped.
pub(super) struct Keeper {
    bell: Sender<()>,
    /// Dropped when it is to end.
    open: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Round {
    rules: Retention,
    compress_after: Option<Duration>,
    places: Places,
    database: std::path::PathBuf,
    port: LoopPort,
    health: Health,
    closing: Closing,
    /// Runs that cannot be read and so stay, of which the log tells.
    named: BTreeSet<RunKey>,
}

/// Tells when the keeper is dropped.
#[derive(Clone)]
struct Closing(Receiver<()>);

impl Closing {
    fn has_come(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }
}

impl Keeper {
    pub(super) fn start(config: &Config, events: EventSender, health: Health) -> std::io::Result<Self> {
        let (bell, bells) = unbounded();
        let (open, closing) = bounded(0);
        let closing = Closing(closing);
        let mut round = Round {
            rules: config.retention.clone(),
            compress_after: config.logging.compress_after,
            places: Places::of(config),
            database: config.database.path.clone(),
            port: LoopPort { events, closing: closing.clone() },
            health,
            closing,
            named: BTreeSet::new(),
        };
        let work = move || {
            // Nobody waits for it: whatever else runs comes first. Where that is refused it is as others are.
            let _ = rustix::process::nice(10);
            round.run(&bells);
        };
        let thread = std::thread::Builder::new().name("keeper".to_owned()).stack_size(512 * 1024).spawn(work)?;
        Ok(Self { bell, open: Some(open), thread: Some(thread) })
    }

    /// Is rung when runs were retired.
    pub(super) fn bell(&self) -> Sender<()> {
        self.bell.clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.open = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Round {
    fn run(&mut self, bells: &Receiver<()>) {
        let has_rules = !self.rules.is_off() || self.rules.max_venv_age.is_some() || self.compress_after.is_some();
        let mut failed = self.tell(Work::Sweep);
        let mut next = FIRST;
        loop {
            let wait = if failed.is_some() { Some(RETRY) } else { Some(next).filter(|_| has_rules) };
            let is_rung = crossbeam::select! {
                recv(self.closing.0) -> _ => return,
                recv(bells) -> _ => true,
                recv(wait.map_or_else(never, after)) -> _ => false,
            };
            // What its own orders have rung meanwhile.
            while bells.try_recv().is_ok() {}
            let work = Work::next(failed, is_rung);
            failed = self.tell(work);
            if work == Work::Follow {
                next = PERIOD;
            }
        }
    }

    /// Does a piece of work; answers it if it has failed, which `/health` tells until it has not.
    fn tell(&mut self, work: Work) -> Option<Work> {
        let done = match work {
            Work::Sweep => self.sweep(),
            Work::Follow => self.follow(),
        };
        match done {
            Ok(()) => self.health.clear(CONDITION),
            // The loop has gone, and this thread follows.
            Err(_) if self.closing.has_come() => {}
            Err(error) => {
                self.health.raise(CONDITION, format!("{}; {}", error.message, error.help));
                return Some(work);
            }
        }
        None
    }

    fn reader(&self) -> Result<Reader, CommandError> {
        Reader::open(&self.database).map_err(|error| keep::of_store(error.into()))
    }

    fn sweep(&mut self) -> Result<(), CommandError> {
        let reader = self.reader()?;
        let closing = self.closing.clone();
        let goes_on = move || !closing.has_come();
        keep::sweep(&mut self.port, &reader, &self.places, &goes_on)?;
        keep::shrink(&mut self.port, &self.database, &goes_on)
    }

    fn follow(&mut self) -> Result<(), CommandError> {
        let reader = self.reader()?;
        let now = Timestamp::now();
        let planned = keep::plan(&reader, &self.rules, &self.places, now).map_err(keep::of_store)?;
        for Unreadable { key, dag_id, error } in planned.unreadable {
            if self.named.insert(key) {
                log::error!("retention: a run of `{dag_id}` stays: failed to {error}; {}", error.help);
            }
        }
        let gone = keep::retire(&mut self.port, &planned.runs, false, None, None)?.len();
        if let Some(before) = self.rules.max_audit_age.and_then(|age| now.checked_sub(age).ok()) {
            let (_, until) = reader.audit_before(before).map_err(keep::of_store)?;
            keep::cut_audit(&mut self.port, &reader, until, None)?;
        }
        if gone > 0 {
            log::info!("retention: {gone} runs have gone, with their logs and files");
        }
        self.sweep()?;
        if let Some(age) = self.rules.max_venv_age {
            let closing = self.closing.clone();
            let goes_on = move || !closing.has_come();
            let count = keep::prune_venvs(&reader, &self.places.venvs, age, &goes_on).map_err(keep::of_store)?;
            if count > 0 {
                log::info!("retention: {count} virtual environments have gone that nobody has used for long");
            }
        }
        if let Some(age) = self.compress_after {
            let closing = self.closing.clone();
            let goes_on = move || !closing.has_come();
            let count = keep::compress(&reader, &self.places, age, &goes_on).map_err(keep::of_store)?;
            if count > 0 {
                log::info!("{count} logs were compressed");
            }
        }
        Ok(())
    }
}

/// Orders to the loop of this process.
struct LoopPort {
    events: EventSender,
    closing: Closing,
}

impl Port for LoopPort {
    fn keep(&mut self, keep: Keep) -> Result<Vec<RunKey>, CommandError> {
        let gone = || CommandError {
            code: "stopping".to_owned(),
            message: "minflow is stopping".to_owned(),
            help: "the next start goes on with it".to_owned(),
        };
        let (sender, answer) = bounded(1);
        let reply = ReplyTo::new(move |reply| {
            let _ = sender.send(reply);
        });
        self.events.send(Event::Command { command: Command::Keep(keep), reply }).map_err(|_| gone())?;
        let kept = crossbeam::select! {
            recv(answer) -> answer => answer.map_err(|_| gone())??,
            recv(self.closing.0) -> _ => return Err(gone()),
        };
        let Done::Kept { runs } = kept else { unreachable!("an order is answered by what was kept") };
        std::thread::sleep(keep::PAUSE);
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_is_tried_again_and_not_something_less() {
        assert_eq!(Work::next(None, true), Work::Sweep);
        assert_eq!(Work::next(None, false), Work::Follow);
        for is_rung in [true, false] {
            assert_eq!(Work::next(Some(Work::Follow), is_rung), Work::Follow);
            assert_eq!(Work::next(Some(Work::Sweep), is_rung), Work::Sweep);
        }
    }
}
