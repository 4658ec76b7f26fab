//! Gathers the values of all sources, checks each where it stands, and lets the last one win.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::choosing;
use super::{
    Api, Config, Core, Database, Logging, Notices, PoolSetting, Scheduler, Synchronous, assets, callbacks, keys,
    secrets, smtp,
};
use crate::diagnostic::Diagnostic;
use crate::keytable::{self, Fallback, Faults, Key, Kind, Limits, Source};
use crate::model::admission::{AdmissionRules, ParallelismRange, Thresholds};
use crate::model::asset::AssetDefinition;
use crate::model::ids::AssetName;
use crate::model::pool::{DEFAULT_POOL, DEFAULT_POOL_SLOTS};
use crate::secrets::{Given, GivenConnection, GivenVariable, Sensitive};

/// From where the values are taken, beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct ConfigInputs {
    /// Absolute.
    pub home: PathBuf,
    /// `--config`: must exist. None: `airflow.toml` in home, if there is one.
    pub config: Option<PathBuf>,
    /// The environment variables that may matter: `AIRFLOW__*`, `MINFLOW__*` and `MINFLOW_PROFILE`; others are not looked at.
    pub environment: BTreeMap<String, String>,
    /// `--profile`.
    pub profile: Option<String>,
    pub flags: Vec<Flag>,
}

/// A flag that sets a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As the user writes it, e.g. `--port`.
    pub flag: String,
    pub section: String,
    pub key: String,
    pub value: String,
}

/// The settled configuration and how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// Every value, by section and in the order of the documentation; pools come last, by name.
    pub entries: Vec<Entry>,
    /// What is worth a line in the log.
    pub notes: Vec<String>,
    /// The file that was read, or would have been.
    pub file: PathBuf,
}

/// One value of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub section: String,
    pub key: String,
    /// As airflow.toml would say it, without quotes; paths are absolute.
    pub value: String,
    /// `default`, `airflow.toml:12`, the name of a variable, or a flag.
    pub origin: String,
}

/// The origin of what nobody has said.
const BY_DEFAULT: &str = "default";

const LIMITS: Limits = Limits { bytes: 1 << 20, depth: 32 };

/// Settles the configuration of a home.
///
/// # Errors
/// Every fault of the file, the environment and the flags.
pub fn load(inputs: ConfigInputs) -> Result<Loaded, Vec<Diagnostic>> {
    let shown = inputs.config.clone().unwrap_or_else(|| PathBuf::from("airflow.toml"));
    let bytes = match std::fs::read(file(&inputs)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound && inputs.config.is_none() => Vec::new(),
        Err(error) => {
            let help = "check the path and its permissions";
            return Err(vec![Diagnostic::of_file(
                shown,
                "unreadable",
                format!("the file cannot be read: {error}"),
                help,
            )]);
        }
    };
    settle(&inputs, &shown, &bytes)
}

fn file(inputs: &ConfigInputs) -> PathBuf {
    inputs.config.clone().unwrap_or_else(|| inputs.home.join("airflow.toml"))
}

/// As [`load`], with the bytes of the file.
pub(super) fn settle(inputs: &ConfigInputs, shown: &Path, bytes: &[u8]) -> Result<Loaded, Vec<Diagnostic>> {
    let mut layers = Layers::default();
    layers.add_defaults();
    let profile = layers.add_file(inputs, shown, bytes);
    layers.add_environment("AIRFLOW__", &inputs.environment);
    layers.add_environment("MINFLOW__", &inputs.environment);
    for flag in &inputs.flags {
        let key = find(&flag.section, &flag.key).expect("a flag sets a key of the table");
        layers.add_text(&flag.section, key, &flag.value, &flag.flag);
    }
    if !layers.faults.is_empty() {
        return Err(layers.faults);
    }
    let config = layers.config(&inputs.home, profile);
    choosing::check_sources(&config.scheduler, |key| layers.sections["scheduler"][key].origin.clone())?;
    Ok(Loaded { config, entries: layers.entries(&inputs.home), notes: layers.notes, file: file(inputs) })
}

fn find(section: &str, key: &str) -> Option<&'static Key> {
    let (_, table) = keys::SECTIONS.iter().find(|(name, _)| *name == section)?;
    table.find(key)
}

/// A checked value: text, a number, a truth value, or the table of a pool.
struct Setting {
    value: Value,
    origin: String,
}

/// The values so far, the last of each key, and the faults of all.
#[derive(Default)]
struct Layers {
    sections: BTreeMap<String, BTreeMap<String, Setting>>,
    faults: Vec<Diagnostic>,
    notes: Vec<String>,
}

impl Layers {
    fn set(&mut self, section: &str, key: &str, value: &DeValue<'_>, origin: String) {
        // What JSON cannot hold has a fault, and then no value is used.
        let value = keytable::json(value).unwrap_or_default();
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), Setting { value, origin });
    }

    fn add_defaults(&mut self) {
        for (section, table) in keys::SECTIONS {
            for key in table.iter() {
                let Fallback::Toml(text) = key.default else { unreachable!("every key of a section has a value") };
                let value = DeValue::parse(text).expect("a default in the table of keys is valid TOML");
                self.set(section, key.name, value.get_ref(), BY_DEFAULT.to_owned());
            }
        }
        let slots = Setting { value: DEFAULT_POOL_SLOTS.into(), origin: BY_DEFAULT.to_owned() };
        self.sections.insert("pools".to_owned(), BTreeMap::from([(DEFAULT_POOL.to_owned(), slots)]));
    }

    /// Adds the file and its chosen profile, whose name is given back.
    fn add_file(&mut self, inputs: &ConfigInputs, shown: &Path, bytes: &[u8]) -> Option<String> {
        let text = match LIMITS.read(bytes) {
            Ok(text) => text,
            Err((code, message, help)) => {
                self.faults.push(Diagnostic::of_file(shown, code, message, help));
                return None;
            }
        };
        let source = Source::new(shown, text);
        let mut faults = Faults::new(&source);
        let mut chosen = None;
        if let Some(document) = keytable::parse_document(&LIMITS, &mut faults) {
            keytable::check_table(&keys::AIRFLOW, &document, &mut faults);
            let profiles = document.get("profiles").and_then(|profiles| profiles.get_ref().as_table());
            let notifiers = notifiers(&document, profiles);
            for sections in profiles.into_iter().flatten().filter_map(|(_, profile)| profile.get_ref().as_table()) {
                check_more(sections, &mut faults);
                secrets::check(sections, &mut faults);
                smtp::check(sections, &mut faults);
                callbacks::check_sections(sections, &notifiers, &mut faults);
                assets::check(sections, &mut faults);
            }
            check_more(&document, &mut faults);
            secrets::check(&document, &mut faults);
            smtp::check(&document, &mut faults);
            callbacks::check_sections(&document, &notifiers, &mut faults);
            assets::check(&document, &mut faults);
            self.add_sections(&document, &source);
            chosen = self.choose_profile(inputs, &document, &mut faults);
            let profile = chosen.as_deref().and_then(|name| profiles?.get(name)?.get_ref().as_table());
            if let Some(profile) = profile {
                self.add_sections(profile, &source);
            }
        }
        let sensitive = self.sensitive();
        let mut list = faults.into_list();
        list.iter_mut().for_each(|fault| secrets::conceal(fault, text, &sensitive));
        self.faults.extend(list);
        chosen
    }

    fn add_sections(&mut self, document: &DeTable<'_>, source: &Source<'_>) {
        for (section, values) in document {
            let section: &str = section.get_ref();
            let is_known = keys::NAMED.contains(&section) || keys::SECTIONS.iter().any(|(name, _)| *name == section);
            let Some(values) = values.get_ref().as_table().filter(|_| is_known) else { continue };
            for (key, value) in values {
                let line = source.position(key.span().start).line;
                let origin = format!("{}:{line}", source.path.display());
                self.set(section, key.get_ref(), value.get_ref(), origin);
            }
        }
    }

    fn choose_profile(
        &mut self,
        inputs: &ConfigInputs,
        document: &DeTable<'_>,
        faults: &mut Faults<'_>,
    ) -> Option<String> {
        let in_file = document.get("profile").and_then(|value| Some((value.get_ref().as_str()?, value.span())));
        let given = inputs.profile.as_deref().map(|name| (name, "--profile"));
        let outside = given.or_else(|| Some((inputs.environment.get("MINFLOW_PROFILE")?.as_str(), "MINFLOW_PROFILE")));
        let name = outside.map(|(name, _)| name).or(in_file.as_ref().map(|(name, _)| *name))?;
        let profiles = document.get("profiles").and_then(|profiles| profiles.get_ref().as_table());
        let names: Vec<&str> = profiles.into_iter().flatten().map(|(name, _)| &**name.get_ref()).collect();
        if !names.contains(&name) {
            let message = format!("there is no profile `{name}`");
            let help = match keytable::suggest(name, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add it to airflow.toml as `[profiles.{name}.core]`"),
            };
            match (outside, in_file) {
                (Some((_, origin)), _) => {
                    self.faults.push(Diagnostic::of_file(origin, "unknown-profile", message, help));
                }
                (None, Some((_, span))) => faults.add(span, "unknown-profile", message, help),
                (None, None) => {}
            }
        }
        Some(name.to_owned())
    }

    fn add_environment(&mut self, prefix: &str, environment: &BTreeMap<String, String>) {
        let is_ours = prefix == "MINFLOW__";
        let mut ignored = Vec::new();
        for (variable, value) in environment {
            let Some(rest) = variable.strip_prefix(prefix) else { continue };
            let lower = rest.to_lowercase();
            let (section, key) = lower.split_once("__").unwrap_or((&lower, ""));
            let is_airflows = keys::PATHS.contains(&(section, key)) || keys::LISTENING.contains(&(section, key));
            match find(section, key) {
                Some(found) if is_ours || !is_airflows => self.add_text(section, found, value, variable),
                _ if is_ours && section == "pools" && self.add_pool(key, value, variable) => {}
                _ if is_ours => self.add_unknown(variable),
                _ => ignored.push(variable.as_str()),
            }
        }
        if !ignored.is_empty() {
            self.notes.push(format!(
                "ignored: {} (variables of Airflow that minflow has no setting for, or its paths and address, which minflow never takes)",
                ignored.join(", ")
            ));
        }
    }

    fn add_unknown(&mut self, variable: &str) {
        let names = keys::SECTIONS.iter().flat_map(|(section, table)| {
            table.iter().map(move |key| format!("MINFLOW__{}__{}", section.to_uppercase(), key.name.to_uppercase()))
        });
        let names: Vec<String> = names.collect();
        let help = match keytable::suggest(variable, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`minflow config list` shows all settings; the form is `MINFLOW__SECTION__KEY`".to_owned(),
        };
        self.faults.push(Diagnostic::of_file(variable, "unknown-key", "no setting has this name", help));
    }

    /// Sets the slots of a pool that exists. Whether it does.
    fn add_pool(&mut self, name: &str, value: &str, variable: &str) -> bool {
        let slots = keys::POOL.find("slots").expect("a pool has slots");
        let pools = self.sections.get("pools");
        let known = pools.and_then(|pools| pools.keys().find(|pool| pool.to_lowercase() == name)).cloned();
        let Some(pool) = known else { return false };
        if let Some(value) = self.read_text(slots, value, variable) {
            self.set("pools", &pool, &value, variable.to_owned());
        }
        true
    }

    fn add_text(&mut self, section: &str, key: &'static Key, text: &str, origin: &str) {
        if let Some(value) = self.read_text(key, text, origin) {
            if let Some((message, help)) = more_faults(section, key.name, &value) {
                self.faults.push(Diagnostic::of_file(origin, "bad-value", message, help));
            }
            self.set(section, key.name, &value, origin.to_owned());
        }
    }

    /// A value given as bare text; None after a fault.
    fn read_text<'t>(&mut self, key: &Key, text: &'t str, origin: &str) -> Option<DeValue<'t>> {
        let value = Spanned::new(0..text.len(), value_of_text(&key.kind, text.trim()));
        let source = Source::new(Path::new(origin), text);
        let mut faults = Faults::new(&source);
        keytable::check(key, &value, &mut faults);
        let list = faults.into_list();
        let is_good = list.is_empty();
        // A variable has no lines: its name says where to look.
        let bare = |fault: Diagnostic| Diagnostic::of_file(origin, fault.code, fault.message, fault.help);
        self.faults.extend(list.into_iter().map(bare));
        is_good.then(|| value.into_inner())
    }

    fn entries(&self, home: &Path) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (section, table) in keys::SECTIONS {
            for key in table.iter() {
                let Setting { value, origin } = &self.sections[section][key.name];
                let value = match keys::PATHS.contains(&(section, key.name)) {
                    true => home.join(value.as_str().unwrap_or_default()).display().to_string(),
                    false => print(&key.kind, value),
                };
                entries.push(Entry {
                    section: section.to_owned(),
                    key: key.name.to_owned(),
                    value,
                    origin: origin.clone(),
                });
            }
        }
        for (name, setting) in &self.sections["pools"] {
            let value = pool(setting).slots.to_string();
            let origin = setting.origin.clone();
            entries.push(Entry { section: "pools".to_owned(), key: name.clone(), value, origin });
        }
        entries
    }

    fn config(&self, home: &Path, profile: Option<String>) -> Config {
        let value = |section: &str, key: &str| &self.sections[section][key].value;
        let text = |section: &str, key: &str| value(section, key).as_str().unwrap_or_default().to_owned();
        let path = |section: &str, key: &str| home.join(text(section, key));
        let is = |section: &str, key: &str| *value(section, key) == Value::Bool(true);
        let seconds = |section: &str, key: &str| duration(value(section, key)).expect(CHECKED);
        fn count<T: TryFrom<i64>>(value: &Value) -> T {
            value.as_i64().and_then(|count| T::try_from(count).ok()).expect(CHECKED)
        }
        let mut admission = admission(&self.sections["admission"], value("core", "parallelism") == "auto");
        admission.thresholds.min_free = size(value("database", "min_free")).filter(|&bytes| bytes > 0);
        Config {
            home: home.to_owned(),
            profile,
            core: Core {
                dags_folder: path("core", "dags_folder"),
                parallelism: match admission.parallelism {
                    Some(range) => range.ceiling,
                    None => count(value("core", "parallelism")),
                },
                max_active_tasks_per_dag: count(value("core", "max_active_tasks_per_dag")),
                max_active_runs_per_dag: count(value("core", "max_active_runs_per_dag")),
                default_timezone: text("core", "default_timezone"),
                default_task_retries: count(value("core", "default_task_retries")),
                default_task_retry_delay: seconds("core", "default_task_retry_delay"),
                dags_are_paused_at_creation: is("core", "dags_are_paused_at_creation"),
                dag_run_conf_overrides_params: is("core", "dag_run_conf_overrides_params"),
                max_map_length: count(value("core", "max_map_length")),
                killed_task_cleanup_time: seconds("core", "killed_task_cleanup_time"),
                cgroup: Some(text("core", "cgroup")).filter(|cgroup| cgroup != "auto"),
            },
            scheduler: Scheduler {
                catchup_by_default: is("scheduler", "catchup_by_default"),
                create_cron_data_intervals: is("scheduler", "create_cron_data_intervals"),
                drain_timeout: seconds("scheduler", "drain_timeout"),
                max_tis_per_query: count(value("scheduler", "max_tis_per_query")),
                fair_share: is("scheduler", "fair_share"),
                priority_ageing: Some(seconds("scheduler", "priority_ageing")).filter(|ageing| !ageing.is_zero()),
            },
            admission,
            database: Database {
                path: path("database", "path"),
                synchronous: match text("database", "synchronous").as_str() {
                    "normal" => Synchronous::Normal,
                    _ => Synchronous::Full,
                },
            },
            api: Api { host: loopback(&text("api", "host")).expect(CHECKED), port: count(value("api", "port")) },
            logging: Logging {
                level: text("logging", "level"),
                base_log_folder: path("logging", "base_log_folder"),
                max_file_size: size(value("logging", "max_file_size")).expect(CHECKED),
                compress_after: Some(seconds("logging", "compress_after")).filter(|after| !after.is_zero()),
                daemon: Some(text("logging", "daemon_file")).filter(|file| !file.is_empty()).map(|file| {
                    super::DaemonLog {
                        path: home.join(file),
                        max_bytes: size(value("logging", "daemon_max_size")).expect(CHECKED),
                        keep: count(value("logging", "daemon_keep")),
                    }
                }),
            },
            retention: super::Retention {
                max_age: Some(seconds("retention", "max_age")).filter(|age| !age.is_zero()),
                max_runs: Some(count(value("retention", "max_runs"))).filter(|&runs: &u64| runs > 0),
                max_bytes: size(value("retention", "max_bytes")).filter(|&bytes| bytes > 0),
                max_audit_age: Some(seconds("retention", "max_audit_age")).filter(|age| !age.is_zero()),
                max_venv_age: Some(seconds("retention", "max_venv_age")).filter(|age| !age.is_zero()),
            },
            pools: self.sections["pools"].iter().map(|(name, setting)| (name.clone(), pool(setting))).collect(),
            assets: self.assets(),
            secrets: self.secrets(home),
            notices: self.notices(),
            heartbeat: Some(text("heartbeat", "url"))
                .filter(|url| !url.is_empty())
                .map(|url| super::Heartbeat { url, interval: seconds("heartbeat", "interval") }),
        }
    }

    fn notices(&self) -> Notices {
        let settings = |section: &str| self.sections.get(section).into_iter().flatten();
        let notifier = |(name, Setting { value, origin }): (&String, &Setting)| {
            (name.clone(), callbacks::notifier(value, origin).expect("it was checked where it stands"))
        };
        let default = |name: &str| {
            let given = self.sections.get("defaults").and_then(|defaults| defaults.get(name));
            given.map_or_else(Vec::new, |setting| callbacks::read_defaults(&setting.value, &setting.origin))
        };
        Notices {
            notifiers: settings("notifiers").map(notifier).collect(),
            on_success: default("on_success"),
            on_failure: default("on_failure"),
        }
    }

    fn sensitive(&self) -> Sensitive {
        Sensitive::with(self.sections["core"]["sensitive_var_conn_names"].value.as_str().unwrap_or_default())
    }

    fn assets(&self) -> BTreeMap<AssetName, AssetDefinition> {
        let given = self.sections.get("assets").into_iter().flatten();
        given.map(|(name, setting)| (name.as_str().into(), assets::definition(name, &setting.value))).collect()
    }

    fn secrets(&self, home: &Path) -> Given {
        let settings = |section: &str| self.sections.get(section).into_iter().flatten();
        let variable = |(name, Setting { value, origin }): (&String, &Setting)| {
            (name.clone(), GivenVariable { text: secrets::variable(value), origin: origin.clone() })
        };
        let connection = |(name, Setting { value, origin }): (&String, &Setting)| {
            (name.clone(), secrets::connection(value, origin, home).expect("it was checked where it stands"))
        };
        let mut connections: BTreeMap<String, GivenConnection> = settings("connections").map(connection).collect();
        if let Some(smtp) = self.sections.get("smtp").filter(|smtp| !smtp.is_empty()) {
            let origin = smtp.values().next().map_or_else(String::new, |setting| setting.origin.clone());
            let values = smtp.iter().map(|(name, setting)| (name.as_str(), &setting.value)).collect();
            let given = || smtp::connection(&values, &origin, home);
            connections.entry(smtp::SMTP_CONNECTION.to_owned()).or_insert_with(given);
        }
        let sensitive = self.sensitive();
        Given {
            variables: settings("variables").map(variable).collect(),
            connections,
            hidden: self.notices().notifiers.values().flat_map(|one| callbacks::hidden(one, &sensitive)).collect(),
            sensitive,
        }
    }
}

/// The names of all notifiers of the file, those of its profiles included.
fn notifiers(document: &DeTable<'_>, profiles: Option<&DeTable<'_>>) -> BTreeSet<String> {
    let of_profiles = profiles.into_iter().flatten().filter_map(|(_, profile)| profile.get_ref().as_table());
    let tables = of_profiles.chain([document]).filter_map(|sections| sections.get("notifiers")?.get_ref().as_table());
    tables.flatten().map(|(name, _)| name.get_ref().to_string()).collect()
}

const CHECKED: &str = "every key of a section has a value, and each was checked by the table of keys";

pub(super) fn duration(value: &Value) -> Option<Duration> {
    let seconds = || value.as_u64().map(Duration::from_secs);
    value.as_str().map_or_else(seconds, keytable::parse_duration)
}

fn size(value: &Value) -> Option<u64> {
    value.as_str().map_or_else(|| value.as_u64(), keytable::parse_size)
}

/// What is 0 is not looked at.
fn admission(settings: &BTreeMap<String, Setting>, is_auto: bool) -> AdmissionRules {
    let bytes = |key: &str| size(&settings[key].value).filter(|&bytes| bytes > 0);
    let number = |key: &str| settings[key].value.as_f64().filter(|&number| number > 0.0);
    let count = |key: &str| settings[key].value.as_u64().map_or(1, |count| count as u32);
    let floor = count("min_parallelism");
    // A floor above the ceiling is a fault of the file; of two variables the floor wins.
    let range = ParallelismRange { floor, ceiling: count("max_parallelism").max(floor) };
    AdmissionRules {
        thresholds: Thresholds {
            min_memory: bytes("min_memory"),
            min_disk: bytes("min_disk"),
            min_free: None,
            max_load: number("max_load"),
            max_cpu_pressure: number("max_cpu_pressure"),
            max_memory_pressure: number("max_memory_pressure"),
            max_io_pressure: number("max_io_pressure"),
            waits_on_battery: settings["on_battery"].value == "wait",
        },
        memory: bytes("memory"),
        millicpus: number("cpus").map(|cpus| (cpus * 1_000.0) as u32),
        parallelism: is_auto.then_some(range),
    }
}

/// A number of slots, or a table with it.
fn pool(setting: &Setting) -> PoolSetting {
    let Setting { value, origin } = setting;
    let slots = value.get("slots").unwrap_or(value).as_i64();
    let description = value.get("description").and_then(Value::as_str).unwrap_or_default();
    let include_deferred = value.get("include_deferred").and_then(Value::as_bool).unwrap_or_default();
    PoolSetting {
        slots: slots.unwrap_or(DEFAULT_POOL_SLOTS),
        description: description.to_owned(),
        include_deferred,
        is_given: origin != BY_DEFAULT,
    }
}

/// A value as airflow.toml would say it, without quotes.
fn print(kind: &Kind, value: &Value) -> String {
    let printed = match kind {
        Kind::Duration { .. } => duration(value).map(keytable::print_duration),
        Kind::Size { .. } => size(value).map(keytable::print_size),
        _ => value.as_str().map(str::to_owned),
    };
    printed.unwrap_or_else(|| value.to_string())
}

/// Faults that the table of keys cannot express, of all values of a file or a profile.
fn check_more(sections: &DeTable<'_>, faults: &mut Faults<'_>) {
    check_range(sections, faults);
    check_pressures(sections, faults);
    choosing::check(sections, faults);
    for (section, values) in sections {
        for (key, value) in values.get_ref().as_table().into_iter().flatten() {
            if let Some((message, help)) = more_faults(section.get_ref(), key.get_ref(), value.get_ref()) {
                faults.add(value.span(), "bad-value", message, help);
            }
        }
    }
}

/// The bounds of `core.parallelism = "auto"`.
fn check_range(sections: &DeTable<'_>, faults: &mut Faults<'_>) {
    let admission = sections.get("admission").and_then(|admission| admission.get_ref().as_table());
    let bound = |key: &str| {
        let value = admission?.get(key)?;
        Some((value.span(), keytable::json(value.get_ref())?.as_i64()?))
    };
    if let (Some((_, floor)), Some((span, ceiling))) = (bound("min_parallelism"), bound("max_parallelism"))
        && ceiling < floor
    {
        let message = format!("`max_parallelism` is less than the {floor} of `min_parallelism`");
        faults.add(span, "bad-value", message, format!("write {floor} or more"));
    }
}

/// A share of time is never more than all of it: beyond that a threshold would keep nothing back.
fn check_pressures(sections: &DeTable<'_>, faults: &mut Faults<'_>) {
    let Some(admission) = sections.get("admission").and_then(|admission| admission.get_ref().as_table()) else {
        return;
    };
    for key in ["max_cpu_pressure", "max_memory_pressure", "max_io_pressure"] {
        let Some(value) = admission.get(key) else { continue };
        let percent = keytable::json(value.get_ref()).and_then(|json| json.as_f64());
        if let Some(percent) = percent.filter(|percent| *percent > 100.0) {
            let message = format!("`{key}` cannot be {percent}");
            faults.add(value.span(), "out-of-range", message, "use a percentage from 0 to 100; 0: it is not looked at");
        }
    }
}

fn more_faults(section: &str, key: &str, value: &DeValue<'_>) -> Option<(String, String)> {
    let text = value.as_str()?;
    if (section, key) == ("api", "host") && loopback(text).is_none() {
        let message = format!("`{text}` is no loopback address, and minflow has no users to tell apart yet");
        return Some((
            message,
            "use `127.0.0.1` or `::1`; reach it from elsewhere through `ssh -L 8080:localhost:8080`".to_owned(),
        ));
    }
    let is_address = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    if (section, key) == ("heartbeat", "url") && !text.is_empty() && !is_address(text) {
        let message = format!("`{text}` is no address of http or https");
        return Some((message, "write for example `url = \"https://hc-ping.com/…\"`".to_owned()));
    }
    if (section, key) == ("core", "cgroup") && !["auto", "off"].contains(&text) && !text.starts_with('/') {
        let message = format!("`{text}` is neither `auto` nor `off` nor an absolute path");
        return Some((message, "write for example `cgroup = \"/sys/fs/cgroup/minflow\"`".to_owned()));
    }
    let is_empty_path = text.is_empty() && keys::PATHS.contains(&(section, key));
    is_empty_path.then(|| (format!("`{key}` is empty"), "write a path, relative to home or absolute".to_owned()))
}

fn loopback(text: &str) -> Option<IpAddr> {
    let address = if text == "localhost" { "127.0.0.1" } else { text };
    address.parse().ok().filter(IpAddr::is_loopback)
}

/// What bare text means for a key: a variable has no quotes.
fn value_of_text<'t>(kind: &Kind, text: &'t str) -> DeValue<'t> {
    let as_text = || DeValue::String(Cow::Borrowed(text));
    match kind {
        Kind::Bool => match text.to_lowercase().as_str() {
            "true" | "t" | "1" => DeValue::Boolean(true),
            "false" | "f" | "0" => DeValue::Boolean(false),
            _ => as_text(),
        },
        Kind::Integer { .. } | Kind::Duration { .. } | Kind::Size { .. } => {
            let number = DeValue::parse(text).ok().map(Spanned::into_inner).filter(DeValue::is_integer);
            number.unwrap_or_else(as_text)
        }
        Kind::Number { .. } => {
            let is_number = |value: &DeValue<'_>| value.is_integer() || value.is_float();
            DeValue::parse(text).ok().map(Spanned::into_inner).filter(is_number).unwrap_or_else(as_text)
        }
        // The first that does not leave it a text.
        Kind::Either(kinds) => {
            let read = kinds.iter().map(|kind| value_of_text(kind, text));
            read.into_iter().find(|value| !value.is_str()).unwrap_or_else(as_text)
        }
        _ => as_text(),
    }
}
