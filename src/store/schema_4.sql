-- From version 3 to 4: dynamic mapping.

-- How many elements those XComs have that other tasks are mapped over.
CREATE TABLE task_map (
    instance_key INTEGER NOT NULL REFERENCES task_instance (key),
    key          TEXT NOT NULL,                   -- the XCom's
    length       INTEGER NOT NULL,
    PRIMARY KEY (instance_key, key)
) WITHOUT ROWID;
