//! What holds for DAG files at this moment, shared by the threads that parse them; the watcher reads files again when it changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use parking_lot::Mutex;

use super::manager::Manager;
use crate::dagfile::{self, Defaults};
use crate::diagnostic::Diagnostic;
use crate::executor::LiveTunables;
use crate::model::PoolName;
use crate::operators::plugin;
use crate::scheduler::command::{Asker, Stop};
use crate::scheduler::port::Followers;
use crate::scheduler::world::Restore;
use crate::template;
use crate::watch::{Parse, Watcher};

/// Copies share what they say.
#[derive(Clone)]
pub(super) struct LiveDefaults(Arc<Mutex<Arc<Defaults>>>);

impl LiveDefaults {
    pub(super) fn new(defaults: Defaults) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(defaults))))
    }

    fn now(&self) -> Arc<Defaults> {
        self.0.lock().clone()
    }

    /// Changes them; true if they were not so already.
    pub(super) fn change(&self, change: impl FnOnce(&mut Defaults)) -> bool {
        let mut defaults = self.0.lock();
        let mut changed = Defaults::clone(&defaults);
        change(&mut changed);
        if changed == **defaults {
            return false;
        }
        *defaults = Arc::new(changed);
        true
    }

    /// Makes DAGs of files. Faults are told without the home's secrets, which a file may repeat.
    pub(super) fn parse(&self, tunables: LiveTunables, home: PathBuf) -> Parse {
        let defaults = self.clone();
        Arc::new(move |path: &Path, bytes: &[u8]| {
            let defaults = defaults.now();
            let again = |faults| {
                // A plugin may have come since minflow started.
                let plugins = plugin::list(&home);
                if plugins == defaults.plugins {
                    return Err(faults);
                }
                dagfile::read(path, bytes, &Defaults::clone(&defaults).with_plugins(plugins))
            };
            let masker = tunables.now().secrets.masker();
            let masked = |fault: Diagnostic| fault.masked(|text| masker.mask_in(text));
            let parsed = dagfile::read(path, bytes, &defaults).or_else(again).and_then(|(dag, warnings)| {
                let faults = template::check(&dag, path, &String::from_utf8_lossy(bytes));
                if !faults.is_empty() {
                    return Err(faults);
                }
                for warning in warnings {
                    log::warn!("{}", masked(warning));
                }
                Ok(dag)
            });
            let parsed = parsed.map_err(|faults| faults.into_iter().map(masked).collect::<Vec<_>>());
            if let Err(faults) = &parsed {
                // Who saves a file looks at the terminal that minflow runs in, and at nothing else yet.
                for fault in faults {
                    log::warn!("{fault}");
                }
            }
            parsed
        })
    }

    /// Makes definitions of stored texts, by the same parser.
    pub(super) fn restore(&self) -> Box<Restore> {
        let defaults = self.clone();
        Box::new(move |record, version| {
            let defaults = Defaults::clone(&defaults.now()).for_stored();
            let parsed = dagfile::parse(Path::new(&record.file), version.source.as_bytes(), &defaults);
            parsed.ok().map(Arc::new)
        })
    }
}

/// What becomes of what still runs.
pub(super) fn words_of(stop: Stop) -> &'static str {
    match stop {
        Stop::Finish => "what still runs is waited for",
        Stop::Drain => {
            "what still runs has the drain_timeout to end, and is then left for the next start (again: ends it at once)"
        }
        Stop::KeepRunning => "what still runs is left for the next start",
        Stop::Now => "what still runs is ended",
    }
}

/// Tells those who parse files, and the service manager, what the loop has committed.
pub(super) struct Circle {
    pub(super) defaults: LiveDefaults,
    pub(super) watcher: Arc<Watcher>,
    pub(super) manager: Manager,
    /// Of the thread that looks after the history.
    pub(super) keeper: Sender<()>,
}

impl Followers for Circle {
    fn retired(&mut self) {
        // It has gone when minflow stops: the next start goes on.
        let _ = self.keeper.send(());
    }

    fn pools_changed(&mut self, sizes: BTreeMap<PoolName, i64>) {
        // A file that was refused for want of a pool may hold now. One that holds stays as it is, also if its pool has gone: what a
        // reload has ordered to be read again is read by the pools of before.
        let defaults = self.defaults.clone();
        self.watcher.change(move || defaults.change(|defaults| defaults.pools = sizes));
    }

    fn stopping(&mut self, how: Stop, by: Asker, within: Duration) {
        if by == Asker::Cli {
            log::info!("stopping, as a command asks: {}", words_of(how));
        }
        match how {
            // A manager that hears of a stop has it end within a bound, and this one has none.
            Stop::Finish => self.manager.status("stopping when all that runs has ended"),
            Stop::Drain | Stop::KeepRunning | Stop::Now => self.manager.stopping(within),
        }
    }
}
