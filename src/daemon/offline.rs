//! A command without a running minflow: this process takes the home's lock, makes the change, and ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam::channel::{bounded, unbounded};

use crate::clock::SystemClock;
use crate::config::Config;
use crate::dagfile::Defaults;
use crate::health::Health;
use crate::model::{AssetKey, TryKey, Wait};
use crate::operators::plugin;
use crate::scheduler::command::{Command, CommandError, Reply};
use crate::scheduler::event::DagFile;
use crate::scheduler::gauge::{GaugeBoard, Heartbeat};
use crate::scheduler::port::{Call, Executor, FileWatch, FileWish, Kill, ReplyTo, Stray, Timer, Triggerer, Work};
use crate::scheduler::turn::{Parts, Scheduler};
use crate::scheduler::{Event, Store};
use crate::secrets::Secrets;
use crate::store::Database;
use crate::watch::{WatchSettings, Watcher};

use super::{HomeLock, RunError, io_error, parse, restore, scheduler_settings};

/// Carries out `command` on the home of `config`.
///
/// # Errors
/// The home is locked or its database cannot be used; whether the command itself was refused is in the reply.
pub fn apply_offline(config: &Config, command: Command) -> Result<Reply, RunError> {
    let _lock = HomeLock::take(&config.home)?;
    let mut database = Database::open(&config.database.path, config.database.synchronous)?;
    let snapshot = database.load()?;
    let defaults = Arc::new(Defaults::from_config(config, BTreeSet::new()).with_plugins(plugin::list(&config.home)));
    let parts = Parts {
        store: Box::new(database),
        executor: Box::new(Nobody),
        triggerer: Box::new(Nobody),
        timer: Box::new(Nobody),
        files: Box::new(Nobody),
        clock: Arc::new(SystemClock),
        health: Health::default(),
        gauges: GaugeBoard::default(),
        heartbeat: Heartbeat::default(),
    };
    let mut scheduler = Scheduler::new(scheduler_settings(config), snapshot, restore(&defaults), parts);
    let files = dag_files(config, defaults)?;
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
fn dag_files(config: &Config, defaults: Arc<Defaults>) -> Result<Vec<DagFile>, RunError> {
    let (events, found) = unbounded();
    let secrets = Arc::new(Secrets::of_process(config.secrets.clone()));
    let settings = WatchSettings { dags_folder: config.core.dags_folder.clone(), home: config.home.clone() };
    let _watcher = Watcher::start(settings, parse(defaults, secrets, config.home.clone()), events, Health::default())
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
    fn start(&mut self, _: Work) {}
    fn kill(&mut self, _: TryKey, _: Kill) {}
    fn reclaim(&mut self, _: Stray) {}
    fn call(&mut self, _: Box<Call>) {}
    fn look(&mut self, _: Box<Work>) {}
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

impl FileWatch for Nobody {
    fn watch(&mut self, _: AssetKey, _: FileWish) {}
    fn forget(&mut self, _: AssetKey) {}
}
