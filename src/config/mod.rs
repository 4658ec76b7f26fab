//! airflow.toml, environment and flags; every value knows where it came from.
//!
//! Reads airflow.toml and nothing else: the environment and the flags are handed in, so that a test needs none. Knows no DAG.
//! Called once, by the command that runs.

pub mod assets;
mod callbacks;
mod choosing;
pub mod keys;
mod load;
mod secrets;
mod smtp;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use callbacks::{Notices, Notifier, NotifierKind, check as check_callbacks, read as read_callback};
pub use load::{ConfigInputs, Entry, Flag, Loaded, load};
pub use smtp::SMTP_CONNECTION;

use crate::model::admission::AdmissionRules;
use crate::model::asset::AssetDefinition;
use crate::model::ids::{AssetName, PoolName};
use crate::model::pool::Pool;
use crate::secrets::Given;

/// The settled configuration of one home.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Absolute.
    pub home: PathBuf,
    pub profile: Option<String>,
    pub core: Core,
    pub scheduler: Scheduler,
    pub admission: AdmissionRules,
    pub database: Database,
    pub api: Api,
    pub logging: Logging,
    pub retention: Retention,
    /// By name; `default_pool` is always there.
    pub pools: BTreeMap<String, PoolSetting>,
    /// `[assets]`, by name.
    pub assets: BTreeMap<AssetName, AssetDefinition>,
    /// `[variables]` and `[connections]`, and which names call for secrecy.
    pub secrets: Given,
    pub notices: Notices,
    /// None: nobody is told.
    pub heartbeat: Option<Heartbeat>,
}

/// Whom minflow tells that it is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Of http or https.
    pub url: String,
    pub interval: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Core {
    /// Absolute, like every path here: relative ones are resolved against home.
    pub dags_folder: PathBuf,
    /// With [`AdmissionRules::parallelism`] the most that it chooses.
    pub parallelism: u32,
    pub max_active_tasks_per_dag: u32,
    pub max_active_runs_per_dag: u32,
    /// An IANA name.
    pub default_timezone: String,
    pub default_task_retries: u32,
    pub default_task_retry_delay: Duration,
    pub dags_are_paused_at_creation: bool,
    pub dag_run_conf_overrides_params: bool,
    /// At least 1.
    pub max_map_length: u32,
    pub killed_task_cleanup_time: Duration,
    /// A folder, or `off`; None: what was delegated to minflow.
    pub cgroup: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scheduler {
    pub catchup_by_default: bool,
    pub create_cron_data_intervals: bool,
    pub drain_timeout: Duration,
    /// 0: all.
    pub max_tis_per_query: u32,
    pub fair_share: bool,
    /// None: priorities stay as they are.
    pub priority_ageing: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    pub path: PathBuf,
    pub synchronous: Synchronous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    Full,
    Normal,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// A loopback address.
    pub host: std::net::IpAddr,
    /// 0: any free port.
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Logging {
    pub level: String,
    pub base_log_folder: PathBuf,
    /// Bytes of one try's log.
    pub max_file_size: u64,
    /// None: logs stay as they are.
    pub compress_after: Option<Duration>,
    /// None: minflow's own log goes to standard error alone.
    pub daemon: Option<DaemonLog>,
}

/// The file of minflow's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonLog {
    pub path: PathBuf,
    pub max_bytes: u64,
    /// How many earlier ones are kept.
    pub keep: u32,
}

/// What of the history goes. None: nothing for that reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Since the end of a run.
    pub max_age: Option<Duration>,
    /// Of each DAG.
    pub max_runs: Option<u64>,
    /// Of the files of all runs together.
    pub max_bytes: Option<u64>,
    pub max_audit_age: Option<Duration>,
    /// Since a virtual environment was used.
    pub max_venv_age: Option<Duration>,
}

impl Retention {
    /// Whether nothing of the history goes; virtual environments are none of it.
    pub fn is_off(&self) -> bool {
        Self { max_venv_age: None, ..self.clone() } == Self::default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSetting {
    /// -1: without limit.
    pub slots: i64,
    pub description: String,
    /// Whether what is deferred keeps its slots.
    pub include_deferred: bool,
    /// False of `default_pool` alone, where the configuration does not name it.
    pub is_given: bool,
}

impl Config {
    /// All pools that the configuration names, by name. They belong to it: no command changes them.
    pub fn given_pools(&self) -> Vec<Pool> {
        let pool = |(name, setting): (&String, &PoolSetting)| Pool {
            name: PoolName::from(name.as_str()),
            slots: setting.slots,
            description: setting.description.clone(),
            include_deferred: setting.include_deferred,
        };
        self.pools.iter().filter(|(_, setting)| setting.is_given).map(pool).collect()
    }

    /// All pools that there are, by name: those of the configuration, of the others those of the database, and `default_pool`.
    pub fn pools_with(&self, stored: impl IntoIterator<Item = Pool>) -> BTreeMap<PoolName, Pool> {
        let all = [Pool::default_pool()].into_iter().chain(stored).chain(self.given_pools());
        all.map(|pool| (pool.name.clone(), pool)).collect()
    }
}
