-- Every statement that touches task rows. Batches come as parallel arrays sorted by task_id. A change of status is one
-- guarded statement; a row that does not come back was moved by somebody else first, which is a normal answer.
-- Every statement that changes a status or a revision also writes one outbox row that tells of the changes.

-- name: insert_tasks
-- Store new tasks; those with a session as already claimed by it, if it still lives, else as queued. A task that is
-- there already (by id, or by idempotency key) is left alone and does not come back.
WITH live AS (
    SELECT session_id FROM executors WHERE session_id = ANY(%(sessions)s::bigint[]) AND ended_at IS NULL
), stored AS (
    INSERT INTO tasks (
        task_id, type, data, pool, priority, max_attempts, timeout_ms, run_at, accepted_at, idempotency_key, fingerprint,
        expires_at, options, status, attempt, session_id, claimed_at
    )
    SELECT s.task_id, s.type, s.data, s.pool, s.priority, s.max_attempts, s.timeout_ms, d.due, s.accepted_at,
           s.idempotency_key, s.fingerprint, d.due + s.expires_in_ms * interval '1 millisecond', s.options,
           CASE WHEN d.due > now() THEN 'scheduled' WHEN live.session_id IS NULL THEN 'queued' ELSE 'processing' END
               ::task_status,
           CASE WHEN d.due > now() OR live.session_id IS NULL THEN 0 ELSE 1 END,
           CASE WHEN d.due > now() THEN NULL ELSE live.session_id END,
           CASE WHEN d.due > now() OR live.session_id IS NULL THEN NULL ELSE now() END
      FROM unnest(
               %(task_ids)s::bigint[], %(types)s::text[], %(data)s::bytea[], %(pools)s::text[], %(priorities)s::int4[],
               %(max_attempts)s::int4[], %(timeouts)s::bigint[], %(run_at)s::timestamptz[], %(delays)s::bigint[],
               %(accepted_at)s::timestamptz[], %(keys)s::text[], %(fingerprints)s::bytea[], %(expires)s::bigint[],
               %(options)s::bytea[], %(owners)s::bigint[]
           ) AS s (task_id, type, data, pool, priority, max_attempts, timeout_ms, run_at, delay_ms, accepted_at,
                   idempotency_key, fingerprint, expires_in_ms, options, owner)
     CROSS JOIN LATERAL (SELECT coalesce(s.run_at, now() + s.delay_ms * interval '1 millisecond') AS due) AS d
      LEFT JOIN live ON live.session_id = s.owner
     ORDER BY s.task_id
    ON CONFLICT DO NOTHING
    RETURNING task_id, status, attempt, revision
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM stored HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT stored.task_id, stored.status::text, noted.outbox_id FROM stored, noted;

-- name: insert_unstorable
-- Store, without its data, a task that the database refused: accepted means that it reaches a final status.
WITH stored AS (
    INSERT INTO tasks (task_id, type, pool, status, priority, max_attempts, timeout_ms, run_at, finished_at, error)
    VALUES (%(task_id)s, %(type)s, %(pool)s, 'failed', 4, 1, 1, now(), now(), %(error)s)
    ON CONFLICT DO NOTHING
    RETURNING task_id, status, attempt, revision
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM stored HAVING count(*) > 0
)
SELECT task_id FROM stored;

-- name: find_by_keys
-- The tasks that hold these idempotency keys.
SELECT idempotency_key, task_id, fingerprint FROM tasks WHERE idempotency_key = ANY(%(keys)s::text[]);

-- name: claim_tasks
-- Give ready tasks of one pool to sessions: one entry of `slots` per task wanted, up to `bytes_max` of data or one
-- task. Ended sessions get none, and tasks that two replicas were lost under are claimed by claim_solitary. The last
-- column counts the ready tasks found, those over the bound included.
WITH live AS (
    SELECT coalesce(array_agg(s.session_id ORDER BY s.position), '{}') AS slots
      FROM unnest(%(slots)s::bigint[]) WITH ORDINALITY AS s (session_id, position)
      JOIN executors e ON e.session_id = s.session_id AND e.ended_at IS NULL
), picked AS MATERIALIZED (
    SELECT task_id, priority, run_at, octet_length(data) AS bytes
      FROM tasks
     WHERE status = 'queued' AND pool = %(pool)s AND type = ANY(%(types)s::text[]) AND run_at <= now()
       AND replica_losses < 2 AND (expires_at IS NULL OR expires_at > now())
     ORDER BY priority DESC, run_at, task_id
     LIMIT (SELECT cardinality(slots) FROM live)
       FOR UPDATE SKIP LOCKED
), numbered AS (
    SELECT task_id, row_number() OVER urgency AS n, sum(bytes) OVER urgency AS bytes_so_far
      FROM picked WINDOW urgency AS (ORDER BY priority DESC, run_at, task_id)
), claimed AS (
    UPDATE tasks t
       SET status = 'processing', attempt = t.attempt + 1, session_id = live.slots[numbered.n], claimed_at = now(),
           started_at = NULL, executed_at = NULL, worker = NULL, revision = t.revision + 1
      FROM live, numbered
     WHERE t.task_id = numbered.task_id AND (numbered.n = 1 OR bytes_so_far <= %(bytes_max)s)
    RETURNING t.task_id, t.attempt, t.session_id, t.type, t.data, t.timeout_ms, t.round_base, t.worker_deaths > 0
                  AS isolated, t.max_attempts, t.options, t.revision, t.priority, t.status
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM claimed HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT c.task_id, c.attempt, c.session_id, c.type, c.data, c.timeout_ms, c.round_base, c.isolated, c.max_attempts,
       c.options, false, c.revision, c.priority, (SELECT count(*) FROM picked), noted.outbox_id
  FROM claimed c, noted;

-- name: count_waiting
-- Ready tasks by type, among the first 100 of each pool: what that costs does not grow with the queue.
SELECT p.pool, w.type, count(*)
  FROM unnest(%(pools)s::text[]) AS p (pool)
 CROSS JOIN LATERAL (
           SELECT t.type FROM tasks t
            WHERE t.status = 'queued' AND t.pool = p.pool AND t.run_at <= now()
              AND (t.expires_at IS NULL OR t.expires_at > now())
            ORDER BY t.priority DESC, t.run_at, t.task_id
            LIMIT 100
       ) AS w
 GROUP BY p.pool, w.type;

-- name: list_solitary
-- Pools and types of ready tasks that two replicas were lost under, while none of them is in progress.
SELECT DISTINCT pool, type FROM tasks
 WHERE status = 'queued' AND replica_losses >= 2 AND run_at <= now()
   AND NOT EXISTS (SELECT FROM tasks WHERE status = 'processing' AND replica_losses >= 2)
 LIMIT 100;

-- name: lock_solitary
-- Held to the end of the transaction, so that the next statement sees what its last holder claimed. Number: "solitary".
SELECT pg_advisory_xact_lock(8316003921553351033);

-- name: claim_solitary
-- Give one ready task that two replicas were lost under to a live session, unless another one is in progress.
WITH picked AS MATERIALIZED (
    SELECT task_id FROM tasks
     WHERE status = 'queued' AND replica_losses >= 2 AND pool = %(pool)s AND type = ANY(%(types)s::text[])
       AND run_at <= now() AND (expires_at IS NULL OR expires_at > now())
       AND NOT EXISTS (SELECT FROM tasks WHERE status = 'processing' AND replica_losses >= 2)
     ORDER BY priority DESC, run_at, task_id
     LIMIT 1
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE tasks t
       SET status = 'processing', attempt = t.attempt + 1, session_id = e.session_id, claimed_at = now(),
           started_at = NULL, executed_at = NULL, worker = NULL, revision = t.revision + 1
      FROM picked, executors e
     WHERE t.task_id = picked.task_id AND e.session_id = %(session_id)s AND e.ended_at IS NULL
    RETURNING t.task_id, t.attempt, t.session_id, t.type, t.data, t.timeout_ms, t.round_base, t.worker_deaths > 0
                  AS isolated, t.max_attempts, t.options, t.revision, t.priority, t.status
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM claimed HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT c.task_id, c.attempt, c.session_id, c.type, c.data, c.timeout_ms, c.round_base, c.isolated, c.max_attempts,
       c.options, true, c.revision, c.priority, 1, noted.outbox_id
  FROM claimed c, noted;

-- name: complete_attempts
-- Close attempts whose results are stored, and delete outbox rows whose updates have been published.
WITH reported AS (
    SELECT * FROM unnest(
        %(task_ids)s::bigint[], %(attempts)s::int4[], %(started)s::bool[], %(workers)s::text[],
        %(started_at)s::timestamptz[], %(executed_at)s::timestamptz[]
    ) AS r (task_id, attempt, started, worker, started_at, executed_at)
), done AS (
    UPDATE tasks t
       SET status = 'completed', result_attempt = t.attempt, revision = t.revision + 1, finished_at = now(),
           starts = t.starts + r.started::int, worker = r.worker, started_at = r.started_at,
           executed_at = r.executed_at, error = NULL
      FROM reported r
     WHERE t.task_id = r.task_id AND t.status = 'processing' AND t.attempt = r.attempt
    RETURNING t.task_id, t.attempt, t.type, t.revision, t.status
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM done HAVING count(*) > 0
    RETURNING outbox_id
), published AS (
    DELETE FROM outbox WHERE outbox_id = ANY(%(published)s::bigint[])
)
SELECT done.task_id, done.attempt, done.type, done.revision, noted.outbox_id FROM done, noted;

-- name: read_attempts
-- What became of reported attempts that did not own their tasks: one row per task that exists.
SELECT task_id, attempt, status::text, result_attempt FROM tasks WHERE task_id = ANY(%(task_ids)s::bigint[]);

-- name: lock_attempts
-- The tasks whose attempts ended otherwise, locked in id order for a decision.
SELECT t.task_id, t.attempt, t.type, t.max_attempts, t.failures, t.worker_deaths, t.replica_losses, t.refusals,
       t.round_base, t.revision, t.cancel_requested_at IS NOT NULL, t.pool, t.session_id, t.options
  FROM tasks t
  JOIN unnest(%(task_ids)s::bigint[], %(attempts)s::int4[]) AS r (task_id, attempt)
    ON t.task_id = r.task_id AND t.attempt = r.attempt
 WHERE t.status = 'processing'
 ORDER BY t.task_id
   FOR UPDATE OF t;

-- name: move_attempts
-- Write the decisions about tasks that lock_attempts holds, and put the attempts that ended on record.
WITH decided AS (
    SELECT * FROM unnest(
        %(task_ids)s::bigint[], %(statuses)s::text[], %(delays)s::bigint[], %(failures)s::int4[],
        %(worker_deaths)s::int4[], %(refusals)s::int4[], %(errors)s::text[], %(started)s::bool[], %(workers)s::text[],
        %(started_at)s::timestamptz[], %(executed_at)s::timestamptz[], %(outcomes)s::text[],
        %(attempt_errors)s::text[]
    ) AS d (task_id, status, delay_ms, failures, worker_deaths, refusals, error, started, worker, started_at,
            executed_at, outcome, attempt_error)
), moved AS (
    UPDATE tasks t
       SET status = d.status::task_status, revision = t.revision + 1,
           run_at = CASE WHEN d.status IN ('failed', 'cancelled') THEN t.run_at
                         ELSE now() + d.delay_ms * interval '1 millisecond' END,
           finished_at = CASE WHEN d.status IN ('failed', 'cancelled') THEN now() END,
           starts = t.starts + d.started::int, failures = d.failures, worker_deaths = d.worker_deaths,
           refusals = d.refusals, error = coalesce(d.error::jsonb, t.error), worker = coalesce(d.worker, t.worker),
           started_at = coalesce(d.started_at, t.started_at), executed_at = coalesce(d.executed_at, t.executed_at)
      FROM decided d
     WHERE t.task_id = d.task_id
    RETURNING t.task_id, t.attempt, t.type, t.status, t.revision, t.error::text, t.pool, t.session_id, t.claimed_at,
              d.worker, d.started_at, d.executed_at, d.outcome, d.attempt_error
), recorded AS (
    INSERT INTO ended_attempts (task_id, attempt, session_id, worker, claimed_at, started_at, ended_at, outcome, error)
    SELECT task_id, attempt, session_id, worker, claimed_at, started_at, coalesce(executed_at, now()), outcome,
           attempt_error::jsonb
      FROM moved
), forgotten AS (
    DELETE FROM ended_attempts a USING moved WHERE a.task_id = moved.task_id AND a.attempt = moved.attempt - 100
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM moved HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT moved.task_id, moved.attempt, moved.type, moved.status::text, moved.revision, moved.error, moved.pool,
       noted.outbox_id
  FROM moved, noted;

-- name: rescue_tasks
-- Take tasks back whose session has ended or does not exist: a third loss is final, a cancel that waits comes true.
WITH lost AS (
    SELECT t.task_id
      FROM tasks t
     WHERE t.status = 'processing'
       AND NOT EXISTS (SELECT FROM executors e WHERE e.session_id = t.session_id AND e.ended_at IS NULL)
     ORDER BY t.task_id
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE tasks t
       SET status = n.status, revision = t.revision + 1, replica_losses = t.replica_losses + 1, refusals = 0,
           run_at = CASE WHEN n.status = 'queued' THEN now() ELSE t.run_at END,
           finished_at = CASE WHEN n.status <> 'queued' THEN now() END,
           error = CASE WHEN n.status = 'cancelled' THEN jsonb_build_object(
                       'code', 'cancelled', 'message', 'cancelled when the session of its replica ended',
                       'receipt', jsonb_build_object('ended_by', 'ENDED_BY_SESSION_END'))
                   ELSE jsonb_build_object('code', 'replica_lost', 'message',
                       'the execution replica of attempt ' || t.attempt || ' was lost') END
      FROM lost
      JOIN tasks held USING (task_id)
     CROSS JOIN LATERAL (
         SELECT CASE WHEN held.replica_losses + 1 >= %(losses_max)s THEN 'failed'
                     WHEN held.cancel_requested_at IS NOT NULL THEN 'cancelled'
                     ELSE 'queued' END::task_status AS status
     ) AS n
     WHERE t.task_id = lost.task_id
    RETURNING t.task_id, t.attempt, t.type, t.status, t.revision, t.error::text, t.pool, t.session_id, t.claimed_at
), recorded AS (
    INSERT INTO ended_attempts (task_id, attempt, session_id, claimed_at, ended_at, outcome, error)
    SELECT task_id, attempt, session_id, claimed_at, now(), 'replica_lost', jsonb_build_object(
               'code', 'replica_lost', 'message', 'the session of the execution replica ended')
      FROM moved
), forgotten AS (
    DELETE FROM ended_attempts a USING moved WHERE a.task_id = moved.task_id AND a.attempt = moved.attempt - 100
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM moved HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT moved.task_id, moved.attempt, moved.type, moved.status::text, moved.revision, moved.error, moved.pool,
       noted.outbox_id
  FROM moved, noted;

-- name: promote_due
-- Queue the scheduled and retrying tasks whose time has come, by the database's clock.
WITH due AS (
    SELECT task_id FROM tasks
     WHERE status IN ('scheduled', 'retrying') AND run_at <= now()
     ORDER BY run_at
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE tasks t SET status = 'queued', revision = t.revision + 1
      FROM due WHERE t.task_id = due.task_id
    RETURNING t.task_id, t.attempt, t.type, t.status, t.revision, t.pool
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM moved HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT moved.task_id, moved.attempt, moved.type, moved.status::text, moved.revision, NULL::text, moved.pool,
       noted.outbox_id
  FROM moved, noted;

-- name: expire_tasks
-- Fail the tasks that were not started in time, by the database's clock.
WITH late AS (
    SELECT task_id FROM tasks
     WHERE status IN ('scheduled', 'queued', 'retrying') AND expires_at <= now()
     ORDER BY task_id
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE tasks t
       SET status = 'failed', finished_at = now(), revision = t.revision + 1,
           error = jsonb_build_object('code', 'expired', 'message',
               CASE WHEN t.attempt = t.round_base THEN 'not started before it expired'
                    ELSE 'not started again before it expired' END)
      FROM late WHERE t.task_id = late.task_id
    RETURNING t.task_id, t.attempt, t.type, t.status, t.revision, t.error::text, t.pool
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM moved HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT moved.task_id, moved.attempt, moved.type, moved.status::text, moved.revision, moved.error, moved.pool,
       noted.outbox_id
  FROM moved, noted;

-- name: scan_attempts
-- All attempts in progress, for questions and for cancels to be passed on.
SELECT task_id, attempt, session_id, cancel_requested_at IS NOT NULL FROM tasks WHERE status = 'processing';

-- name: request_cancel
-- Cancel a task at once when no attempt is in progress, else record the wish. No row: final, or not there.
WITH moved AS (
    UPDATE tasks t
       SET cancel_requested_at = now(), revision = t.revision + 1,
           status = CASE WHEN t.status = 'processing' THEN t.status ELSE 'cancelled' END,
           finished_at = CASE WHEN t.status = 'processing' THEN NULL ELSE now() END,
           error = CASE WHEN t.status = 'processing' THEN t.error
                        ELSE jsonb_build_object(
                            'code', 'cancelled', 'message', 'cancelled while no attempt was in progress',
                            'receipt', jsonb_build_object('ended_by', 'ENDED_BY_NOT_STARTED', 'processes_gone', true))
                   END
     WHERE t.task_id = %(task_id)s AND t.removed_at IS NULL
       AND t.status IN ('scheduled', 'queued', 'retrying', 'processing')
       AND (t.status <> 'processing' OR t.cancel_requested_at IS NULL)
    RETURNING t.task_id, t.attempt, t.type, t.status, t.revision, t.error::text, t.pool
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM moved HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT moved.task_id, moved.attempt, moved.type, moved.status::text, moved.revision, moved.error, moved.pool,
       noted.outbox_id
  FROM moved, noted;

-- name: remove_task
-- Hide a finished task and drop its data. No row: not finished, removed already, or its cancel is so young that a
-- repeated request must not destroy what the first one left.
WITH removed AS (
    UPDATE tasks SET removed_at = now(), revision = revision + 1, data = NULL
     WHERE task_id = %(task_id)s AND removed_at IS NULL AND finished_at IS NOT NULL
       AND (cancel_requested_at IS NULL OR cancel_requested_at <= now() - interval '60 seconds')
    RETURNING task_id
), forgotten AS (
    DELETE FROM ended_attempts a USING removed WHERE a.task_id = removed.task_id
), noted AS (
    INSERT INTO outbox (task_ids) SELECT array_agg(task_id) FROM removed HAVING count(*) > 0
)
SELECT task_id FROM removed;

-- name: retry_tasks
-- Start final tasks again as a new round; an attempt that completed goes on record. No row: not final, removed, or
-- without data to run on.
WITH final AS (
    SELECT task_id, attempt, result_attempt, session_id, worker, claimed_at, started_at, executed_at
      FROM tasks
     WHERE task_id = ANY(%(task_ids)s::bigint[]) AND finished_at IS NOT NULL AND removed_at IS NULL AND data IS NOT NULL
     ORDER BY task_id
       FOR UPDATE
), recorded AS (
    INSERT INTO ended_attempts (task_id, attempt, session_id, worker, claimed_at, started_at, ended_at, outcome)
    SELECT task_id, attempt, session_id, worker, claimed_at, started_at, coalesce(executed_at, now()), 'completed'
      FROM final WHERE result_attempt IS NOT NULL
), moved AS (
    UPDATE tasks t
       SET status = 'queued', round_base = t.attempt, result_attempt = NULL, cancel_requested_at = NULL, error = NULL,
           failures = 0, worker_deaths = 0, replica_losses = 0, refusals = 0, finished_at = NULL, run_at = now(),
           expires_at = NULL, revision = t.revision + 1
      FROM final WHERE t.task_id = final.task_id
    RETURNING t.task_id, t.attempt, t.type, t.status, t.revision, NULL::text AS error, t.pool
), noted AS (
    INSERT INTO outbox (task_ids, statuses, attempts, revisions)
    SELECT array_agg(task_id), array_agg(status), array_agg(attempt), array_agg(revision) FROM moved HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT moved.task_id, moved.attempt, moved.type, moved.status::text, moved.revision, moved.error, moved.pool,
       noted.outbox_id
  FROM moved, noted;

-- name: get_task
-- One task with its data and the attempts on record, unless removed.
SELECT t.task_id, t.type, t.status::text, t.data, t.error::text, t.pool, t.priority, t.attempt, t.max_attempts,
       t.starts, t.failures, t.worker_deaths, t.replica_losses, t.timeout_ms, t.revision, t.run_at, t.accepted_at,
       t.created_at, t.claimed_at, t.started_at, t.executed_at, t.finished_at, t.cancel_requested_at, e.replica,
       t.worker, t.result_attempt, t.expires_at, t.options, (
           SELECT json_agg(json_build_object(
                      'attempt', a.attempt, 'replica', r.replica, 'worker', a.worker, 'claimed_at', a.claimed_at,
                      'started_at', a.started_at, 'ended_at', a.ended_at, 'outcome', a.outcome, 'error', a.error
                  ) ORDER BY a.attempt)
             FROM ended_attempts a LEFT JOIN executors r ON r.session_id = a.session_id
            WHERE a.task_id = t.task_id)::text
  FROM tasks t LEFT JOIN executors e ON e.session_id = t.session_id
 WHERE t.task_id = %(task_id)s AND t.removed_at IS NULL;

-- name: plan_for_values
-- For the rest of the transaction, plan with the values at hand: which index serves a list depends on its filters.
SET LOCAL plan_cache_mode = 'force_custom_plan';

-- name: list_tasks
-- A page of tasks, newest first.
SELECT t.task_id, t.type, t.status::text, NULL::bytea, t.error::text, t.pool, t.priority, t.attempt, t.max_attempts,
       t.starts, t.failures, t.worker_deaths, t.replica_losses, t.timeout_ms, t.revision, t.run_at, t.accepted_at,
       t.created_at, t.claimed_at, t.started_at, t.executed_at, t.finished_at, t.cancel_requested_at, e.replica,
       t.worker, t.result_attempt, t.expires_at, t.options, NULL::text
  FROM tasks t LEFT JOIN executors e ON e.session_id = t.session_id
 WHERE t.removed_at IS NULL
   AND (%(status)s::text IS NULL OR t.status = %(status)s::text::task_status)
   AND (%(type)s::text IS NULL OR t.type = %(type)s::text)
   AND (%(after)s::bigint IS NULL OR t.task_id < %(after)s::bigint)
 ORDER BY t.task_id DESC
 LIMIT %(limit)s;

-- name: list_named_tasks
-- Those of the named tasks that fit, newest first.
SELECT t.task_id, t.type, t.status::text, NULL::bytea, t.error::text, t.pool, t.priority, t.attempt, t.max_attempts,
       t.starts, t.failures, t.worker_deaths, t.replica_losses, t.timeout_ms, t.revision, t.run_at, t.accepted_at,
       t.created_at, t.claimed_at, t.started_at, t.executed_at, t.finished_at, t.cancel_requested_at, e.replica,
       t.worker, t.result_attempt, t.expires_at, t.options, NULL::text
  FROM tasks t LEFT JOIN executors e ON e.session_id = t.session_id
 WHERE t.removed_at IS NULL AND t.task_id = ANY(%(task_ids)s::bigint[])
   AND (cardinality(%(statuses)s::text[]) = 0 OR t.status::text = ANY(%(statuses)s::text[]))
   AND (cardinality(%(types)s::text[]) = 0 OR t.type = ANY(%(types)s::text[]))
 ORDER BY t.task_id DESC;

-- name: find_finished
-- Ids of failed or cancelled tasks that fit a filter and can be started again, newest first.
SELECT task_id FROM tasks
 WHERE removed_at IS NULL AND data IS NOT NULL AND status = %(status)s::text::task_status
   AND (%(type)s::text IS NULL OR type = %(type)s::text)
   AND (%(code)s::text IS NULL OR error ->> 'code' = %(code)s::text)
   AND (%(finished_after)s::timestamptz IS NULL OR finished_at >= %(finished_after)s::timestamptz)
   AND (%(finished_before)s::timestamptz IS NULL OR finished_at < %(finished_before)s::timestamptz)
 ORDER BY task_id DESC
 LIMIT %(limit)s;

-- name: read_updates
-- The present state of tasks, for updates that were lost between a commit and its publication.
SELECT task_id, attempt, type, status::text, revision, error::text, removed_at IS NOT NULL
  FROM tasks WHERE task_id = ANY(%(task_ids)s::bigint[]);

-- name: take_stale_outbox
-- Outbox rows that nobody cleared in time: their updates are published again.
SELECT outbox_id, task_ids, statuses::text[], attempts, revisions, created_at FROM outbox
 WHERE created_at < now() - %(age)s::interval
 ORDER BY outbox_id
 LIMIT %(limit)s;

-- name: delete_outbox
DELETE FROM outbox WHERE outbox_id = ANY(%(outbox_ids)s::bigint[]);

-- name: count_statuses
-- Unfinished tasks and failures are counted (their indexes are small); completed ones are estimated from the rest.
SELECT status::text, count(*) FROM tasks
 WHERE status IN ('scheduled', 'queued', 'processing', 'retrying', 'failed', 'cancelled') AND removed_at IS NULL
 GROUP BY status;

-- name: count_failures
-- Failed tasks by type and code, the largest groups first.
SELECT type, coalesce(error ->> 'code', ''), count(*) FROM tasks
 WHERE status = 'failed' AND removed_at IS NULL
 GROUP BY 1, 2
 ORDER BY 3 DESC, 1, 2
 LIMIT 100;

-- name: estimate_rows
SELECT greatest(n_live_tup, 0) FROM pg_stat_user_tables WHERE relname = 'tasks';

-- name: oldest_queued
-- How long the task that waits longest has been due, in milliseconds.
SELECT coalesce(extract(epoch FROM now() - min(run_at)) * 1000, 0)::bigint
  FROM tasks WHERE status = 'queued' AND run_at <= now();

-- name: reserve_id_block
-- The next block of ids, above every block that Redis has seen handed out.
UPDATE id_blocks SET high = greatest(high, %(redis_high)s::bigint) + 1 RETURNING high;

-- name: read_id_high
SELECT high FROM id_blocks;

-- name: remove_expired
-- Hide finished tasks past their retention, a small batch at a time.
WITH expired AS (
    SELECT task_id FROM tasks
     WHERE finished_at < now() - %(retention)s::interval AND removed_at IS NULL
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), removed AS (
    UPDATE tasks t SET removed_at = now(), revision = t.revision + 1, data = NULL
      FROM expired WHERE t.task_id = expired.task_id
    RETURNING t.task_id
), forgotten AS (
    DELETE FROM ended_attempts a USING removed WHERE a.task_id = removed.task_id
), noted AS (
    INSERT INTO outbox (task_ids) SELECT array_agg(task_id) FROM removed HAVING count(*) > 0
)
SELECT task_id FROM removed;

-- name: drop_shells
-- Delete rows that have been hidden for a day.
DELETE FROM tasks WHERE task_id IN (
    SELECT task_id FROM tasks
     WHERE finished_at < now() - interval '1 day' AND removed_at < now() - interval '1 day'
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
);
