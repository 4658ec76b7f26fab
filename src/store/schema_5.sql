-- From version 4 to 5: the world outside.

-- What an instance waits for that is deferred, as JSON with a version; kept for the tries that share its clock.
ALTER TABLE task_instance ADD COLUMN deferral TEXT;
