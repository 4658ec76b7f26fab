-- Version 1 of minflow's database. Later versions are steps in `migrations` (open.rs); this text never changes.
--
-- Instants are microseconds since 1970 in UTC, durations microseconds, sizes bytes. States have Airflow's names; the state
-- of an instance that waits for its dependencies is null. References are declared for `db check` and for readers of this
-- file; the writer does not enforce them (the scheduler, the only writer, keeps them). Columns that no statement names are
-- Airflow's (SEMANTICS 26) and stay at their defaults for now.

CREATE TABLE dag (
    dag_id                TEXT PRIMARY KEY,
    file                  TEXT NOT NULL,
    is_paused             INTEGER NOT NULL,
    is_active             INTEGER NOT NULL,
    has_import_errors     INTEGER NOT NULL,
    schedule              TEXT,
    timezone              TEXT NOT NULL,
    description           TEXT NOT NULL,
    owner                 TEXT NOT NULL,
    tags                  TEXT NOT NULL,            -- a JSON list of text
    max_active_runs       INTEGER NOT NULL,
    max_active_tasks      INTEGER NOT NULL,
    version_key           INTEGER REFERENCES dag_version (key),
    first_seen_at         INTEGER,
    next_logical_date     INTEGER,
    next_interval_start   INTEGER,
    next_interval_end     INTEGER,
    next_run_after        INTEGER,
    last_interval_start   INTEGER,
    last_interval_end     INTEGER,
    max_consecutive_failed_dag_runs INTEGER NOT NULL DEFAULT 0,
    fail_fast             INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE dag_version (
    key         INTEGER PRIMARY KEY,
    dag_id      TEXT NOT NULL,
    number      INTEGER NOT NULL,
    hash        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    source      TEXT NOT NULL
);
CREATE UNIQUE INDEX dag_version_number ON dag_version (dag_id, number);

CREATE TABLE dag_run (
    key                      INTEGER PRIMARY KEY,
    dag_id                   TEXT NOT NULL,
    run_id                   TEXT NOT NULL,
    run_type                 TEXT NOT NULL,
    state                    TEXT NOT NULL,
    run_after                INTEGER NOT NULL,
    logical_date             INTEGER,
    data_interval_start      INTEGER,
    data_interval_end        INTEGER,
    queued_at                INTEGER,
    start_date               INTEGER,
    end_date                 INTEGER,
    conf                     TEXT NOT NULL,         -- a JSON object
    reason                   TEXT,
    triggered_by             TEXT,
    clear_number             INTEGER NOT NULL DEFAULT 0,
    last_scheduling_decision INTEGER,
    backfill_id              INTEGER,
    sort_ordinal             INTEGER,
    created_version_key      INTEGER,
    partition_key            TEXT,
    partition_date           INTEGER,
    note                     TEXT
);
CREATE UNIQUE INDEX dag_run_run_id ON dag_run (dag_id, run_id);
CREATE UNIQUE INDEX dag_run_logical_date ON dag_run (dag_id, logical_date) WHERE logical_date IS NOT NULL;
CREATE INDEX dag_run_newest ON dag_run (dag_id, run_after);
CREATE INDEX dag_run_unfinished ON dag_run (state) WHERE state IN ('queued', 'running');

-- One row for each (run, task, map_index); its columns from `state` on are those of the current try.
CREATE TABLE task_instance (
    key                  INTEGER PRIMARY KEY,
    run_key              INTEGER NOT NULL REFERENCES dag_run (key),
    task_id              TEXT NOT NULL,
    map_index            INTEGER NOT NULL,
    state                TEXT,
    try_number           INTEGER NOT NULL,
    max_tries            INTEGER NOT NULL,
    scheduled_at         INTEGER,
    queued_at            INTEGER,
    start_date           INTEGER,
    end_date             INTEGER,
    pool                 TEXT NOT NULL,
    pool_slots           INTEGER NOT NULL,
    priority_weight      INTEGER NOT NULL,
    operator             TEXT NOT NULL,
    version_key          INTEGER,
    pid                  INTEGER,
    start_ticks          INTEGER,
    boot_id              TEXT,
    exit_code            INTEGER,
    signal               INTEGER,
    reason               TEXT,
    user_cpu             INTEGER,
    system_cpu           INTEGER,
    max_rss              INTEGER,
    read_bytes           INTEGER,
    write_bytes          INTEGER,
    rendered_map_index   TEXT,
    trigger_id           INTEGER,
    trigger_timeout      INTEGER,
    next_method          TEXT,
    next_kwargs          TEXT,
    retry_delay_override INTEGER,
    retry_reason         TEXT,
    note                 TEXT
);
CREATE UNIQUE INDEX task_instance_identity ON task_instance (run_key, task_id, map_index);
CREATE INDEX task_instance_failed ON task_instance (end_date) WHERE state = 'failed';

-- The tries before the current one.
CREATE TABLE task_instance_history (
    instance_key       INTEGER NOT NULL REFERENCES task_instance (key),
    try_number         INTEGER NOT NULL,
    state              TEXT,
    max_tries          INTEGER NOT NULL,
    scheduled_at       INTEGER,
    queued_at          INTEGER,
    start_date         INTEGER,
    end_date           INTEGER,
    pool               TEXT NOT NULL,
    pool_slots         INTEGER NOT NULL,
    priority_weight    INTEGER NOT NULL,
    operator           TEXT NOT NULL,
    version_key        INTEGER,
    pid                INTEGER,
    start_ticks        INTEGER,
    boot_id            TEXT,
    exit_code          INTEGER,
    signal             INTEGER,
    reason             TEXT,
    user_cpu           INTEGER,
    system_cpu         INTEGER,
    max_rss            INTEGER,
    read_bytes         INTEGER,
    write_bytes        INTEGER,
    rendered_map_index TEXT,
    retry_reason       TEXT,
    PRIMARY KEY (instance_key, try_number)
) WITHOUT ROWID;

CREATE TABLE xcom (
    instance_key  INTEGER NOT NULL REFERENCES task_instance (key),
    key           TEXT NOT NULL,
    pushed_at     INTEGER NOT NULL,
    value         TEXT NOT NULL,                    -- JSON
    PRIMARY KEY (instance_key, key)
) WITHOUT ROWID;

CREATE TABLE pool (
    name              TEXT PRIMARY KEY,
    slots             INTEGER NOT NULL,             -- -1: without limit
    description       TEXT NOT NULL,
    include_deferred  INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE import_error (
    filename   TEXT NOT NULL,
    position   INTEGER NOT NULL,                    -- its place among the faults of the file
    line       INTEGER NOT NULL,
    "column"   INTEGER NOT NULL,
    code       TEXT NOT NULL,
    message    TEXT NOT NULL,
    help       TEXT NOT NULL,
    timestamp  INTEGER NOT NULL,
    PRIMARY KEY (filename, position)
) WITHOUT ROWID;

-- The audit log.
CREATE TABLE log (
    key        INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    event      TEXT NOT NULL,
    dag_id     TEXT,
    run_id     TEXT,
    task_id    TEXT,
    map_index  INTEGER,
    owner      TEXT NOT NULL,
    extra      TEXT NOT NULL                        -- JSON
);

-- How many rows there are by state: kept by every write, never counted. The state of a waiting instance is `none` here.
CREATE TABLE state_count (
    dag_id  TEXT NOT NULL,
    kind    TEXT NOT NULL,                          -- `run` or `task`
    state   TEXT NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (dag_id, kind, state)
) WITHOUT ROWID;
