-- Attempts on record, time to live, and options that most tasks do not have.

ALTER TABLE tasks
    -- Not started by then, it fails as expired.
    ADD COLUMN expires_at timestamptz,
    -- A serialized headrace.v1.TaskOptions; NULL where nothing differs from the defaults.
    ADD COLUMN options bytea;

CREATE INDEX tasks_expiring ON tasks (expires_at)
    WHERE expires_at IS NOT NULL AND status IN ('scheduled', 'queued', 'retrying');
-- Tasks that two replicas were lost under: one of them runs at a time.
CREATE INDEX tasks_solitary ON tasks (status, pool)
    WHERE replica_losses >= 2 AND status IN ('queued', 'processing');

-- Attempts that ended without completing their task, and those of earlier rounds. The latest attempt of a task that is
-- processing or completed is told by its own row: a task that completes at once costs no row here.
CREATE TABLE ended_attempts (
    task_id    bigint NOT NULL REFERENCES tasks ON DELETE CASCADE,
    attempt    integer NOT NULL,
    session_id bigint,
    worker     text,
    claimed_at timestamptz,
    started_at timestamptz,
    ended_at   timestamptz NOT NULL,
    -- The lower-case name of a headrace.v1.Outcome.
    outcome    text NOT NULL,
    error      jsonb,
    PRIMARY KEY (task_id, attempt)
);
