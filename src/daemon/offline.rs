//! A command without a running minflow: this process takes the home's lock, makes the change, and ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::bounded;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::executor::LiveTunables;
use crate::health::Health;
use crate::model::{AssetKey, PoolName, TryKey, Wait};
use crate::scheduler::command::{Asker, Command, CommandError, Reply, Stop};
use crate::scheduler::event::{self, DagFile};
use crate::scheduler::gauge::{GaugeBoard, Heartbeat};
use crate::scheduler::port::{
    Call, Executor, FileWatch, FileWish, Followers, HostWatch, Kill, Left, ReplyTo, Timer, Triggerer, Work,
};
use crate::scheduler::turn::{Parts, Scheduler};
use crate::scheduler::{Event, Store};
use crate::store::Database;
use crate::watch::{WatchSettings, Watcher};

use super::{HomeLock, LiveDefaults, RunError, io_error, live_defaults, scheduler_settings};

/// Carries out `command` on the home of `config`.
///
/// # Errors
/// The home is locked or its database cannot be used; whether the command itself was refused is in the reply.
pub fn apply_offline(config: &Config, command: Command) -> Result<Reply, RunError> {
    let _lock = HomeLock::take(&config.home)?;
    let mut database = Database::open(&config.database.path, config.database.synchronous)?;
    let snapshot = database.load()?;
    let defaults = live_defaults(config, &snapshot);
    let parts = Parts {
        store: Box::new(database),
        executor: Box::new(Nobody),
        triggerer: Box::new(Nobody),
        timer: Box::new(Nobody),
        files: Box::new(Nobody),
        followers: Box::new(Nobody),
        host: Box::new(Nobody),
        clock: Arc::new(SystemClock),
        health: Health::default(),
        gauges: GaugeBoard::default(),
        heartbeat: Heartbeat::default(),
    };
    let mut scheduler = Scheduler::new(scheduler_settings(config), snapshot, defaults.restore(), parts);
    let files = dag_files(config, &defaults)?;
    let (sender, replies) = bounded(1);
    let reply = ReplyTo::new(move |reply| {
        let _ = sender.send(reply);
    });
    // Without `Scanned` nothing is decided, and nobody is here to carry it out.
    let found = Event::DagFiles { files, complete: false };
    scheduler.turn(vec![found, Event::Command { command, reply }]);
    // The runs of a new backfill are made in turns of their own.
    while scheduler.has_written() && scheduler.world().has_more() {
        scheduler.turn(Vec::new());
    }
    Ok(replies.try_recv().unwrap_or_else(|_| {
        let help = "free the disk or end what holds the database, then ask again".to_owned();
        let message = "the database cannot be written now; nothing was changed".to_owned();
        Err(CommandError { code: "database".to_owned(), message, help })
    }))
}

/// All DAG files, read and parsed once.
fn dag_files(config: &Config, defaults: &LiveDefaults) -> Result<Vec<DagFile>, RunError> {
    let (events, found) = event::channel();
    let settings = WatchSettings { dags_folder: config.core.dags_folder.clone(), home: config.home.clone() };
    let _watcher = Watcher::start(
        settings,
        defaults.parse(LiveTunables::of(config), config.home.clone()),
        events,
        Health::default(),
    )
    .map_err(io_error("read the DAG files"))?;
    let mut files = Vec::new();
    while let Ok(Event::DagFiles { files: piece, .. }) = found.recv() {
        files.extend(piece);
    }
    Ok(files)
}

/// Runs nothing and wakes nobody.
pub(super) struct Nobody;

impl Executor for Nobody {
    fn prepare(&mut self, _: Work) {}
    fn start(&mut self, _: &[TryKey]) {}
    fn kill(&mut self, _: TryKey, _: Kill) {}
    fn pause(&mut self, _: TryKey) {}
    fn resume(&mut self, _: TryKey) {}
    fn reclaim(&mut self, _: Left) {}
    fn call(&mut self, _: Box<Call>) {}
    fn look(&mut self, _: Vec<Work>) {}
    fn forget(&mut self, _: TryKey) {}
    fn acknowledge(&mut self, _: &[TryKey]) {}
}

impl Triggerer for Nobody {
    fn watch(&mut self, _: TryKey, _: &Wait) {}
    fn forget(&mut self, _: TryKey) {}
}

impl Timer for Nobody {
    fn arm(&mut self, _: Option<jiff::Timestamp>, _: Option<crate::clock::BootInstant>) {}
}

impl HostWatch for Nobody {
    fn ask(&mut self) {}
}

impl FileWatch for Nobody {
    fn watch(&mut self, _: AssetKey, _: FileWish) {}
    fn forget(&mut self, _: AssetKey) {}
}

impl Followers for Nobody {
    fn pools_changed(&mut self, _: BTreeMap<PoolName, i64>) {}
    fn stopping(&mut self, _: Stop, _: Asker, _: Duration) {}
}
