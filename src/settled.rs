//! Files that have settled: that match a pattern and have not changed for a while, so that nobody is still writing them.
//!
//! One thread watches all patterns of its owner by inotify, and looks at intervals where the kernel cannot tell: where a limit is
//! reached, or on a network share. Whoever asks is told of the first file, or of each; what that means is not known here. Nothing is
//! remembered over a restart: a file that lies there is told again, and who must count it once keeps a ledger of [`Stamp`]s.
//!
//! A file has settled when its size, its time of modification and its inode have stood for the settle time. On a local disk the time
//! of its last change tells for how long they have; elsewhere only what was seen counts.

mod eyes;
mod folders;
mod listing;
mod sightings;
#[cfg(test)]
mod tests;
mod watcher;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use rustix::event::EventfdFlags;
use rustix::fd::OwnedFd;

use self::eyes::Eyes;
pub use self::eyes::remote_name;
use self::watcher::{Order, Watcher};
use crate::health::Health;
pub use crate::model::asset::{SettledFile, Stamp};
pub use crate::pattern::{Pattern, PatternFault};

/// At most so many files are told at once.
pub const MOST_AT_ONCE: usize = 1_000;

/// What to tell of.
#[derive(Clone, Debug)]
pub struct Wish {
    pub pattern: Pattern,
    /// For so long a file must not have changed.
    pub settle: Duration,
    /// How often to look where the kernel cannot tell.
    pub look_every: Duration,
    pub until: Until,
}

/// When a wish is fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// By the first files that have settled.
    First,
    /// Never: each file is told.
    Forgotten,
}

/// An answer to a wish. Both lists are in order of their paths, and never both empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Told<K> {
    pub key: K,
    /// At most [`MOST_AT_ONCE`]. Each as often as it has become another file.
    pub files: Vec<SettledFile>,
    /// Files that were told and are not there any longer; only where each file is told.
    pub gone: Vec<PathBuf>,
}

/// The thread that looks. Dropping it ends it, though a look that is under way is not awaited: its disk may hang.
#[derive(Debug)]
pub struct Settled<K> {
    orders: Sender<Order<K>>,
    alarm: Arc<OwnedFd>,
}

impl<K: Ord + Copy + Send + 'static> Settled<K> {
    /// `name` is the thread's, and that of the health condition which tells that the kernel cannot watch. `tell` must not block.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start(name: &'static str, health: Health, tell: impl FnMut(Told<K>) + Send + 'static) -> io::Result<Self> {
        Self::start_with(Eyes::open(), name, health, tell)
    }

    fn start_with(
        eyes: Eyes<K>,
        name: &'static str,
        health: Health,
        tell: impl FnMut(Told<K>) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, receiver) = crossbeam::channel::unbounded();
        let alarm = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let watcher = Watcher::new(name, health, eyes, Box::new(tell));
        let heard = Arc::clone(&alarm);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || watcher.run(&receiver, &heard))?;
        Ok(Self { orders, alarm })
    }

    /// Looks at once, and then whenever something may have changed. A wish with the same key is replaced, and told anew.
    pub fn watch(&self, key: K, wish: Wish) {
        self.watch_knowing(key, wish, Vec::new());
    }

    /// The same, where these files have been told before: each is told when it is another by now, or gone.
    pub fn watch_knowing(&self, key: K, wish: Wish, known: Vec<(PathBuf, Stamp)>) {
        self.order(Order::Watch(key, Box::new(wish), known));
    }

    /// What was told before may still arrive.
    pub fn forget(&self, key: K) {
        self.order(Order::Forget(key));
    }
}

impl<K> Settled<K> {
    fn order(&self, order: Order<K>) {
        // A thread that has ended has said why.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&*self.alarm, &1_u64.to_ne_bytes());
    }
}

impl<K> Drop for Settled<K> {
    fn drop(&mut self) {
        self.order(Order::Stop);
    }
}
