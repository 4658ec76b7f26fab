//! The thread behind [`Settled`](crate::settled::Settled): orders, the kernel's news and deadlines come in, files go out.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, TryRecvError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::health::Health;
use crate::pattern::join;
use crate::settled::eyes::{Eyes, Glance, Number, remote_name};
use crate::settled::folders::{Folders, Known, Shared};
use crate::settled::listing::{list, look};
use crate::settled::sightings::{Found, Sightings};
use crate::settled::{MOST_AT_ONCE, SettledFile, Stamp, Told, Until, Wish};

/// The net for lost events, and for a folder above the watched ones that was moved.
const NET: Duration = Duration::from_secs(300);
/// So long news gather before they are looked at: a storm of them costs one look.
const GATHER: Duration = Duration::from_millis(10);
/// Nobody's looks come more often without a reason.
const SHORTEST: Duration = Duration::from_millis(100);
/// Looks at a whole pattern leave so many times their own length of pause.
const REST: u32 = 4;

#[derive(Debug)]
pub(super) enum Order<K> {
    Watch(K, Box<Wish>, Vec<(PathBuf, Stamp)>),
    Forget(K),
    Stop,
}

/// An instant as what has passed since the thread began: thousands are kept, and an [`Instant`] is twice as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(NonZeroU64);

impl Moment {
    fn of(at: Instant, began: Instant) -> Self {
        let nanoseconds = u64::try_from(at.saturating_duration_since(began).as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanoseconds))
    }

    fn instant(self, began: Instant) -> Instant {
        began + Duration::from_nanos(self.0.get() - 1)
    }
}

/// One wish, and what is known of it.
#[derive(Debug)]
struct Watch {
    wish: Wish,
    sightings: Sightings,
    /// Those that decide.
    folders: Folders,
    /// When to look at everything again; None: the kernel tells of all of it, and the net is enough.
    look_at: Option<Moment>,
    /// No look before that, however much there is to look at.
    rests_until: Moment,
    /// What keeps it from seeing all, if something does.
    lack: Option<Box<Lack>>,
    /// Its place among the deadlines.
    due: Option<Moment>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Lack {
    /// Why the kernel does not tell of all of its folders, if that is a limit of the host.
    limit: Option<String>,
    /// Folders that cannot be read, which has been said.
    closed: BTreeSet<PathBuf>,
}

pub(super) struct Watcher<K> {
    name: &'static str,
    health: Health,
    tell: Box<dyn FnMut(Told<K>) + Send>,
    eyes: Eyes<K>,
    paths: Shared,
    /// Boxed: the places of a tree are half empty, and there may be thousands.
    watches: BTreeMap<K, Box<Watch>>,
    deadlines: BTreeSet<(Moment, K)>,
    began: Instant,
    /// When all are looked at that have no deadline of their own.
    net_at: Instant,
}

impl<K: Ord + Copy> Watcher<K> {
    pub(super) fn new(name: &'static str, health: Health, eyes: Eyes<K>, tell: Box<dyn FnMut(Told<K>) + Send>) -> Self {
        let began = Instant::now();
        let (paths, watches, deadlines) = (Shared::default(), BTreeMap::new(), BTreeSet::new());
        Self { name, health, tell, eyes, paths, watches, deadlines, began, net_at: began + NET }
    }

    pub(super) fn run(mut self, orders: &Receiver<Order<K>>, alarm: &OwnedFd) {
        let mut gathers_until: Option<Instant> = None;
        loop {
            loop {
                match orders.try_recv() {
                    Ok(Order::Watch(key, wish, known)) => self.take_up(key, *wish, known),
                    Ok(Order::Forget(key)) => self.forget(key),
                    Err(TryRecvError::Empty) => break,
                    Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return,
                }
            }
            if gathers_until.is_some_and(|until| until <= Instant::now()) {
                gathers_until = None;
                self.hear();
            }
            self.work_off();
            let net_at = (!self.watches.is_empty()).then_some(self.net_at);
            let first = self.deadlines.first().map(|(at, _)| at.instant(self.began));
            let deadline = [first, gathers_until, net_at].into_iter().flatten().min();
            match self.wait(alarm, deadline, gathers_until.is_none()) {
                Ok(true) => gathers_until = Some(Instant::now() + GATHER),
                Ok(false) => {}
                Err(errno) => {
                    let name = self.name;
                    return log::error!("{name}: failed to wait for news of files: {errno}; restart minflow");
                }
            }
        }
    }

    /// Sleeps until an order, the deadline, or if `for_news` something of the kernel has come; the answer is whether that was it.
    fn wait(&self, alarm: &OwnedFd, deadline: Option<Instant>, for_news: bool) -> Result<bool, Errno> {
        let mut sources = vec![PollFd::new(alarm, PollFlags::IN)];
        if let Some(kernel) = self.eyes.descriptor().filter(|_| for_news) {
            sources.push(PollFd::from_borrowed_fd(kernel, PollFlags::IN));
        }
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        let is_ready = |source: &PollFd<'_>| !source.revents().is_empty();
        let has_news = sources.get(1).is_some_and(is_ready);
        if sources.first().is_some_and(is_ready) {
            // It is empty already if two wake-ups were one.
            let _ = rustix::io::read(alarm, &mut [0; 8]);
        }
        Ok(has_news)
    }

    pub(super) fn take_up(&mut self, key: K, wish: Wish, known: Vec<(PathBuf, Stamp)>) {
        self.forget(key);
        let sightings = Sightings::of_told(known, Instant::now());
        let now = self.now();
        let watch = Watch {
            wish,
            sightings,
            folders: Folders::default(),
            lack: None,
            look_at: Some(now),
            rests_until: now,
            due: Some(now),
        };
        self.watches.insert(key, Box::new(watch));
        self.deadlines.insert((now, key));
    }

    fn now(&self) -> Moment {
        Moment::of(Instant::now(), self.began)
    }

    fn forget(&mut self, key: K) {
        let Some(watch) = self.watches.remove(&key) else { return };
        watch.due.map(|due| self.deadlines.remove(&(due, key)));
        for number in watch.folders.numbers() {
            self.eyes.release(number, key);
        }
        // It goes over all of them.
        if watch.limit().is_some() {
            self.report_limit();
        }
        self.paths.give_back(watch.folders);
    }

    /// What the kernel tells leads to looks at single files, or at all of a pattern.
    fn hear(&mut self) {
        let mut touched: BTreeMap<K, BTreeSet<PathBuf>> = BTreeMap::new();
        loop {
            let glances = self.eyes.read();
            if glances.is_empty() {
                break;
            }
            for glance in glances {
                match glance {
                    Glance::At { number, name, is_folder, keys } => {
                        for key in keys {
                            self.notice(key, number, &name, is_folder, &mut touched);
                        }
                    }
                    Glance::Lost(keys) => keys.into_iter().for_each(|key| self.look_soon(key)),
                    Glance::Anything => {
                        let keys: Vec<K> = self.watches.keys().copied().collect();
                        keys.into_iter().for_each(|key| self.look_soon(key));
                    }
                }
            }
        }
        for (key, paths) in touched {
            self.look_at_files(key, paths.into_iter().collect());
        }
    }

    /// Something about this name in a folder of the watch.
    fn notice(
        &mut self,
        key: K,
        folder: Number,
        name: &[u8],
        is_folder: bool,
        touched: &mut BTreeMap<K, BTreeSet<PathBuf>>,
    ) {
        let Some(watch) = self.watches.get(&key) else { return };
        let pattern = &watch.wish.pattern;
        let paths: Vec<PathBuf> =
            watch.folders.paths_to(folder, pattern).iter().map(|folder| join(folder, name)).collect();
        // A link to a folder comes and goes as a file.
        let is_folder = |path: &Path| is_folder || path.is_dir() || watch.folders.get(path, pattern).is_some();
        if paths.iter().any(|path| pattern.leads_through(path) && is_folder(path)) {
            self.look_soon(key);
        } else {
            let files = paths.into_iter().filter(|path| pattern.matches(path));
            touched.entry(key).or_default().extend(files);
        }
    }

    fn look_soon(&mut self, key: K) {
        if let Some(watch) = self.watches.get_mut(&key) {
            watch.look_at = Some(watch.rests_until);
            self.arm(key);
        }
    }

    fn arm(&mut self, key: K) {
        let Some(watch) = self.watches.get_mut(&key) else { return };
        let next_at = watch.sightings.next_at().map(|at| Moment::of(at, self.began));
        let due = [next_at, watch.look_at].into_iter().flatten().min();
        if let Some(before) = std::mem::replace(&mut watch.due, due) {
            self.deadlines.remove(&(before, key));
        }
        self.deadlines.extend(due.map(|due| (due, key)));
    }

    pub(super) fn work_off(&mut self) {
        let now = Instant::now();
        if self.net_at <= now {
            self.net_at = now + NET;
            let idle = self.watches.iter().filter(|(_, watch)| watch.look_at.is_none());
            let idle: Vec<K> = idle.map(|(key, _)| *key).collect();
            idle.into_iter().for_each(|key| self.look_soon(key));
        }
        let moment = Moment::of(now, self.began);
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= moment
        {
            let Some(watch) = self.watches.get(&key) else {
                self.deadlines.remove(&(at, key));
                continue;
            };
            if watch.look_at.is_some_and(|at| at <= moment) {
                self.look_at_all(key);
            } else {
                let due = watch.sightings.due(now);
                self.look_at_files(key, due);
            }
        }
    }

    fn look_at_all(&mut self, key: K) {
        let started_at = Instant::now();
        let Some(watch) = self.watches.get_mut(&key) else { return };
        let (mut folders, mut limit, mut is_blind) = (BTreeMap::<PathBuf, Known>::new(), None, false);
        let eyes = &mut self.eyes;
        let listing = list(&watch.wish.pattern, |folder| {
            if let Some(known) = folders.get(folder) {
                return known.is_local;
            }
            let is_local = remote_name(folder).is_none();
            let number = eyes.watch(folder, key).unwrap_or_else(|why| {
                limit = Some(why);
                None
            });
            is_blind |= number.is_none() || !is_local;
            folders.insert(folder.to_owned(), Known { number, is_local });
            is_local
        });
        let is_blind = is_blind || !listing.closed.is_empty();
        let folders = Folders::new(folders, &watch.wish.pattern, &mut self.paths);
        let before = std::mem::replace(&mut watch.folders, folders);
        for gone in before.numbers().difference(&watch.folders.numbers()) {
            self.eyes.release(*gone, key);
        }
        self.paths.give_back(before);
        watch.say_closed(&listing.closed);
        let has_changed = watch.limit() != limit.as_ref();
        let lack = Lack { limit, closed: listing.closed.iter().map(|(folder, _)| folder.clone()).collect() };
        watch.lack = (lack != Lack::default()).then(|| Box::new(lack));
        let there: BTreeSet<&Path> = listing.files.iter().map(|(path, _)| path.as_path()).collect();
        // What lies in a folder that cannot be read has not gone.
        let is_hidden = |path: &PathBuf| listing.closed.iter().any(|(folder, _)| path.starts_with(folder));
        let absent: Vec<PathBuf> = watch.sightings.absent(&there).into_iter().filter(|path| !is_hidden(path)).collect();
        let now = Instant::now();
        watch.rests_until = Moment::of(now + (now - started_at) * REST, self.began);
        watch.look_at = is_blind.then(|| Moment::of(now + watch.wish.look_every.max(SHORTEST), self.began));
        let seen = listing.files.into_iter().map(|(path, found)| (path, Some(found)));
        self.take_in(key, seen.chain(absent.into_iter().map(|path| (path, None))).collect());
        if let Some(watch) = self.watches.get_mut(&key) {
            watch.sightings.end_first_look();
        }
        if has_changed {
            self.report_limit();
        }
    }

    fn look_at_files(&mut self, key: K, paths: Vec<PathBuf>) {
        let Some(watch) = self.watches.get(&key) else { return };
        let is_local = |path: &Path| {
            let known = path.parent().and_then(|folder| watch.folders.get(folder, &watch.wish.pattern));
            known.is_some_and(|known| known.is_local)
        };
        let seen = paths.into_iter().map(|path| {
            let found = look(&path, is_local(&path));
            (path, found)
        });
        let seen = seen.collect();
        self.take_in(key, seen);
    }

    /// What was found at these paths, or that nothing is there.
    fn take_in(&mut self, key: K, seen: Vec<(PathBuf, Option<Found>)>) {
        let Some(watch) = self.watches.get_mut(&key) else { return };
        let (now, settle) = (Instant::now(), watch.wish.settle);
        let (mut files, mut gone) = (Vec::new(), Vec::new());
        for (path, found) in seen {
            match found {
                Some(found) if watch.sightings.see(&path, found, settle, now) => {
                    let lay_there = watch.sightings.lay_there(&path);
                    files.push(SettledFile { path, stamp: found.stamp, changed_at: found.changed_at, lay_there });
                }
                Some(_) => {}
                None if watch.sightings.miss(&path) => gone.push(path),
                None => {}
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        gone.sort();
        match watch.wish.until {
            Until::Forgotten => self.arm(key),
            Until::First if files.is_empty() => {
                gone.clear();
                self.arm(key);
            }
            Until::First => {
                files.truncate(MOST_AT_ONCE);
                self.forget(key);
            }
        }
        self.tell(key, files, gone);
    }

    fn tell(&mut self, key: K, mut files: Vec<SettledFile>, mut gone: Vec<PathBuf>) {
        while !files.is_empty() || !gone.is_empty() {
            let rest = files.split_off(files.len().min(MOST_AT_ONCE));
            let first = std::mem::replace(&mut files, rest);
            (self.tell)(Told { key, files: first, gone: std::mem::take(&mut gone) });
        }
    }

    /// Said once, for as long as any pattern lacks the kernel's help.
    fn report_limit(&self) {
        let limited = self.watches.values().find_map(|watch| watch.limit().map(|limit| (watch, limit)));
        match limited {
            Some((watch, limit)) => {
                let (pattern, every) = (watch.wish.pattern.as_str(), watch.wish.look_every.as_secs_f64());
                let reason = format!("`{pattern}` is looked at every {every} s instead of watched: {limit}");
                self.health.raise(self.name, reason);
            }
            None => self.health.clear(self.name),
        }
    }
}

impl Watch {
    fn limit(&self) -> Option<&String> {
        self.lack.as_ref()?.limit.as_ref()
    }

    /// Says which folders cannot be read, if that has not been said.
    fn say_closed(&self, closed: &[(PathBuf, String)]) {
        let is_said = |folder: &PathBuf| self.lack.as_ref().is_some_and(|lack| lack.closed.contains(folder));
        for (folder, why) in closed.iter().filter(|(folder, _)| !is_said(folder)) {
            let (pattern, folder) = (self.wish.pattern.as_str(), folder.display());
            log::warn!(
                "`{pattern}`: failed to list `{folder}`: {why}; files in it are not seen until minflow may read it"
            );
        }
    }
}
