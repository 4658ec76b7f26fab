-- From version 4 to 5: the world outside.

-- What an instance waits for that is deferred, as JSON with a version; kept for the tries that share its clock.
ALTER TABLE task_instance ADD COLUMN deferral TEXT;

-- What users want done at an end, each time that it is to be done. Written with the end itself, so that a crash loses none.
CREATE TABLE callback (
    key        INTEGER PRIMARY KEY,
    dag_id     TEXT NOT NULL,
    run_key    INTEGER REFERENCES dag_run (key),  -- null: it is made because there was no run
    hook       TEXT NOT NULL,                     -- `on_failure`, `expect_by`, ...
    number     INTEGER NOT NULL,                  -- its place in the list, from 1
    callback   TEXT NOT NULL,                     -- JSON
    occasion   TEXT NOT NULL,                     -- JSON
    state      TEXT NOT NULL,                     -- `queued`, `running`, `success` or `failed`
    tries      INTEGER NOT NULL,
    failures   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at   INTEGER,
    reason     TEXT
);
CREATE INDEX callback_unfinished ON callback (key) WHERE state IN ('queued', 'running');
CREATE INDEX callback_failed ON callback (ended_at) WHERE state = 'failed';

-- How many runs in a row have failed, of DAGs (task_id is empty) and of tasks that have a callback with a condition.
CREATE TABLE failure_streak (
    dag_id   TEXT NOT NULL,
    task_id  TEXT NOT NULL,
    run_key  INTEGER NOT NULL,                    -- the last of them
    failures INTEGER NOT NULL,
    PRIMARY KEY (dag_id, task_id)
) WITHOUT ROWID;

-- Deadlines of runs, and days without a successful run by the time that `expect_by` says.
CREATE TABLE deadline (
    key         INTEGER PRIMARY KEY,
    dag_id      TEXT NOT NULL,
    run_key     INTEGER REFERENCES dag_run (key), -- null: on that day there was no run
    number      INTEGER NOT NULL,                 -- its place in the DAG's list, from 1; 0: `expect_by`
    deadline_at INTEGER NOT NULL,
    missed_at   INTEGER                           -- null: it has not been missed yet; one that was met has no row
);
CREATE INDEX deadline_open ON deadline (key) WHERE missed_at IS NULL;
CREATE INDEX deadline_missed ON deadline (missed_at) WHERE missed_at IS NOT NULL;

-- When a run of the DAG is expected to have succeeded next: kept, so that a minflow that was down then says it when it starts.
CREATE TABLE expectation (
    dag_id      TEXT PRIMARY KEY,
    expected_at INTEGER NOT NULL
);

-- Assets and aliases. A name or uri that nobody defines is its own uri.
CREATE TABLE asset (
    key           INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    uri           TEXT NOT NULL,
    "group"       TEXT NOT NULL,
    extra         TEXT NOT NULL,                    -- a JSON object
    is_alias      INTEGER NOT NULL,
    settle        INTEGER NOT NULL,
    catchup       INTEGER NOT NULL,
    watched_since INTEGER                           -- null: its files are not looked for
);
CREATE UNIQUE INDEX asset_name ON asset (name);

-- Which DAGs wait for an asset, and which tasks produce or read it: all rows of a DAG are put anew with its definition.
CREATE TABLE asset_reference (
    dag_id    TEXT NOT NULL,
    role      TEXT NOT NULL,                        -- `schedule`, `outlet` or `inlet`
    task_id   TEXT NOT NULL,                        -- empty for a schedule
    asset_key INTEGER NOT NULL REFERENCES asset (key),
    PRIMARY KEY (dag_id, role, task_id, asset_key)
) WITHOUT ROWID;

CREATE TABLE asset_alias_asset (
    alias_key INTEGER NOT NULL REFERENCES asset (key),
    asset_key INTEGER NOT NULL REFERENCES asset (key),
    PRIMARY KEY (alias_key, asset_key)
) WITHOUT ROWID;

-- Without a source where a file has settled.
CREATE TABLE asset_event (
    key              INTEGER PRIMARY KEY,
    asset_key        INTEGER NOT NULL REFERENCES asset (key),
    timestamp        INTEGER NOT NULL,
    extra            TEXT NOT NULL,                 -- a JSON object
    source_dag_id    TEXT,
    source_run_id    TEXT,
    source_task_id   TEXT,
    source_map_index INTEGER
);
CREATE INDEX asset_event_asset ON asset_event (asset_key, key);

CREATE TABLE asset_alias_event (
    alias_key INTEGER NOT NULL REFERENCES asset (key),
    event_key INTEGER NOT NULL REFERENCES asset_event (key),
    PRIMARY KEY (alias_key, event_key)
) WITHOUT ROWID;

-- What has had an event since the last run of a DAG that waits for it.
CREATE TABLE asset_dag_run_queue (
    dag_id     TEXT NOT NULL,
    asset_key  INTEGER NOT NULL REFERENCES asset (key),
    created_at INTEGER NOT NULL,                    -- of the newest
    PRIMARY KEY (dag_id, asset_key)
) WITHOUT ROWID;

-- The newest event that is behind each DAG that waits for assets.
CREATE TABLE asset_consumer (
    dag_id         TEXT PRIMARY KEY,
    consumed_until INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE dagrun_asset_event (
    run_key   INTEGER NOT NULL REFERENCES dag_run (key),
    event_key INTEGER NOT NULL REFERENCES asset_event (key),
    PRIMARY KEY (run_key, event_key)
) WITHOUT ROWID;

-- The files that have been counted and still lie there.
CREATE TABLE asset_file (
    asset_key   INTEGER NOT NULL REFERENCES asset (key),
    path        BLOB NOT NULL,
    inode       INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,                   -- nanoseconds since 1970
    PRIMARY KEY (asset_key, path)
) WITHOUT ROWID;
