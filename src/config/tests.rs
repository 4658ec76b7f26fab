use std::path::Path;

use super::load::settle;
use super::*;
use crate::diagnostic::Diagnostic;

fn inputs(environment: &[(&str, &str)], flags: &[(&str, &str, &str, &str)]) -> ConfigInputs {
    ConfigInputs {
        home: PathBuf::from("/home/x"),
        environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags
            .iter()
            .map(|(flag, section, key, value)| Flag {
                flag: (*flag).to_owned(),
                section: (*section).to_owned(),
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            })
            .collect(),
        ..ConfigInputs::default()
    }
}

fn settled(text: &str, inputs: &ConfigInputs) -> Result<Loaded, Vec<Diagnostic>> {
    settle(inputs, Path::new("airflow.toml"), text.as_bytes())
}

fn printed(text: &str, inputs: &ConfigInputs) -> String {
    let faults = settled(text, inputs).unwrap_err();
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn entry<'l>(loaded: &'l Loaded, section: &str, key: &str) -> (&'l str, &'l str) {
    let found = loaded.entries.iter().find(|entry| entry.section == section && entry.key == key).unwrap();
    (&found.value, &found.origin)
}

#[test]
fn an_empty_home_has_all_defaults() {
    let loaded = settled("", &inputs(&[], &[])).unwrap();
    let expected = Config {
        home: PathBuf::from("/home/x"),
        profile: None,
        core: Core {
            dags_folder: PathBuf::from("/home/x/dags"),
            parallelism: 32,
            max_active_tasks_per_dag: 16,
            max_active_runs_per_dag: 16,
            default_timezone: "UTC".to_owned(),
            default_task_retries: 0,
            default_task_retry_delay: Duration::from_secs(300),
            dags_are_paused_at_creation: false,
            dag_run_conf_overrides_params: true,
            max_map_length: 1_024,
            killed_task_cleanup_time: Duration::from_secs(5),
        },
        scheduler: Scheduler {
            catchup_by_default: false,
            create_cron_data_intervals: false,
            drain_timeout: Duration::from_secs(5),
        },
        database: Database { path: PathBuf::from("/home/x/minflow.db"), synchronous: Synchronous::Full },
        api: Api { host: [127, 0, 0, 1].into(), port: 8080 },
        logging: Logging {
            level: "info".to_owned(),
            base_log_folder: PathBuf::from("/home/x/logs"),
            max_file_size: 100_000_000,
        },
        pools: BTreeMap::from([("default_pool".to_owned(), PoolSetting { slots: 128, description: String::new() })]),
    };
    assert_eq!(loaded.config, expected);
    assert!(loaded.entries.iter().all(|entry| entry.origin == "default"));
    let lines: Vec<String> =
        loaded.entries.iter().map(|entry| format!("{}.{} = {}", entry.section, entry.key, entry.value)).collect();
    assert_eq!(
        lines.join("\n"),
        "core.dags_folder = /home/x/dags
core.parallelism = 32
core.max_active_tasks_per_dag = 16
core.max_active_runs_per_dag = 16
core.default_timezone = UTC
core.default_task_retries = 0
core.default_task_retry_delay = 5m
core.dags_are_paused_at_creation = false
core.dag_run_conf_overrides_params = true
core.max_map_length = 1024
core.killed_task_cleanup_time = 5s
scheduler.catchup_by_default = false
scheduler.create_cron_data_intervals = false
scheduler.drain_timeout = 5s
database.path = /home/x/minflow.db
database.synchronous = full
api.host = 127.0.0.1
api.port = 8080
logging.level = info
logging.base_log_folder = /home/x/logs
logging.max_file_size = 100MB
pools.default_pool = 128"
    );
}

#[test]
fn each_source_wins_over_the_one_before_and_is_named() {
    let file = "profile = \"big\"\n[core]\nparallelism = 2\n[profiles.big.core]\nparallelism = 3\n";
    let without_profile = file.replace("profile = \"big\"", "");
    let airflow = ("AIRFLOW__CORE__PARALLELISM", "4");
    let ours = ("MINFLOW__CORE__PARALLELISM", " 5 ");
    let flag = ("--parallelism", "core", "parallelism", "6");
    let cases = [
        ("", inputs(&[], &[]), 32, "default"),
        (&*without_profile, inputs(&[], &[]), 2, "airflow.toml:3"),
        (file, inputs(&[], &[]), 3, "airflow.toml:5"),
        (file, inputs(&[airflow], &[]), 4, "AIRFLOW__CORE__PARALLELISM"),
        (file, inputs(&[airflow, ours], &[]), 5, "MINFLOW__CORE__PARALLELISM"),
        (file, inputs(&[airflow, ours], &[flag]), 6, "--parallelism"),
    ];
    for (text, inputs, parallelism, origin) in cases {
        let loaded = settled(text, &inputs).unwrap();
        assert_eq!(loaded.config.core.parallelism, parallelism);
        assert_eq!(entry(&loaded, "core", "parallelism"), (&*parallelism.to_string(), origin));
    }
}

#[test]
fn the_profile_of_a_flag_wins_over_the_variables_and_that_over_the_files() {
    let file = "profile = \"a\"\n[profiles.a.api]\nport = 1\n[profiles.b.api]\nport = 2\n[profiles.c.api]\nport = 3\n";
    let from_file = inputs(&[], &[]);
    let from_variable = inputs(&[("MINFLOW_PROFILE", "b")], &[]);
    let from_flag = ConfigInputs { profile: Some("c".to_owned()), ..from_variable.clone() };
    for (inputs, port, profile) in [(from_file, 1, "a"), (from_variable, 2, "b"), (from_flag, 3, "c")] {
        let config = settled(file, &inputs).unwrap().config;
        assert_eq!((config.api.port, config.profile.as_deref()), (port, Some(profile)));
    }
}

#[test]
fn values_of_variables_need_no_quotes() {
    let environment = [
        ("MINFLOW__CORE__DEFAULT_TASK_RETRY_DELAY", "1h30m"),
        ("AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME", "60"),
        ("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "True"),
        ("AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS", "True"),
        ("MINFLOW__LOGGING__MAX_FILE_SIZE", "2GiB"),
        ("AIRFLOW__CORE__MAX_MAP_LENGTH", "100_000"),
        ("MINFLOW__DATABASE__PATH", "/var/lib/m.db"),
        ("MINFLOW__API__HOST", "localhost"),
        ("MINFLOW__POOLS__DEFAULT_POOL", "7"),
    ];
    let loaded = settled("", &inputs(&environment, &[])).unwrap();
    assert_eq!(loaded.config.core.default_task_retry_delay, Duration::from_secs(5_400));
    assert_eq!(loaded.config.core.killed_task_cleanup_time, Duration::from_secs(60));
    assert!(loaded.config.core.dags_are_paused_at_creation);
    assert!(loaded.config.scheduler.create_cron_data_intervals);
    assert_eq!(loaded.config.logging.max_file_size, 2 << 30);
    assert_eq!(loaded.config.core.max_map_length, 100_000);
    assert_eq!(loaded.config.database.path, Path::new("/var/lib/m.db"));
    assert!(loaded.config.api.host.is_loopback());
    assert_eq!(loaded.config.pools["default_pool"].slots, 7);
    assert_eq!(
        entry(&loaded, "core", "default_task_retry_delay"),
        ("1h30m", "MINFLOW__CORE__DEFAULT_TASK_RETRY_DELAY")
    );
    assert_eq!(entry(&loaded, "core", "killed_task_cleanup_time").0, "1m");
}

#[test]
fn airflows_own_variables_are_ignored_with_one_note_and_its_paths_never_taken() {
    let environment = [
        ("AIRFLOW__API__HOST", "0.0.0.0"),
        ("AIRFLOW__CORE__DAGS_FOLDER", "/opt/airflow/dags"),
        ("AIRFLOW__CORE__EXECUTOR", "LocalExecutor"),
        ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://secret"),
        ("AIRFLOW__LOGGING__BASE_LOG_FOLDER", "/opt/airflow/logs"),
        ("AIRFLOW__X", "1"),
        ("AIRFLOW_HOME", "/opt/airflow"),
    ];
    let loaded = settled("", &inputs(&environment, &[])).unwrap();
    assert_eq!(loaded.config, settled("", &inputs(&[], &[])).unwrap().config);
    assert_eq!(
        loaded.notes,
        [
            "ignored: AIRFLOW__API__HOST, AIRFLOW__CORE__DAGS_FOLDER, AIRFLOW__CORE__EXECUTOR, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, AIRFLOW__LOGGING__BASE_LOG_FOLDER, AIRFLOW__X (variables of Airflow that minflow has no setting for, or its paths and address, which minflow never takes)"
        ]
    );
}

#[test]
fn pools_are_numbers_or_tables_and_the_default_pool_is_always_there() {
    let text = "[pools]\ncpu = { slots = 2, description = \"CPU-bound\" }\nfree = -1\n";
    let pools = settled(text, &inputs(&[], &[])).unwrap().config.pools();
    let lines: Vec<String> =
        pools.iter().map(|pool| format!("{} {} {}", pool.name, pool.slots, pool.description)).collect();
    assert_eq!(lines, ["cpu 2 CPU-bound", "default_pool 128 ", "free -1 "]);
}

#[test]
fn every_fault_of_the_file_is_named_at_its_place() {
    let text = "[core]
paralelism = 3
parallelism = 0
default_timezone = \"Europe/Lodon\"
default_task_retry_delay = \"5 minutes\"
max_task_retry_delay = 1024
[api]
host = \"0.0.0.0\"
port = 70000
[loging]
[pools]
cpu = \"two\"
[profiles.big.database]
synchronous = \"off\"
path = \"\"
";
    assert_eq!(
        printed(text, &inputs(&[], &[])),
        "airflow.toml:2:1: unknown-key: unknown key `paralelism`
2 | paralelism = 3
  | ^^^^^^^^^^
help: did you mean `parallelism`?
airflow.toml:3:15: out-of-range: `parallelism` cannot be 0
3 | parallelism = 0
  |               ^
help: use an integer from 1 to 4096
airflow.toml:4:20: unknown-timezone: `Europe/Lodon` is not the name of a time zone
4 | default_timezone = \"Europe/Lodon\"
  |                    ^^^^^^^^^^^^^^
help: did you mean `Europe/London`?
airflow.toml:5:28: bad-duration: `5 minutes` is not a duration
5 | default_task_retry_delay = \"5 minutes\"
  |                            ^^^^^^^^^^^
help: write whole seconds, or text like \"90s\", \"1h30m\", \"2d\" (units w, d, h, m, s; at most 100 years)
airflow.toml:6:1: unknown-key: unknown key `max_task_retry_delay`
6 | max_task_retry_delay = 1024
  | ^^^^^^^^^^^^^^^^^^^^
help: the keys of [core] are `dags_folder`, `parallelism`, `max_active_tasks_per_dag`, `max_active_runs_per_dag`, `default_timezone`, `default_task_retries`, `default_task_retry_delay`, `dags_are_paused_at_creation`, `dag_run_conf_overrides_params`, `max_map_length`, `killed_task_cleanup_time`
airflow.toml:8:8: bad-value: `0.0.0.0` is no loopback address, and minflow has no users to tell apart yet
8 | host = \"0.0.0.0\"
  |        ^^^^^^^^^
help: use `127.0.0.1` or `::1`; reach it from elsewhere through `ssh -L 8080:localhost:8080`
airflow.toml:9:8: out-of-range: `port` cannot be 70000
9 | port = 70000
  |        ^^^^^
help: use an integer from 0 to 65535
airflow.toml:10:2: unknown-key: unknown key `loging`
10 | [loging]
   |  ^^^^^^
help: did you mean `logging`?
airflow.toml:12:7: wrong-type: `cpu` must be an integer or a table, not text
12 | cpu = \"two\"
   |       ^^^^^
help: write for example `cpu = 1`
airflow.toml:14:15: bad-value: `off` is not a value of `synchronous`
14 | synchronous = \"off\"
   |               ^^^^^
help: use one of `full`, `normal`
airflow.toml:15:8: bad-value: `path` is empty
15 | path = \"\"
   |        ^^
help: write a path, relative to home or absolute"
    );
}

#[test]
fn faults_outside_the_file_name_the_variable_or_flag() {
    let environment = [
        ("MINFLOW__CORE__PARALELISM", "3"),
        ("MINFLOW__CORE__PARALLELISM", "many"),
        ("MINFLOW__API__HOST", "192.168.0.1"),
        ("MINFLOW__POOLS__NONE", "1"),
        ("MINFLOW_PROFILE", "prod"),
    ];
    let flag = ("--port", "api", "port", "-1");
    assert_eq!(
        printed("[profiles.prof.core]\n", &inputs(&environment, &[flag])),
        "MINFLOW_PROFILE: unknown-profile: there is no profile `prod`
help: did you mean `prof`?
MINFLOW__API__HOST: bad-value: `192.168.0.1` is no loopback address, and minflow has no users to tell apart yet
help: use `127.0.0.1` or `::1`; reach it from elsewhere through `ssh -L 8080:localhost:8080`
MINFLOW__CORE__PARALELISM: unknown-key: no setting has this name
help: did you mean `MINFLOW__CORE__PARALLELISM`?
MINFLOW__CORE__PARALLELISM: wrong-type: `parallelism` must be an integer, not text
help: write for example `parallelism = 32`
MINFLOW__POOLS__NONE: unknown-key: no setting has this name
help: `minflow config list` shows all settings; the form is `MINFLOW__SECTION__KEY`
--port: out-of-range: `port` cannot be -1
help: use an integer from 0 to 65535"
    );
}

#[test]
fn a_named_file_must_exist_and_the_usual_one_need_not() {
    let home = tempfile::tempdir().unwrap();
    let usual = ConfigInputs { home: home.path().to_owned(), ..ConfigInputs::default() };
    assert!(load(usual.clone()).is_ok());
    let named = home.path().join("other.toml");
    let with_named = ConfigInputs { config: Some(named.clone()), ..usual };
    assert_eq!(load(with_named.clone()).unwrap_err()[0].code, "unreadable");
    std::fs::write(&named, "[api]\nport = 0\n").unwrap();
    assert_eq!(load(with_named).unwrap().config.api.port, 0);
}

#[test]
fn the_checked_in_schema_and_documentation_follow_the_table_of_keys() {
    let schema = crate::keytable::json_schema("minflow configuration (airflow.toml)", &keys::AIRFLOW);
    let schema = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    crate::keytable::assert_checked_in("schemas/airflow.schema.json", &schema);
    crate::keytable::assert_checked_in("docs/configuration.md", &documentation());
}

fn documentation() -> String {
    let mut text = include_str!("configuration.head.md").to_owned();
    for (section, table) in keys::SECTIONS {
        text += &format!("\n## `[{section}]`\n\n{}", crate::keytable::markdown(table));
    }
    text += "\n## `[pools]`\n\nEach key is the name of a pool; its value is the number of slots, or a table:\n\n";
    text += &crate::keytable::markdown(&keys::POOL);
    text += "\n## `profile` and `[profiles.NAME]`\n\nA profile holds sections as above, whose values win over those of the file while it is chosen.\n";
    text + "\n```toml\n[profiles.production.core]    # chosen by `profile = \"production\"`, MINFLOW_PROFILE or --profile\nparallelism = 64\n```\n"
}
