-- From version 6 to 7: what a try has cost, and its limits.

-- How often a try waited, and how often it had to leave a processor to others.
ALTER TABLE task_instance ADD COLUMN voluntary_switches INTEGER;
ALTER TABLE task_instance ADD COLUMN involuntary_switches INTEGER;
ALTER TABLE task_instance_history ADD COLUMN voluntary_switches INTEGER;
ALTER TABLE task_instance_history ADD COLUMN involuntary_switches INTEGER;
