//! The table of keys of airflow.toml. The messages, `schemas/airflow.schema.json` and `docs/configuration.md` follow from it.

use crate::keytable::{COUNT, Fallback, Key, Kind, POSITIVE, Table};

const fn key(name: &'static str, kind: Kind, default: Fallback, description: &'static str) -> Key {
    Key { name, kind, default, description }
}

/// A section with its keys.
const fn section(name: &'static str, table: &'static Table, description: &'static str) -> Key {
    Key { name, kind: Kind::Table(table), default: Fallback::Nothing, description }
}

/// The sections whose keys are fixed, in the order in which they are shown.
pub const SECTIONS: [(&str, &Table); 8] = [
    ("core", &CORE),
    ("scheduler", &SCHEDULER),
    ("admission", &ADMISSION),
    ("database", &DATABASE),
    ("api", &API),
    ("logging", &LOGGING),
    ("retention", &RETENTION),
    ("heartbeat", &HEARTBEAT),
];

/// The sections whose keys are names that the user gives, and what need not be there at all.
pub const NAMED: [&str; 7] = ["pools", "assets", "variables", "connections", "smtp", "notifiers", "defaults"];

/// Where Airflow's own server listens is its own affair: taken from its environment, it would be another server's port, or an
/// address that minflow refuses.
pub const LISTENING: [(&str, &str); 2] = [("api", "host"), ("api", "port")];

/// The keys that hold a path: resolved against home, and never taken from Airflow's environment.
pub const PATHS: [(&str, &str); 3] = [("core", "dags_folder"), ("database", "path"), ("logging", "base_log_folder")];

/// The keys that are read at the start alone; what SIGHUP finds of them counts from the next start on. All others count at once.
pub const AT_START: [(&str, &str); 16] = [
    ("core", "cgroup"),
    ("core", "dags_folder"),
    ("database", "path"),
    ("database", "synchronous"),
    ("api", "host"),
    ("api", "port"),
    ("logging", "base_log_folder"),
    ("logging", "compress_after"),
    ("logging", "daemon_file"),
    ("logging", "daemon_max_size"),
    ("logging", "daemon_keep"),
    ("retention", "max_age"),
    ("retention", "max_runs"),
    ("retention", "max_bytes"),
    ("retention", "max_audit_age"),
    ("retention", "max_venv_age"),
];

/// A whole airflow.toml.
pub static AIRFLOW: Table = Table { name: "airflow.toml", keys: &[&PROFILES, &SECTION_KEYS] };

pub static PROFILE: Table = Table { name: "a profile", keys: &[&SECTION_KEYS] };

static PROFILES: [Key; 2] = [
    key("profile", Kind::Text, Fallback::Nothing, "The profile to use; `MINFLOW_PROFILE` and `--profile` win over it"),
    key(
        "profiles",
        Kind::Map("name", &Kind::Table(&PROFILE)),
        Fallback::Nothing,
        "Sections whose values win over those of the file while their profile is chosen",
    ),
];

static SECTION_KEYS: [Key; 15] = [
    section("core", &CORE, "What runs, and how much of it at once"),
    section("scheduler", &SCHEDULER, "How runs are made and how minflow stops"),
    section("admission", &ADMISSION, "What the host must have to spare before anything new starts"),
    section("database", &DATABASE, "Where the state is kept"),
    section("api", &API, "The address of the page and of `/status`"),
    section("logging", &LOGGING, "minflow's log and those of the tasks"),
    section("retention", &RETENTION, "What of the history goes, and when"),
    section("heartbeat", &HEARTBEAT, "Whom minflow tells that it is alive"),
    key(
        "pools",
        Kind::Map("name", &Kind::Either(&[SLOTS, Kind::Table(&POOL)])),
        Fallback::Toml("{ default_pool = 128 }"),
        "Slots that tasks of all DAGs share",
    ),
    key(
        "assets",
        Kind::Map("name", &Kind::Table(&ASSET)),
        Fallback::Nothing,
        "What tasks produce and DAGs wait for; a DAG file may define assets, too",
    ),
    key(
        "variables",
        Kind::Map("name", &Kind::Any),
        Fallback::Nothing,
        "Values that templates read as `var.value.NAME` and `var.json.NAME`; what is no text is kept as JSON",
    ),
    key(
        "connections",
        Kind::Map("name", &Kind::Either(&[Kind::Text, Kind::Table(&CONNECTION)])),
        Fallback::Nothing,
        "How to reach services: a URI, JSON as text, or a table; templates read them as `conn.NAME`",
    ),
    section("smtp", &SMTP, "The mail server of mails that name no connection"),
    key(
        "notifiers",
        Kind::Map("name", &Kind::Table(&NOTIFIER)),
        Fallback::Nothing,
        "Ways of telling people, which callbacks name: `{ notify = \"NAME\" }`",
    ),
    section("defaults", &DEFAULTS, "What holds for every DAG that does not say it itself"),
];

const CALLBACKS: Kind = Kind::List(&Kind::Table(&CALLBACK));

pub static DEFAULTS: Table = Table {
    name: "[defaults]",
    keys: &[&[
        key(
            "on_success",
            CALLBACKS,
            Fallback::Nothing,
            "Callbacks of runs that succeed, for DAGs without `on_success`",
        ),
        key("on_failure", CALLBACKS, Fallback::Nothing, "Callbacks of runs that fail, for DAGs without `on_failure`"),
    ]],
};

const TIMEOUT: Key = key(
    "timeout",
    Kind::Duration { min: 1 },
    Fallback::Words("the notifier's, else 60 seconds"),
    "What takes longer is ended, and tried again",
);

pub static CALLBACK: Table = Table {
    name: "a callback",
    keys: &[&[
        key("bash", Kind::Template, Fallback::Nothing, "A script for `bash -c`"),
        key("http", Kind::Table(&CALLBACK_HTTP), Fallback::Nothing, "An HTTP request"),
        key("notify", Kind::Text, Fallback::Nothing, "The name of a notifier of airflow.toml"),
        key(
            "when",
            Kind::Either(&[Kind::OneOf(&["every", "first", "recovered"]), Kind::Table(&IN_A_ROW)]),
            Fallback::Toml("\"every\""),
            "Of a failure: each, the first after a success, or the one that makes N in a row; of a success: each, or the first after a failure",
        ),
        TIMEOUT,
    ]],
};

pub static IN_A_ROW: Table = Table {
    name: "`when` of a callback",
    keys: &[&[key("in_a_row", POSITIVE, Fallback::Nothing, "How many runs in a row must have failed")]],
};

const URL: Key = key("url", Kind::Template, Fallback::Nothing, "Where to");
const METHOD: Key = key("method", Kind::Template, Fallback::Toml("\"POST\""), "The method of the request");
const HEADERS: Key =
    key("headers", Kind::Map("header", &Kind::Template), Fallback::Toml("{}"), "Headers of the request");
const BODY: Key = key("body", Kind::Template, Fallback::Nothing, "The text that is sent");
/// Whom a mail goes to.
pub const ADDRESSES: Kind = Kind::Either(&[Kind::Template, Kind::List(&Kind::Template)]);
const JSON: Key = key("json", Kind::Any, Fallback::Nothing, "What is sent as JSON instead; texts in it are templates");

const PARAMS: Key = key(
    "params",
    Kind::Map("parameter", &Kind::Any),
    Fallback::Toml("{}"),
    "What is added to the url's query; of a list each element",
);

pub static CALLBACK_HTTP: Table = Table {
    name: "`http` of a callback",
    keys: &[&[
        URL,
        key(
            "connection",
            Kind::Template,
            Fallback::Nothing,
            "The id of a connection of the type `http` or `https`, whose address `url` continues",
        ),
        METHOD,
        HEADERS,
        PARAMS,
        BODY,
        JSON,
    ]],
};

pub static NOTIFIER: Table = Table {
    name: "a notifier",
    keys: &[&[
        key("kind", Kind::OneOf(super::NotifierKind::NAMES), Fallback::Nothing, "How it tells"),
        key("command", Kind::Template, Fallback::Nothing, "`bash`: the script"),
        key(
            "url",
            Kind::Template,
            Fallback::Words("of `ntfy`: `https://ntfy.sh`"),
            "`http`, `slack`: where to, of Slack an incoming webhook; `ntfy`: the server",
        ),
        METHOD,
        HEADERS,
        PARAMS,
        BODY,
        JSON,
        key("text", Kind::Template, Fallback::Words("`message`"), "`slack`: the text"),
        key("to", ADDRESSES, Fallback::Nothing, "`email`: whom it goes to, a list, or a text with commas"),
        key("cc", ADDRESSES, Fallback::Nothing, "`email`: who gets it as well"),
        key("bcc", ADDRESSES, Fallback::Nothing, "`email`: who gets it and is not seen by the others"),
        key("subject", Kind::Template, Fallback::Words("`title`"), "`email`: what it is about"),
        key("html", Kind::Template, Fallback::Nothing, "`email`: the text as HTML"),
        key(
            "connection",
            Kind::Template,
            Fallback::Words("of `email` the server of `[smtp]`"),
            "`email`: the id of a connection of the type `smtp`; `http`: of the type `http` or `https`, whose address `url` continues",
        ),
        key("topic", Kind::Template, Fallback::Nothing, "`ntfy`: the topic"),
        key("title", Kind::Template, Fallback::Words("`title`"), "`ntfy`: the title"),
        key("message", Kind::Template, Fallback::Words("`message`"), "`ntfy`: the text"),
        key("priority", Kind::Integer { min: 1, max: 5 }, Fallback::Toml("3"), "`ntfy`: from 1 to 5"),
        key("tags", Kind::List(&Kind::Template), Fallback::Toml("[]"), "`ntfy`: tags"),
        key("token", Kind::Template, Fallback::Nothing, "`ntfy`: the access token"),
        TIMEOUT,
    ]],
};

const SLOTS: Kind = Kind::Integer { min: -1, max: i32::MAX as i64 };

pub static POOL: Table = Table {
    name: "a pool",
    keys: &[&[
        key("slots", SLOTS, Fallback::Toml("128"), "How many; -1 for no limit"),
        key("description", Kind::Text, Fallback::Toml("\"\""), "What the pool is for"),
        key(
            "include_deferred",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether a task that is deferred keeps its slots, such as a sensor between two looks",
        ),
    ]],
};

/// In DAG files, too.
pub static ASSET: Table = Table {
    name: "an asset",
    keys: &[&[
        key(
            "uri",
            Kind::Text,
            Fallback::Words("the name"),
            "Where it lies; files that `file:///srv/in/*.csv` means are looked for, unless a task produces them",
        ),
        key("group", Kind::Text, Fallback::Toml("\"asset\""), "A label to find it by"),
        key("extra", Kind::Map("name", &Kind::Any), Fallback::Toml("{}"), "Facts that each of its events carries"),
        key(
            "alias",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether it stands for assets that a task names when it has run",
        ),
        key(
            "settle",
            Kind::Duration { min: 0 },
            Fallback::Toml("\"2s\""),
            "How long a file must have stayed as it is before it counts",
        ),
        key(
            "catchup",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether files count that lay there when minflow first looked",
        ),
    ]],
};

pub static CONNECTION: Table = Table {
    name: "a connection",
    keys: &[&[
        key("uri", Kind::Text, Fallback::Nothing, "All of it, as `type://login:password@host:port/schema?key=value`"),
        key("conn_type", Kind::Text, Fallback::Nothing, "What is reached, e.g. `postgres`, `http`, `sqlite`"),
        key("host", Kind::Text, Fallback::Nothing, "Where it is"),
        key("login", Kind::Text, Fallback::Nothing, "Who asks"),
        key("password", Kind::Text, Fallback::Nothing, "The password itself; better one of the two below"),
        key(
            "password_file",
            Kind::Text,
            Fallback::Nothing,
            "A file that holds the password, read whenever it is asked for, without the end of its line; relative to home",
        ),
        key(
            "password_env",
            Kind::Text,
            Fallback::Nothing,
            "A variable of minflow's environment that holds the password",
        ),
        key("schema", Kind::Text, Fallback::Nothing, "What is opened there, e.g. the name of a database"),
        key("port", Kind::Integer { min: 0, max: 65_535 }, Fallback::Nothing, "Where the host listens"),
        key(
            "extra",
            Kind::Either(&[Kind::Text, Kind::Map("name", &Kind::Any)]),
            Fallback::Nothing,
            "What else is to be known, as a table or as JSON; templates read it as `conn.NAME.extra_dejson`",
        ),
        key("description", Kind::Text, Fallback::Nothing, "What it is for"),
    ]],
};

pub static SMTP: Table = Table {
    name: "[smtp]",
    keys: &[&[
        key("host", Kind::Text, Fallback::Toml("\"localhost\""), "The server that takes the mails"),
        key(
            "port",
            Kind::Integer { min: 1, max: 65_535 },
            Fallback::Words("587; with `ssl` 465, with `none` 25"),
            "Where it listens",
        ),
        key(
            "tls",
            Kind::OneOf(&["starttls", "ssl", "none"]),
            Fallback::Words("\"starttls\"; at port 465 \"ssl\", at port 25 of this host \"none\""),
            "How the talk is kept from others: TLS before anything is told, from the first byte, or not at all",
        ),
        key(
            "verify",
            Kind::Either(&[Kind::Bool, Kind::Text]),
            Fallback::Toml("true"),
            "Whether its certificate must be one that this host trusts, or a file of certificates in PEM instead, relative to home",
        ),
        key("user", Kind::Text, Fallback::Words("none: no login"), "Who logs in"),
        key("password", Kind::Text, Fallback::Nothing, "The password itself; better one of the two below"),
        key(
            "password_file",
            Kind::Text,
            Fallback::Nothing,
            "A file that holds the password, read for each mail, without the end of its line; relative to home",
        ),
        key(
            "password_env",
            Kind::Text,
            Fallback::Nothing,
            "A variable of minflow's environment that holds the password",
        ),
        key(
            "mail_from",
            Kind::Text,
            Fallback::Words("`user`, if it is an address"),
            "Who sends, `minflow@example.com` or with a name before it",
        ),
        key(
            "timeout",
            Kind::Duration { min: 1 },
            Fallback::Toml("\"30s\""),
            "How long it may take to connect, and for each answer; twenty times that for all of it",
        ),
    ]],
};

const PARALLELISM: Kind = Kind::Integer { min: 1, max: 4_096 };

pub static CORE: Table = Table {
    name: "[core]",
    keys: &[&[
        key("dags_folder", Kind::Text, Fallback::Toml("\"dags\""), "Where the DAG files are"),
        key(
            "parallelism",
            Kind::Either(&[PARALLELISM, Kind::OneOf(&["auto"])]),
            Fallback::Toml("32"),
            "How many tasks may be running at once, in all; `\"auto\"` begins with two for each core, adds more while tasks wait and the host is at ease, and takes some back under strain",
        ),
        key(
            "max_active_tasks_per_dag",
            POSITIVE,
            Fallback::Toml("16"),
            "How many of one run, unless its DAG says otherwise",
        ),
        key(
            "max_active_runs_per_dag",
            POSITIVE,
            Fallback::Toml("16"),
            "How many runs of one DAG may be running at once, unless it says otherwise",
        ),
        key("default_timezone", Kind::Zone, Fallback::Toml("\"UTC\""), "The zone of DAGs that name none"),
        key("default_task_retries", COUNT, Fallback::Toml("0"), "How often a failed try is followed by another"),
        key(
            "default_task_retry_delay",
            Kind::Duration { min: 0 },
            Fallback::Toml("\"5m\""),
            "How long after a failed try the next one starts",
        ),
        key(
            "dags_are_paused_at_creation",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether a DAG is paused when it is first seen",
        ),
        key(
            "dag_run_conf_overrides_params",
            Kind::Bool,
            Fallback::Toml("true"),
            "Whether the `conf` of a triggered run wins over the DAG's `params`",
        ),
        key(
            "max_map_length",
            POSITIVE,
            Fallback::Toml("1024"),
            "The most elements that a task may give to one that is mapped over them",
        ),
        key(
            "sensitive_var_conn_names",
            Kind::Text,
            Fallback::Toml("\"\""),
            "More names, with commas between them, that call for secrecy: what holds one of them is shown as `***`",
        ),
        key(
            "killed_task_cleanup_time",
            Kind::Duration { min: 0 },
            Fallback::Toml("\"5s\""),
            "How long after the signal that asks it to end a task is killed",
        ),
        key(
            "cgroup",
            Kind::Text,
            Fallback::Toml("\"auto\""),
            "Under which cgroup (version 2) tasks with limits get one of their own: `auto` is minflow's own if it was delegated to it (systemd: `Delegate=yes`), a path is a folder that is minflow's alone, `off` is none",
        ),
    ]],
};

pub static SCHEDULER: Table = Table {
    name: "[scheduler]",
    keys: &[&[
        key(
            "catchup_by_default",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether missed runs are made up for, unless the DAG says otherwise",
        ),
        key(
            "create_cron_data_intervals",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether runs of `cron` and `every` cover the time up to their next tick, as in Airflow 2, unless the DAG says otherwise",
        ),
        key(
            "drain_timeout",
            Kind::Duration { min: 0 },
            Fallback::Toml("\"5s\""),
            "How long a stopping minflow waits for running tasks before it leaves them to the next start",
        ),
        key(
            "max_tis_per_query",
            COUNT,
            Fallback::Toml("0"),
            "How many waiting tasks one pass looks at, as in Airflow, blocked ones included; 0: all, so that what may start starts",
        ),
        key(
            "fair_share",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether DAGs share the slots of a pool: of those that wait for one, the DAG starts next whose queued and running tasks hold the fewest of them; priorities decide within a DAG and between equal ones",
        ),
        key(
            "priority_ageing",
            Kind::Duration { min: 0 },
            Fallback::Toml("0"),
            "For each such time that a task has waited for a slot its priority counts one more, and who has waited for that long and is first in line is kept what comes free of its pool and of the host; 0: no priority grows",
        ),
    ]],
};

pub static ADMISSION: Table = Table {
    name: "[admission]",
    keys: &[&[
        key(
            "min_memory",
            Kind::Size { min: 0 },
            Fallback::Toml("0"),
            "Nothing new starts while less memory than this is available on the host; 0: not looked at",
        ),
        key(
            "min_disk",
            Kind::Size { min: 0 },
            Fallback::Toml("0"),
            "The same of the space that is free where home and logs lie",
        ),
        key(
            "max_load",
            Kind::Number { min: 0 },
            Fallback::Toml("0"),
            "Nothing new starts while the host's load of the last minute is higher; 0: not looked at",
        ),
        key(
            "max_cpu_pressure",
            Kind::Number { min: 0 },
            Fallback::Toml("0"),
            "The same of the percentage of the last ten seconds in which something waited for a processor (`/proc/pressure/cpu`, some avg10)",
        ),
        key("max_memory_pressure", Kind::Number { min: 0 }, Fallback::Toml("0"), "The same of memory"),
        key("max_io_pressure", Kind::Number { min: 0 }, Fallback::Toml("0"), "The same of disks"),
        key(
            "on_battery",
            Kind::OneOf(&["start", "wait"]),
            Fallback::Toml("\"start\""),
            "Whether tasks start while the host runs on battery",
        ),
        key(
            "memory",
            Kind::Size { min: 0 },
            Fallback::Toml("0"),
            "How much memory tasks with `needs.memory` may have reserved at once, in all; 0: all that the host has",
        ),
        key(
            "cpus",
            Kind::Number { min: 0 },
            Fallback::Toml("0"),
            "How many processors those with `needs.cpus` may; 0: all that the host has",
        ),
        key(
            "min_parallelism",
            PARALLELISM,
            Fallback::Toml("1"),
            "The least that `core.parallelism = \"auto\"` comes to",
        ),
        key("max_parallelism", PARALLELISM, Fallback::Toml("64"), "The most that it comes to"),
    ]],
};

pub static DATABASE: Table = Table {
    name: "[database]",
    keys: &[&[
        key("path", Kind::Text, Fallback::Toml("\"minflow.db\""), "The database's file"),
        key(
            "synchronous",
            Kind::OneOf(&["full", "normal"]),
            Fallback::Toml("\"full\""),
            "`full` survives a power cut; `normal` may lose the last moments before one, and is faster on slow disks",
        ),
        key(
            "min_free",
            Kind::Size { min: 0 },
            Fallback::Toml("\"10MB\""),
            "A reserve: nothing new starts while less than this is free where the database lies, so that what runs can still be recorded; 0: none",
        ),
    ]],
};

pub static API: Table = Table {
    name: "[api]",
    keys: &[&[
        key("host", Kind::Text, Fallback::Toml("\"127.0.0.1\""), "A loopback address"),
        key("port", Kind::Integer { min: 0, max: 65_535 }, Fallback::Toml("8080"), "The port; 0 for any free one"),
    ]],
};

pub static HEARTBEAT: Table = Table {
    name: "[heartbeat]",
    keys: &[&[
        key(
            "url",
            Kind::Text,
            Fallback::Toml("\"\""),
            "An address that is asked for while all is well, such as that of a check at healthchecks.io, which raises the alarm when nobody asks any longer; empty: none",
        ),
        key("interval", Kind::Duration { min: 1 }, Fallback::Toml("\"60s\""), "How often"),
    ]],
};

pub static LOGGING: Table = Table {
    name: "[logging]",
    keys: &[&[
        key(
            "level",
            Kind::OneOf(&["off", "error", "warn", "info", "debug", "trace"]),
            Fallback::Toml("\"info\""),
            "How much minflow itself says; the variable `RUST_LOG` wins",
        ),
        key("base_log_folder", Kind::Text, Fallback::Toml("\"logs\""), "Where the logs of tasks are kept"),
        key(
            "max_file_size",
            Kind::Size { min: 1_000 },
            Fallback::Toml("\"100MB\""),
            "The most that is kept of one try's output; the rest is dropped with a line that says so",
        ),
        key(
            "compress_after",
            Kind::Duration { min: 0 },
            Fallback::Toml("0"),
            "Logs of finished runs that are older become `.log.gz`, which minflow reads as before, and `zless` too; 0: none",
        ),
        key(
            "daemon_file",
            Kind::Text,
            Fallback::Toml("\"\""),
            "A file into which minflow writes what it says, beside standard error; one that was moved or removed is begun anew; empty: none",
        ),
        key(
            "daemon_max_size",
            Kind::Size { min: 1_000 },
            Fallback::Toml("\"100MB\""),
            "A `daemon_file` that would become longer becomes `FILE.1`, that one `FILE.2` and so on",
        ),
        key(
            "daemon_keep",
            Kind::Integer { min: 0, max: 1_000 },
            Fallback::Toml("5"),
            "How many of these there are at most; the oldest goes",
        ),
    ]],
};

pub static RETENTION: Table = Table {
    name: "[retention]",
    keys: &[&[
        key(
            "max_age",
            Kind::Duration { min: 0 },
            Fallback::Toml("0"),
            "Finished runs go that ended longer ago, with their tries, XComs, logs and run_dirs; 0: none for their age",
        ),
        key("max_runs", COUNT, Fallback::Toml("0"), "How many runs of each DAG are kept, the newest; 0: all"),
        key(
            "max_bytes",
            Kind::Size { min: 0 },
            Fallback::Toml("0"),
            "What the logs, run_dirs and large XComs of the runs in the database may take on the disk together: beyond it the runs go that ended first; 0: any",
        ),
        key(
            "max_audit_age",
            Kind::Duration { min: 0 },
            Fallback::Toml("0"),
            "Entries of the audit log go that are older; 0: none",
        ),
        key(
            "max_venv_age",
            Kind::Duration { min: 0 },
            Fallback::Toml("\"30d\""),
            "Virtual environments of Python tasks go that no task has used for so long, but for what a loaded DAG's task has used last; 0: none",
        ),
    ]],
};
