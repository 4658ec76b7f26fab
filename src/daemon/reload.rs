//! SIGHUP: airflow.toml is read again, and what can change while minflow runs does.
//!
//! A thread of its own does it, so that a slow disk keeps nobody from stopping minflow. A file with faults changes nothing: they are
//! told in the log and as import errors, and what was read before goes on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::defaults::LiveDefaults;
use super::heartbeat::Pulse;
use super::manager::Manager;
use super::{io_error, scheduler_settings};
use crate::config::{Config, Loaded, keys};
use crate::dagfile::Defaults;
use crate::diagnostic::Diagnostic;
use crate::executor::{LiveTunables, Tunables};
use crate::observe::host;
use crate::scheduler::event::{Event, EventSender, Reconfigured};
use crate::watch::Watcher;

/// Settles the configuration again, from the same home, environment and flags.
pub type Load = dyn Fn() -> Result<Loaded, Vec<Diagnostic>> + Send;

/// Has the log follow another `logging.level`.
pub type SetLevel = dyn Fn(&str) + Send;

/// Starts the heartbeat that a configuration asks for.
pub(super) type StartPulse = dyn Fn(&Config) -> std::io::Result<Option<Pulse>> + Send;

/// What a reload changes, and what it goes by.
pub(super) struct Parts {
    /// As minflow was started.
    pub loaded: Loaded,
    pub load: Box<Load>,
    pub set_level: Box<SetLevel>,
    pub start_pulse: Box<StartPulse>,
    pub pulse: Option<Pulse>,
    pub defaults: LiveDefaults,
    pub tunables: LiveTunables,
    pub watcher: Arc<Watcher>,
    pub events: EventSender,
    pub manager: Manager,
    /// What the manager is told when all is well.
    pub status: String,
}

/// Reads the configuration again when it is asked to.
#[derive(Clone)]
pub(super) struct Reloader(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// A reload is to come that has not begun to read.
    is_awaited: AtomicBool,
}

struct State {
    parts: Parts,
    /// What holds now.
    current: Loaded,
}

impl Reloader {
    pub(super) fn new(parts: Parts) -> Self {
        let state = Mutex::new(State { current: parts.loaded.clone(), parts });
        Self(Arc::new(Shared { state, is_awaited: AtomicBool::new(false) }))
    }

    /// Returns at once. Of several that come while one is under way, one follows.
    pub(super) fn reload(&self) {
        if self.0.is_awaited.swap(true, Ordering::SeqCst) {
            return;
        }
        let shared = self.0.clone();
        let work = move || {
            let mut state = shared.state.lock();
            shared.is_awaited.store(false, Ordering::SeqCst);
            state.reload();
        };
        if let Err(error) = std::thread::Builder::new().name("reload".to_owned()).spawn(work) {
            self.0.is_awaited.store(false, Ordering::SeqCst);
            log::error!("airflow.toml could not be read again: {}", io_error("start a thread")(error));
        }
    }
}

impl State {
    fn reload(&mut self) {
        self.parts.manager.reloading();
        let file = self.parts.loaded.file.display().to_string();
        match (self.parts.load)() {
            Ok(loaded) => {
                self.take(loaded, file);
                self.parts.manager.ready(&self.parts.status);
            }
            Err(faults) => {
                for fault in &faults {
                    log::error!("{fault}");
                }
                let count = match faults.len() {
                    1 => "a fault".to_owned(),
                    count => format!("{count} faults"),
                };
                let what = format!("`{file}` has {count}: what was read before goes on");
                log::error!("{what}; correct them, then send SIGHUP again");
                self.tell(Event::ConfigurationFaults { file, faults });
                self.parts.manager.ready(&what);
            }
        }
    }

    fn take(&mut self, loaded: Loaded, file: String) {
        let (old, new) = (&self.current.config, &loaded.config);
        let changed = changes(&self.current, &loaded);
        for name in waiting_for_a_restart(&self.parts.loaded, &loaded) {
            log::warn!("`{name}` has changed, which counts from the next start on: restart minflow");
        }
        for note in loaded.notes.iter().filter(|note| !self.current.notes.contains(note)) {
            log::info!("{note}");
        }
        let of_start = &self.parts.loaded.config;
        let secrets = (old.secrets != new.secrets).then(|| Tunables::of(new).secrets);
        self.parts.tunables.change(|tunables| {
            let secrets = secrets.unwrap_or_else(|| tunables.secrets.clone());
            *tunables = Tunables { secrets, ..Tunables::of(new) };
        });
        let is_other = self.parts.defaults.change(|defaults| {
            // The loop tells which pools there are when it has taken these in.
            let mut pools = std::mem::take(&mut defaults.pools);
            pools.extend(new.given_pools().into_iter().map(|pool| (pool.name, pool.slots)));
            let plugins = std::mem::take(&mut defaults.plugins);
            *defaults = Defaults {
                pools,
                assets: of_start.assets.clone(),
                ..Defaults::from_config(new, []).with_host(host::reservable()).with_plugins(plugins)
            };
        });
        if new.logging.level != old.logging.level {
            (self.parts.set_level)(&new.logging.level);
        }
        if new.heartbeat != old.heartbeat {
            // One at a time.
            self.parts.pulse = None;
            match (self.parts.start_pulse)(new) {
                Ok(pulse) => self.parts.pulse = pulse,
                Err(error) => log::error!("{}", io_error("start the heartbeat")(error)),
            }
        }
        let mut settings = scheduler_settings(new);
        settings.assets.clone_from(&scheduler_settings(of_start).assets);
        // Before the loop tells which pools there are from now on.
        if is_other {
            self.parts.watcher.reread();
        }
        self.tell(Event::Reconfigured(Box::new(Reconfigured { settings, file, changed: changed.clone() })));
        match changed.is_empty() {
            true => log::info!("airflow.toml was read again: nothing in it has changed"),
            false => log::info!("airflow.toml was read again; changed: {}", changed.join(", ")),
        }
        self.current = loaded;
    }

    fn tell(&self, event: Event) {
        // A loop that has ended needs no news.
        let _ = self.parts.events.send(event);
    }
}

/// The names of what differs, such as `core.parallelism` and `[variables]`; no values, of which some are secret.
fn changes(old: &Loaded, new: &Loaded) -> Vec<String> {
    let mut names = differing(old, new);
    let (old, new) = (&old.config, &new.config);
    let sections = [
        ("[pools]", old.given_pools() != new.given_pools()),
        ("[variables]", old.secrets.variables != new.secrets.variables),
        ("[connections]", old.secrets.connections != new.secrets.connections),
        ("core.sensitive_var_conn_names", old.secrets.sensitive != new.secrets.sensitive),
        ("[notifiers]", old.notices.notifiers != new.notices.notifiers),
        (
            "[defaults]",
            old.notices.on_success != new.notices.on_success || old.notices.on_failure != new.notices.on_failure,
        ),
        ("[assets]", old.assets != new.assets),
    ];
    let differ = sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned());
    names.extend(differ.filter(|name| !names.contains(name)).collect::<Vec<_>>());
    names
}

/// The names of what is as at the start, whatever the file says now.
fn waiting_for_a_restart(start: &Loaded, new: &Loaded) -> Vec<String> {
    let is_of_start = |name: &String| keys::AT_START.iter().any(|(section, key)| *name == format!("{section}.{key}"));
    let mut names: Vec<String> = differing(start, new).into_iter().filter(is_of_start).collect();
    if start.config.assets != new.config.assets {
        names.push("[assets]".to_owned());
    }
    names
}

/// Of the sections with fixed keys.
fn differing(old: &Loaded, new: &Loaded) -> Vec<String> {
    let is_news = |entry: &&crate::config::Entry| {
        let is_it = |other: &&crate::config::Entry| (&other.section, &other.key) == (&entry.section, &entry.key);
        entry.section != "pools" && old.entries.iter().find(is_it).is_none_or(|before| before.value != entry.value)
    };
    new.entries.iter().filter(is_news).map(|entry| format!("{}.{}", entry.section, entry.key)).collect()
}

/// The terminal that started minflow, if one did. A SIGHUP that comes when it is gone means that its user has gone.
pub(super) struct Terminal {
    was_there: bool,
}

impl Terminal {
    /// To be called at the start.
    pub(super) fn look() -> Self {
        // With `nohup` and its like a terminal that goes is not to be minded.
        Self { was_there: !crate::supervisor::sys::is_hangup_ignored() && is_there() }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.was_there && !is_there()
    }
}

fn is_there() -> bool {
    std::fs::File::open(Path::new("/dev/tty")).is_ok()
}
