-- What the catalog shows of a type and nothing here looks into: a serialized headrace.v1.TaskType with its limits and
-- errors alone.
ALTER TABLE task_types ADD COLUMN details bytea NOT NULL DEFAULT '';
