//! Watches the dags folder: what is saved there reaches the scheduler as events within a second.
//!
//! Three ways of noticing lead to the same look at the folder (list, stat, read what changed): inotify after a short pause, a slow
//! rescan as a net for lost events, and a user's wish. Knows no state of any DAG; `parse` is given to it.

mod scan;
mod tracker;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, at, bounded, unbounded};
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;

use crate::diagnostic::Diagnostic;
use crate::health::Health;
use crate::model::Dag;
use crate::scheduler::event::{Event, EventSender};
use crate::settled::remote_name;
use scan::{Listing, is_dag_file, list};
use tracker::{SETTLE, Tracker};

/// Makes a DAG of a file's path, as users are shown it, and its bytes.
pub type Parse = Arc<dyn Fn(&Path, &[u8]) -> Result<Dag, Vec<Diagnostic>> + Send + Sync>;

/// Nothing may happen for so long before a look, so that a save is over.
const QUIET: Duration = Duration::from_millis(60);
/// A look comes after so long even if things go on happening.
const PATIENCE: Duration = Duration::from_millis(300);
/// The net for lost events.
const SLOW_RESCAN: Duration = Duration::from_secs(300);
/// Where inotify does not work.
const RESCAN: Duration = Duration::from_secs(5);
/// While there is no dags folder.
const MISSING_RESCAN: Duration = Duration::from_secs(1);

/// The name of the health condition.
const CONDITION: &str = "dags_folder";

/// Where to look.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// Absolute. It may be missing, and come and go.
    pub dags_folder: PathBuf,
    /// Absolute; what lies inside is named relative to it.
    pub home: PathBuf,
}

/// The running watch. Dropping it ends it, though a look that is under way is not awaited: its disk may hang.
#[derive(Debug)]
pub struct Watcher {
    orders: Sender<Order>,
}

enum Order {
    Rescan,
    Reread,
    /// Something changes what files are parsed by; true: those in which faults were found are read again.
    Change(Box<dyn FnOnce() -> bool + Send>),
    /// inotify cannot watch what was added: why, and what to do.
    Blind(String),
    Stop,
}

impl Watcher {
    /// Starts the thread, which scans at once: files in pieces, then an event that says that they are complete (if no folder
    /// failed to be listed, so that no DAG is taken for gone), then [`Event::Scanned`]. Later events carry what changed, and are
    /// never complete. Without a dags folder `Scanned` says that there is nothing to wait for, and the first scan comes when the
    /// folder is there.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(settings: WatchSettings, parse: Parse, events: EventSender, health: Health) -> io::Result<Self> {
        let (orders, receiver) = unbounded();
        let (hints, hinted) = bounded(1);
        let shown_root = settings.dags_folder.strip_prefix(&settings.home).unwrap_or(&settings.dags_folder);
        let worker = Worker {
            tracker: Tracker::new(settings.dags_folder.clone(), shown_root.to_owned(), parse),
            root: settings.dags_folder,
            events,
            health,
            eyes: Eyes { hints, orders: orders.clone(), targets: Arc::default() },
            inotify: None,
            watched: None,
            followed: BTreeSet::new(),
            is_blind: false,
            is_missing: false,
            is_first: true,
        };
        let run = move || worker.run(&receiver, &hinted);
        std::thread::Builder::new().name("watch".to_owned()).spawn(run)?;
        Ok(Self { orders })
    }

    /// Looks now.
    pub fn rescan(&self) {
        // A thread that has ended has said why.
        let _ = self.orders.send(Order::Rescan);
    }

    /// Changes what files are parsed by, after all that was ordered before has been read. If `change` says that it did, files in which
    /// faults were found are read again.
    pub fn change(&self, change: impl FnOnce() -> bool + Send + 'static) {
        // As above.
        let _ = self.orders.send(Order::Change(Box::new(change)));
    }

    /// Reads all files again now, changed or not, and tells each as if it were new, since what holds for all of them has changed.
    pub fn reread(&self) {
        // As above.
        let _ = self.orders.send(Order::Reread);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
    }
}

struct Worker {
    root: PathBuf,
    tracker: Tracker,
    events: EventSender,
    health: Health,
    eyes: Eyes,
    inotify: Option<RecommendedWatcher>,
    /// Device and inode of the root that is watched: a folder made anew is another one.
    watched: Option<(u64, u64)>,
    /// Links that have been followed, with their targets.
    followed: BTreeSet<(PathBuf, PathBuf)>,
    is_blind: bool,
    /// The dags folder cannot be listed.
    is_missing: bool,
    /// No look has succeeded yet.
    is_first: bool,
}

/// A burst of events, waiting for its end.
#[derive(Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

/// Nobody listens any longer.
struct Over;

impl Worker {
    fn run(mut self, orders: &Receiver<Order>, hints: &Receiver<()>) {
        let Ok(mut next_look) = self.look() else { return };
        let mut burst: Option<Burst> = None;
        loop {
            let burst_end = burst.map(|burst| (burst.last + QUIET).min(burst.first + PATIENCE));
            let deadline = burst_end.map_or(next_look, |end| end.min(next_look));
            let is_due = crossbeam::select! {
                recv(orders) -> order => match order {
                    Ok(Order::Rescan) => true,
                    Ok(Order::Reread) => {
                        self.retell();
                        true
                    }
                    Ok(Order::Change(change)) => {
                        let has_changed = change();
                        if has_changed {
                            self.tracker.forget_faulty();
                        }
                        has_changed
                    }
                    Ok(Order::Blind(why)) => {
                        self.go_blind(&why);
                        true
                    }
                    Ok(Order::Stop) | Err(_) => return,
                },
                recv(hints) -> _ => {
                    let now = Instant::now();
                    burst = Some(Burst { first: burst.map_or(now, |burst| burst.first), last: now });
                    false
                },
                recv(at(deadline)) -> _ => true,
            };
            // Under a storm of hints the deadline must not starve.
            if is_due || Instant::now() >= deadline {
                burst = None;
                match self.look() {
                    Ok(next) => next_look = next,
                    Err(Over) => return,
                }
            }
        }
    }

    /// One look at the folder, and when the next one is due at the latest.
    fn look(&mut self) -> Result<Instant, Over> {
        // Before listing, so that nothing falls between.
        self.watch_root();
        let listing = match list(&self.root) {
            Ok(listing) => listing,
            Err(error) => {
                self.miss_root(&error)?;
                return Ok(Instant::now() + MISSING_RESCAN);
            }
        };
        self.health.clear(CONDITION);
        self.is_missing = false;
        self.follow(&listing);
        let is_unsettled = if self.is_first { self.begin(&listing)? } else { self.go_on(&listing)? };
        Ok(Instant::now() + self.pause(is_unsettled))
    }

    fn pause(&self, is_unsettled: bool) -> Duration {
        match is_unsettled {
            true => SETTLE,
            false if self.is_blind => RESCAN,
            false => SLOW_RESCAN,
        }
    }

    fn begin(&mut self, listing: &Listing) -> Result<bool, Over> {
        let events = self.events.clone();
        let is_unsettled = self.tracker.begin(listing, |files| {
            // The event below sees whether anybody listens.
            let _ = events.send(Event::DagFiles { files, complete: false });
        });
        self.is_first = false;
        let complete = listing.unknown.is_empty();
        self.events.send(Event::DagFiles { files: Vec::new(), complete }).map_err(|_| Over)?;
        self.events.send(Event::Scanned).map_err(|_| Over)?;
        Ok(is_unsettled)
    }

    fn go_on(&mut self, listing: &Listing) -> Result<bool, Over> {
        let news = self.tracker.look(listing, Instant::now());
        if !news.files.is_empty() {
            self.events.send(Event::DagFiles { files: news.files, complete: false }).map_err(|_| Over)?;
        }
        Ok(news.is_unsettled)
    }

    /// Tells of all files again, in pieces, so that not all of them are in memory at once; the look that follows sees to the rest.
    fn retell(&mut self) {
        // A folder that cannot be listed is told of by that look.
        let Ok(listing) = list(&self.root) else { return };
        let events = self.events.clone();
        self.tracker.retell(&listing, |files| {
            // The next look sees whether anybody listens.
            let _ = events.send(Event::DagFiles { files, complete: false });
        });
    }

    /// The last good versions stay: a folder that is unmounted has not been emptied.
    fn miss_root(&mut self, error: &io::Error) -> Result<(), Over> {
        let was_missing = std::mem::replace(&mut self.is_missing, true);
        let root = self.root.display();
        self.health.raise(CONDITION, format!("failed to list `{root}`: {error}; make it or mend its permissions"));
        if self.is_first && !was_missing {
            return self.events.send(Event::Scanned).map_err(|_| Over);
        }
        Ok(())
    }

    fn watch_root(&mut self) {
        let identity = fs::metadata(&self.root).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if identity == self.watched {
            return;
        }
        self.inotify = None;
        self.followed.clear();
        self.watched = identity;
        self.is_blind = false;
        if identity.is_none() {
            return;
        }
        self.blind_if_remote();
        let eyes = self.eyes.clone();
        let watcher = notify::recommended_watcher(move |event| eyes.see(event)).and_then(|mut watcher| {
            watcher.watch(&self.root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => self.inotify = Some(watcher),
            Err(error) => self.go_blind(&reason(&error)),
        }
    }

    /// Watches what links lead to: inotify tells of a folder's entries, not of what lies behind them.
    fn follow(&mut self, listing: &Listing) {
        *self.eyes.targets.lock() = listing.targets.clone();
        let Some(inotify) = &mut self.inotify else {
            return;
        };
        let root = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        let folders = listing.linked_folders.iter().map(|(link, target)| (link.clone(), target.clone()));
        let files = listing.targets.iter().filter_map(|target| Some((target.parent()?.to_owned(), PathBuf::new())));
        for (path, target) in folders.chain(files) {
            let is_folder = !target.as_os_str().is_empty();
            if (!is_folder && path.starts_with(&root)) || !self.followed.insert((path.clone(), target)) {
                continue;
            }
            let mode = if is_folder { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            if let Err(error) = inotify.watch(&path, mode) {
                let why = reason(&error);
                return self.go_blind(&why);
            }
        }
    }

    fn blind_if_remote(&mut self) {
        if let Some(name) = remote_name(&self.root) {
            self.go_blind(&format!("it is on {name}, where changes made elsewhere go unnoticed"));
        }
    }

    fn go_blind(&mut self, why: &str) {
        if !self.is_blind {
            let (root, seconds) = (self.root.display(), RESCAN.as_secs());
            log::warn!("`{root}` is rescanned every {seconds} s instead of watched: {why}");
            self.is_blind = true;
        }
    }
}

/// What inotify's thread holds.
#[derive(Clone)]
struct Eyes {
    /// Room for one: a storm of events is one hint.
    hints: Sender<()>,
    orders: Sender<Order>,
    /// Files outside that links lead to; their names may be any.
    targets: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Eyes {
    fn see(&self, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) if !self.concerns(&event) => {}
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                let _ = self.orders.send(Order::Blind(reason(&error)));
            }
            // A full channel holds a hint already.
            _ => drop(self.hints.try_send(())),
        }
    }

    /// Whether it may have changed a DAG file. Our own reading opens files too.
    fn concerns(&self, event: &notify::Event) -> bool {
        let is_ours = |path: &PathBuf| is_dag_file(path) || self.targets.lock().contains(path);
        let may_be_folder = |path: &PathBuf| path.is_dir();
        match event.kind {
            _ if event.need_rescan() => true,
            EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Data(_)) => {
                event.paths.iter().any(is_ours)
            }
            EventKind::Access(_) => false,
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Metadata(_) | ModifyKind::Name(RenameMode::To)) => {
                event.paths.iter().any(|path| is_ours(path) || may_be_folder(path))
            }
            // What is gone cannot be asked whether it was a folder.
            EventKind::Remove(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => true,
        }
    }
}

fn reason(error: &notify::Error) -> String {
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "the limit of inotify watches is reached; raise it with `sysctl fs.inotify.max_user_watches=524288`, then restart minflow"
                .to_owned()
        }
        ErrorKind::Io(io) if io.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "no inotify instance is left; raise the limit with `sysctl fs.inotify.max_user_instances=512`, then restart minflow"
                .to_owned()
        }
        _ => format!("inotify failed: {error}"),
    }
}

#[cfg(test)]
mod tests;
