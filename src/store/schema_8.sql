-- From version 7 to 8: tries that stand still.

-- Of a running instance whose processes are stopped; without a row it goes on.
CREATE TABLE paused_try (
    instance_key INTEGER PRIMARY KEY REFERENCES task_instance (key),
    try_number   INTEGER NOT NULL,
    paused_at    INTEGER NOT NULL
);
