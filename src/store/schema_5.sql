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
