use crate::model::admission::{AdmissionRules, ParallelismRange, Thresholds};
use std::path::Path;

use super::load::settle;
use super::*;
use crate::diagnostic::Diagnostic;
use crate::secrets::{Credential, Given};

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
            cgroup: None,
        },
        scheduler: Scheduler {
            catchup_by_default: false,
            create_cron_data_intervals: false,
            drain_timeout: Duration::from_secs(5),
            max_tis_per_query: 0,
            fair_share: false,
            priority_ageing: None,
        },
        admission: AdmissionRules {
            thresholds: Thresholds { min_free: Some(10_000_000), ..Thresholds::default() },
            ..AdmissionRules::default()
        },
        database: Database { path: PathBuf::from("/home/x/minflow.db"), synchronous: Synchronous::Full },
        api: Api { host: [127, 0, 0, 1].into(), port: 8080 },
        logging: Logging {
            level: "info".to_owned(),
            base_log_folder: PathBuf::from("/home/x/logs"),
            max_file_size: 100_000_000,
            compress_after: None,
            daemon: None,
        },
        retention: Retention { max_venv_age: Some(Duration::from_secs(30 * 86_400)), ..Retention::default() },
        pools: BTreeMap::from([(
            "default_pool".to_owned(),
            PoolSetting { slots: 128, description: String::new(), include_deferred: false, is_given: false },
        )]),
        assets: BTreeMap::new(),
        secrets: Given::default(),
        notices: crate::config::Notices::default(),
        heartbeat: None,
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
core.sensitive_var_conn_names = 
core.killed_task_cleanup_time = 5s
core.cgroup = auto
scheduler.catchup_by_default = false
scheduler.create_cron_data_intervals = false
scheduler.drain_timeout = 5s
scheduler.max_tis_per_query = 0
scheduler.fair_share = false
scheduler.priority_ageing = 0s
admission.min_memory = 0B
admission.min_disk = 0B
admission.max_load = 0
admission.max_cpu_pressure = 0
admission.max_memory_pressure = 0
admission.max_io_pressure = 0
admission.on_battery = start
admission.memory = 0B
admission.cpus = 0
admission.min_parallelism = 1
admission.max_parallelism = 64
database.path = /home/x/minflow.db
database.synchronous = full
database.min_free = 10MB
api.host = 127.0.0.1
api.port = 8080
logging.level = info
logging.base_log_folder = /home/x/logs
logging.max_file_size = 100MB
logging.compress_after = 0s
logging.daemon_file = 
logging.daemon_max_size = 100MB
logging.daemon_keep = 5
retention.max_age = 0s
retention.max_runs = 0
retention.max_bytes = 0B
retention.max_audit_age = 0s
retention.max_venv_age = 30d
heartbeat.url = 
heartbeat.interval = 1m
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
    let config = settled(text, &inputs(&[], &[])).unwrap().config;
    let lines = |pools: Vec<Pool>| -> Vec<String> {
        pools.iter().map(|pool| format!("{} {} {}", pool.name, pool.slots, pool.description)).collect()
    };
    assert_eq!(lines(config.given_pools()), ["cpu 2 CPU-bound", "free -1 "]);
    let stored = [("cpu", 9), ("default_pool", 3)].map(|(name, slots)| Pool {
        name: name.into(),
        slots,
        ..Pool::default_pool()
    });
    let all = |stored: &[Pool]| lines(config.pools_with(stored.to_vec()).into_values().collect());
    assert_eq!(all(&[]), ["cpu 2 CPU-bound", "default_pool 128 ", "free -1 "]);
    assert_eq!(all(&stored), ["cpu 2 CPU-bound", "default_pool 3 ", "free -1 "]);
    let given = settled("[pools]\ndefault_pool = 128\n", &inputs(&[], &[])).unwrap().config;
    assert_eq!(given.pools_with(stored)["default_pool"].slots, 128);
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
help: the keys of [core] are `dags_folder`, `parallelism`, `max_active_tasks_per_dag`, `max_active_runs_per_dag`, `default_timezone`, `default_task_retries`, `default_task_retry_delay`, `dags_are_paused_at_creation`, `dag_run_conf_overrides_params`, `max_map_length`, `sensitive_var_conn_names`, `killed_task_cleanup_time`, `cgroup`
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
fn variables_and_connections_are_text_or_what_json_can_hold() {
    let text = "[core]
sensitive_var_conn_names = \"pin\"
[variables]
greeting = \"hello\"
limits = { rows = 5, names = [\"a\", \"é\"] }
on = true
[connections]
one = \"postgresql://u:p@h:5432/db?sslmode=require\"
two = '{\"conn_type\": \"http\", \"port\": \"80\"}'
[connections.three]
conn_type = \"my-type\"
host = \"h\"
password_file = \"secrets/three\"
extra = { key = \"value\", n = 5 }
[profiles.production.connections]
four = { uri = \"x://u@h\", password_env = \"FOUR\", description = \"the fourth\" }
";
    let with_profile = ConfigInputs { profile: Some("production".to_owned()), ..inputs(&[], &[]) };
    let secrets = settled(text, &with_profile).unwrap().config.secrets;
    let variables: Vec<(&str, &str, &str)> =
        secrets.variables.iter().map(|(name, given)| (&**name, &*given.text, &*given.origin)).collect();
    assert_eq!(
        variables,
        [
            ("greeting", "hello", "airflow.toml:4"),
            ("limits", r#"{"rows": 5, "names": ["a", "\u00e9"]}"#, "airflow.toml:5"),
            ("on", "true", "airflow.toml:6"),
        ]
    );
    let uri = |name: &str| secrets.connections[name].connection.uri();
    assert_eq!(uri("one"), "postgres://u:p@h:5432/db?sslmode=require");
    assert_eq!(uri("two"), "http://@:80");
    assert_eq!(uri("three"), "my-type://h/?__extra__=%7B%22key%22%3A+%22value%22%2C+%22n%22%3A+5%7D");
    let credential = |name: &str| secrets.connections[name].credential.clone();
    assert_eq!(credential("one"), None);
    assert_eq!(credential("three"), Some(Credential::File(PathBuf::from("/home/x/secrets/three"))));
    assert_eq!(credential("four"), Some(Credential::Environment("FOUR".to_owned())));
    assert_eq!(secrets.connections["four"].connection.description.as_deref(), Some("the fourth"));
    assert!(secrets.sensitive.hides("my_pin"));
}

#[test]
fn faults_of_connections_are_named_at_their_place_and_show_no_secret() {
    let text = "[connections]
spark = \"spark://user:hunter2@local[*]\"
json = '{\"conn_type\": \"http\", \"pasword\": \"hunter2\"}'
[connections.twice]
uri = \"x://u:hunter2@h\"
host = \"other\"
password_env = \"P\"
[connections.typos]
pasword = \"hunter2\"
password = 22222222
port = \"http\"
extra = \"hunter2: no JSON\"
[variables]
api_key = [1, nan]
plain = [1, inf]
[profiles.production.connections]
bad = \"a://b://c://hunter2\"
";
    assert_eq!(
        printed(text, &inputs(&[], &[])),
        "airflow.toml:2:9: bad-connection: this is no connection: what stands in its brackets is no IPv6 address
2 | spark = ***
  |         ^^^
help: write type://login:password@host:port/schema?key=value, with the signs :/@?#%[] inside a part percent-encoded
airflow.toml:3:8: bad-connection: this is no connection: unknown key `pasword`
3 | json = ***
  |        ^^^
help: did you mean `password`?
airflow.toml:6:1: conflict: `host` is given beside `uri`, which says it too
6 | host = \"other\"
  | ^^^^
help: keep `uri`, or all the other keys
airflow.toml:7:1: conflict: the password is given twice
7 | password_env = \"P\"
  | ^^^^^^^^^^^^
help: keep one of the two
airflow.toml:9:1: unknown-key: unknown key `pasword`
9 | pasword = ***
  | ^^^^^^^
help: did you mean `password`?
airflow.toml:10:12: wrong-type: `password` must be text, not an integer
10 | password = ***
   |            ^^^
help: write for example `password = \"***\"`
airflow.toml:11:8: wrong-type: `port` must be an integer, not text
11 | port = \"http\"
   |        ^^^^^^
help: write for example `port = 1`
airflow.toml:12:9: bad-connection: `extra` is no JSON
12 | extra = ***
   |         ^^^
help: write a table, as in `extra = { key = \"value\" }`
airflow.toml:14:11: bad-value: `api_key` holds a number that JSON has none for
14 | api_key = ***
   |           ^^^
help: use a finite number of at most 64 bits, or text
airflow.toml:15:9: bad-value: `plain` holds a number that JSON has none for
15 | plain = [1, inf]
   |         ^^^^^^^^
help: use a finite number of at most 64 bits, or text
airflow.toml:17:7: bad-connection: this is no connection: it has more than two `://`
17 | bad = ***
   |       ^^^
help: write type://login:password@host:port/schema?key=value, with the signs :/@?#%[] inside a part percent-encoded"
    );
}

#[test]
fn a_password_that_is_no_toml_is_not_shown_either() {
    let cases = [
        "[connections.db]\npassword = hunter2\n",
        "[connections]\ndb = { password = \"hunter2\", password = \"hunter2\" \n",
        "[connections]\ndb = \"\"\"\nx://u:hunter2@h\n\\q \"\"\"\n",
        "connections.db = 'hunter2\n",
        "[profiles.p.connections.\"d b\"]\npassword = \"hunter2\nx = 5\n",
        "[variables]\nmy_secret = hunter2\n",
        "variables = { my_secret = hunter2 }\n",
    ];
    for text in cases {
        let shown = printed(text, &inputs(&[], &[]));
        assert!(!shown.contains("hunter2") && shown.contains("***"), "{text}\n{shown}");
    }
}

#[test]
fn what_proves_who_tells_is_hidden_in_every_kind_of_notifier() {
    let text = "
[notifiers.chat]
kind = 'slack'
url = 'https://hooks.example.com/T0'
[notifiers.phone]
kind = 'ntfy'
topic = 'alerts'
token = 'tk_phone'
[notifiers.desk]
kind = 'http'
url = 'https://desk.example.com'
headers = { Authorization = 'Bearer abcdef', Accept = 'text/plain' }
params = { api_key = 'key-1', of = 'minflow' }
[notifiers.own]
kind = 'http'
url = 'https://own.example.com'
headers = { Authorization = 'Bearer {{ var.value.token }}' }
";
    let hidden = settled(text, &inputs(&[], &[])).unwrap().config.secrets.hidden;
    let hidden: std::collections::BTreeSet<&str> = hidden.iter().map(String::as_str).collect();
    assert_eq!(hidden, ["https://hooks.example.com/T0", "tk_phone", "Bearer abcdef", "abcdef", "key-1"].into());
}

#[test]
fn the_mail_server_is_a_connection_whose_password_has_every_source_of_one() {
    let text = "[smtp]\nhost = 'h'\nport = 2525\nuser = 'u'\npassword_env = 'MAIL'\nmail_from = 'm@h'\ntls = 'none'\nverify = false\ntimeout = '2m'\n[profiles.p.smtp]\nhost = 'other'\n";
    let given = |inputs: &ConfigInputs| {
        let loaded = settle(inputs, Path::new("airflow.toml"), text.as_bytes()).unwrap();
        loaded.config.secrets.connections["smtp_default"].clone()
    };
    let smtp = given(&inputs(&[], &[]));
    let connection = &smtp.connection;
    assert_eq!(
        (connection.host.as_deref(), connection.port, connection.login.as_deref()),
        (Some("h"), Some(2525), Some("u"))
    );
    assert_eq!(smtp.credential, Some(crate::secrets::Credential::Environment("MAIL".to_owned())));
    let expected = serde_json::json!({ "from_email": "m@h", "tls": "none", "verify": false, "timeout": 120 });
    assert_eq!(connection.extra_dejson(), expected);
    let of_profile = given(&inputs(&[("MINFLOW_PROFILE", "p")], &[]));
    assert_eq!((of_profile.connection.host.as_deref(), of_profile.connection.port), (Some("other"), Some(2525)));
}

#[test]
fn faults_of_the_mail_server_show_no_password() {
    for text in ["[smtp]\npassword = hunter2\n", "smtp = { password = hunter2 }\n", "[smtp]\npassword = 'hunter2\n"] {
        let shown = printed(text, &inputs(&[], &[]));
        assert!(!shown.contains("hunter2") && shown.contains("***"), "{text}\n{shown}");
    }
    let text = "[smtp]\npassword = 'hunter2'\npassword_env = 'P'\nmail_from = 'minflow'\ntls = 'yes'\nhost = ''\n[connections]\nsmtp_default = 'smtp://h'\n";
    let shown = printed(text, &inputs(&[], &[]));
    for part in [
        "the password is given twice",
        "`minflow` is no address",
        "`yes` is not a value of `tls`",
        "`host` is empty",
        "`[smtp]` is the connection `smtp_default`",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
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
MINFLOW__CORE__PARALLELISM: bad-value: `many` is not a value of `parallelism`
help: use one of `auto`, or an integer
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

#[test]
fn what_counts_from_the_next_start_on_is_a_key_and_is_said_on_the_page() {
    let page = documentation();
    let told = page.split("**A running minflow**").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    for (section, key) in keys::AT_START {
        let (_, table) = keys::SECTIONS.iter().find(|(name, _)| *name == section).unwrap();
        assert!(table.find(key).is_some(), "{section}.{key}");
        assert!(
            told.contains(&format!("`[{section}]`")) || told.contains(&format!("`{section}.{key}`")),
            "{section}.{key}"
        );
    }
}

fn documentation() -> String {
    let mut text = include_str!("configuration.head.md").to_owned();
    for (section, table) in keys::SECTIONS {
        text += &format!("\n## `[{section}]`\n\n{}", crate::keytable::markdown(table));
    }
    text += "\n## `[pools]`\n\nEach key is the name of a pool; its value is the number of slots, or a table:\n\n";
    text += &crate::keytable::markdown(&keys::POOL);
    text += include_str!("configuration.pools.md");
    text += include_str!("configuration.secrets.md");
    text += &crate::keytable::markdown(&keys::CONNECTION);
    text += include_str!("configuration.smtp.md");
    text += &crate::keytable::markdown(&keys::SMTP);
    text += include_str!("configuration.notifiers.md");
    text += &crate::keytable::markdown(&keys::NOTIFIER);
    text += "\n## `[defaults]`\n\nWhat DAGs have that do not say it themselves; the keys of a callback are told in `docs/dag-format.md`.\n\n";
    text += &crate::keytable::markdown(&keys::DEFAULTS);
    text += "\n## `profile` and `[profiles.NAME]`\n\nA profile holds sections as above, whose values win over those of the file while it is chosen.\n";
    text + "\n```toml\n[profiles.production.core]    # chosen by `profile = \"production\"`, MINFLOW_PROFILE or --profile\nparallelism = 64\n```\n"
}

#[test]
fn admission_is_off_until_a_threshold_is_given_and_auto_takes_its_bounds_from_there() {
    let text = "[core]\nparallelism = \"auto\"\n[admission]\nmin_memory = \"2GB\"\nmax_load = 1.5\non_battery = \"wait\"\n\
        min_parallelism = 4\nmax_parallelism = 12\n";
    let config = settled(text, &inputs(&[], &[])).unwrap().config;
    let thresholds = Thresholds {
        min_memory: Some(2_000_000_000),
        max_load: Some(1.5),
        min_free: Some(10_000_000),
        waits_on_battery: true,
        ..Thresholds::default()
    };
    let parallelism = Some(ParallelismRange { floor: 4, ceiling: 12 });
    assert_eq!(config.admission, AdmissionRules { thresholds, parallelism, ..AdmissionRules::default() });
    assert_eq!(config.core.parallelism, 12);
    let by_variable = inputs(&[("MINFLOW__CORE__PARALLELISM", "7"), ("MINFLOW__ADMISSION__MAX_LOAD", "2.5")], &[]);
    let config = settled(text, &by_variable).unwrap().config;
    assert_eq!((config.core.parallelism, config.admission.parallelism), (7, None));
    assert_eq!(config.admission.thresholds.max_load, Some(2.5));
}

#[test]
fn bad_values_of_admission_are_told_where_they_stand() {
    let text = "[core]\nparallelism = \"all\"\n[admission]\nmin_memory = -1\nmax_load = \"much\"\nmin_parallelism = 9\nmax_parallelism = 3\n\
        max_cpu_pressure = 100.5\nmax_io_pressure = 100\n[database]\nmin_free = \"some\"\n";
    let faults = settled(text, &inputs(&[], &[])).unwrap_err();
    let places: Vec<_> = faults.iter().map(|fault| (fault.line, fault.code)).collect();
    assert_eq!(
        places,
        [(2, "bad-value"), (4, "bad-size"), (5, "wrong-type"), (7, "bad-value"), (8, "out-of-range"), (11, "bad-size")],
        "{faults:#?}"
    );
}
