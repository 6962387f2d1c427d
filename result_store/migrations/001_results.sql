-- Results of attempts: inserted once, never changed, removed with their task or by age.
CREATE TABLE results (
    task_id bigint NOT NULL,
    attempt integer NOT NULL CHECK (attempt > 0),
    -- JSON as the handler returned it; the database never looks inside.
    result bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, attempt)
);

-- Rows lie in the order of their insert, so a few bytes for every megabyte are enough to find the old ones.
CREATE INDEX results_stored_at ON results USING brin (stored_at) WITH (autosummarize = on);
