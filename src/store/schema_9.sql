-- From version 8 to 9: history that goes.

-- Runs that are gone: their rows went with the row here, their instances and folders go after them; then the row here goes.
CREATE TABLE retired_run (
    key        INTEGER PRIMARY KEY,               -- the run's
    dag_id     TEXT NOT NULL,
    run_id     TEXT NOT NULL,
    retired_at INTEGER NOT NULL
);

-- The greatest keys of rows that have gone: none is given twice.
CREATE TABLE key_floor (
    "table" TEXT PRIMARY KEY,
    key     INTEGER NOT NULL
) WITHOUT ROWID;

-- What belongs to a run.
CREATE INDEX callback_run ON callback (run_key) WHERE run_key IS NOT NULL;
CREATE INDEX deadline_run ON deadline (run_key) WHERE run_key IS NOT NULL;
CREATE INDEX backfill_dag_run_run ON backfill_dag_run (run_key) WHERE run_key IS NOT NULL;
