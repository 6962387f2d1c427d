-- What attempts printed and logged: the end of it, for people. Removed with their task or by age.
CREATE TABLE attempt_logs (
    task_id bigint NOT NULL,
    attempt integer NOT NULL CHECK (attempt > 0),
    -- UTF-8 without NUL, at most 64 KiB.
    log text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, attempt)
);

CREATE INDEX attempt_logs_stored_at ON attempt_logs USING brin (stored_at) WITH (autosummarize = on);
