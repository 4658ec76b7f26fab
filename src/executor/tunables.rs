//! What of the executor's settings may change while minflow runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{Config, Notifier};
use crate::secrets::Secrets;

#[derive(Clone, Debug)]
pub struct Tunables {
    /// `core.parallelism`: so many tries run at once, and so many threads prepare and conclude them.
    pub parallelism: u32,
    /// `core.max_map_length`.
    pub max_map_length: u32,
    /// `logging.max_file_size`.
    pub max_log_bytes: u64,
    /// `core.dag_run_conf_overrides_params`.
    pub overrides_params: bool,
    /// The home's variables and connections.
    pub secrets: Arc<Secrets>,
    /// Those of airflow.toml, by name.
    pub notifiers: Arc<BTreeMap<String, Notifier>>,
}

impl Tunables {
    pub fn of(config: &Config) -> Self {
        Self {
            parallelism: config.core.parallelism,
            max_map_length: config.core.max_map_length,
            max_log_bytes: config.logging.max_file_size,
            overrides_params: config.core.dag_run_conf_overrides_params,
            secrets: Arc::new(Secrets::of_process(config.secrets.clone())),
            notifiers: Arc::new(config.notices.notifiers.clone()),
        }
    }
}

/// As they are now. Copies are the same.
#[derive(Clone, Debug)]
pub struct LiveTunables(Arc<Mutex<Arc<Tunables>>>);

impl LiveTunables {
    pub fn new(tunables: Tunables) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(tunables))))
    }

    pub fn of(config: &Config) -> Self {
        Self::new(Tunables::of(config))
    }

    /// A try that has begun may go by what it has seen.
    pub fn now(&self) -> Arc<Tunables> {
        self.0.lock().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Tunables)) {
        let mut tunables = Tunables::clone(&self.now());
        change(&mut tunables);
        *self.0.lock() = Arc::new(tunables);
    }
}
