-- From version 1 to 2: what minflow knows of lateness.

-- From run_after to the start of the run's first task, in microseconds; null until it has started, and of runs of version 1.
ALTER TABLE dag_run ADD COLUMN lag INTEGER;
-- Why minflow itself paused the DAG; null if it did not.
ALTER TABLE dag ADD COLUMN pause_reason TEXT;
