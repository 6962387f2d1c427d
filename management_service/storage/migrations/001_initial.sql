-- The task rows and who works on them. management_service.domain.statuses says which changes of status exist.

CREATE TYPE task_status AS ENUM (
    'scheduled', 'queued', 'processing', 'retrying', 'completed', 'failed', 'cancelled'
);

CREATE TABLE tasks (
    task_id             bigint PRIMARY KEY CHECK (task_id > 0),
    type                text NOT NULL,
    pool                text NOT NULL,
    status              task_status NOT NULL,
    priority            smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    -- The fence: raised by every claim, never given back.
    attempt             integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts        smallint NOT NULL CHECK (max_attempts > 0),
    starts              integer NOT NULL DEFAULT 0,
    failures            integer NOT NULL DEFAULT 0,
    worker_deaths       integer NOT NULL DEFAULT 0,
    replica_losses      integer NOT NULL DEFAULT 0,
    -- Refusals in a row, for the delay before the next claim.
    refusals            integer NOT NULL DEFAULT 0,
    -- Attempts up to this one belong to earlier rounds.
    round_base          integer NOT NULL DEFAULT 0,
    -- The one result that is the task's, in the result database under (task_id, result_attempt).
    result_attempt      integer,
    revision            integer NOT NULL DEFAULT 1 CHECK (revision > 0),
    timeout_ms          bigint NOT NULL CHECK (timeout_ms > 0),
    -- The session that the latest attempt was given to; owner of the task while it is processing.
    session_id          bigint,
    worker              text,
    run_at              timestamptz NOT NULL,
    accepted_at         timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    claimed_at          timestamptz,
    started_at          timestamptz,
    executed_at         timestamptz,
    finished_at         timestamptz,
    cancel_requested_at timestamptz,
    -- Hidden and without data; the shell stays a day so that a late stream entry conflicts with it.
    removed_at          timestamptz,
    -- The JSON object as the client sent it.
    data                bytea,
    error               jsonb,
    idempotency_key     text,
    fingerprint         bytea,
    CONSTRAINT tasks_final_has_time CHECK (
        (finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))
    ),
    CONSTRAINT tasks_processing_has_owner CHECK (
        status <> 'processing' OR (session_id IS NOT NULL AND attempt > 0)
    ),
    CONSTRAINT tasks_completed_names_result CHECK (
        (status = 'completed') = (result_attempt IS NOT NULL)
    ),
    CONSTRAINT tasks_removed_is_final CHECK (
        removed_at IS NULL OR finished_at IS NOT NULL
    )
)
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- Each partial index holds only the rows of its statuses, so a finished task costs none of them.
CREATE INDEX tasks_ready ON tasks (pool, priority DESC, run_at, task_id) WHERE status = 'queued';
CREATE INDEX tasks_due ON tasks (run_at) WHERE status IN ('scheduled', 'retrying');
CREATE INDEX tasks_processing ON tasks (session_id, task_id) WHERE status = 'processing';
CREATE INDEX tasks_failed ON tasks (task_id) WHERE status = 'failed';
CREATE INDEX tasks_cancelled ON tasks (task_id) WHERE status = 'cancelled';
CREATE UNIQUE INDEX tasks_idempotency_key ON tasks (idempotency_key) WHERE idempotency_key IS NOT NULL;
-- Rows finish about in the order in which their last versions are written, which is what BRIN wants.
CREATE INDEX tasks_finished ON tasks USING brin (finished_at) WITH (autosummarize = on);

-- Sessions of execution replicas. A session owns the tasks that are processing under it until ended_at is set.
CREATE TABLE executors (
    session_id bigint PRIMARY KEY CHECK (session_id > 0),
    replica    text NOT NULL,
    address    text NOT NULL,
    types      text[] NOT NULL,
    -- Number of the newest heartbeat that any manager heard and wrote.
    beat       bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200);
CREATE INDEX executors_live ON executors (session_id) WHERE ended_at IS NULL;

-- One row per running manager, written by each of its scans: proof to itself that it can write.
CREATE TABLE managers (
    manager_id text PRIMARY KEY,
    replica    text NOT NULL,
    scanned_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200);

CREATE TABLE task_types (
    name          text PRIMARY KEY,
    pool          text NOT NULL,
    description   text NOT NULL,
    data_schema   text NOT NULL,
    result_schema text NOT NULL,
    timeout_ms    bigint NOT NULL,
    max_attempts  smallint NOT NULL,
    version       text NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- Tasks whose final update may not have been published yet; written with the change, deleted in a later batch.
CREATE TABLE outbox (
    outbox_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_ids   bigint[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_threshold = 1000);

-- One row: the highest block of task ids handed out. A row and not a sequence, because raising it above the number
-- that Redis knows and taking the next block must be one step even when two replicas do it at once.
CREATE TABLE id_blocks (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    high      bigint NOT NULL
);
INSERT INTO id_blocks (high) VALUES (0);
