-- From version 2 to 3: backfills.

CREATE TABLE backfill (
    id                 INTEGER PRIMARY KEY,
    dag_id             TEXT NOT NULL,
    from_date          INTEGER NOT NULL,
    to_date            INTEGER NOT NULL,
    reprocess_behavior TEXT NOT NULL,             -- `none`, `failed` or `completed`
    is_backwards       INTEGER NOT NULL,
    max_active_runs    INTEGER NOT NULL,
    dag_run_conf       TEXT,                      -- a JSON object
    is_paused          INTEGER NOT NULL,
    is_cancelled       INTEGER NOT NULL,
    created_at         INTEGER NOT NULL,
    completed_at       INTEGER
);
CREATE INDEX backfill_uncompleted ON backfill (dag_id) WHERE completed_at IS NULL;

-- Its dates in order, written with the backfill itself. A date without a run and without a reason is still to be looked at.
CREATE TABLE backfill_dag_run (
    backfill_id         INTEGER NOT NULL REFERENCES backfill (id),
    sort_ordinal        INTEGER NOT NULL,         -- from 1
    logical_date        INTEGER NOT NULL,
    data_interval_start INTEGER NOT NULL,
    data_interval_end   INTEGER NOT NULL,
    run_after           INTEGER NOT NULL,
    run_key             INTEGER REFERENCES dag_run (key),
    exception_reason    TEXT,                     -- `in flight`, `already exists` or `cancelled`
    PRIMARY KEY (backfill_id, sort_ordinal)
) WITHOUT ROWID;

-- Which of its runs is next, and how many are in which state.
CREATE INDEX dag_run_backfill ON dag_run (backfill_id, state, sort_ordinal) WHERE backfill_id IS NOT NULL;
