-- From version 3 to 4: dynamic mapping, and runs that are done over again.

-- How many elements those XComs have that other tasks are mapped over.
CREATE TABLE task_map (
    instance_key INTEGER NOT NULL REFERENCES task_instance (key),
    key          TEXT NOT NULL,                   -- the XCom's
    length       INTEGER NOT NULL,
    PRIMARY KEY (instance_key, key)
) WITHOUT ROWID;

-- The run was cleared by hand after its backfill had made it: it waits as any other run of its DAG.
ALTER TABLE dag_run ADD COLUMN is_released INTEGER NOT NULL DEFAULT 0;

-- What users have asked for that takes more than one turn (a clear of many runs), and how far it has come; a start goes on with it.
CREATE TABLE act (
    key  INTEGER PRIMARY KEY,
    body TEXT NOT NULL                            -- JSON
);

-- Where a value lies that is too large for its row: a file with its JSON, relative to the database's folder unless absolute. Null: in
-- `value`, which is `null` otherwise.
ALTER TABLE xcom ADD COLUMN file TEXT;
