-- From version 5 to 6: pools by command.

-- Those that were here were copies of what airflow.toml said; from now on a row is a pool that a command has defined.
DELETE FROM pool;
