-- Parameters that are arrays are parallel: one row for each place.

-- name: insert_results
-- A key that is there already keeps its result. The rows come in the order of their keys.
INSERT INTO results (task_id, attempt, result)
SELECT new.task_id, new.attempt, new.result
  FROM unnest(%(task_ids)s, %(attempts)s, %(results)s) AS new (task_id, attempt, result)
    ON CONFLICT DO NOTHING;

-- name: copy_results
-- For each wanted attempt, the newest result of an earlier attempt of the same round, copied under the wanted one.
-- No row back: there is none. A row also comes back when the copy was there already.
WITH found AS MATERIALIZED (
    SELECT wanted.task_id, wanted.attempt, earlier.attempt AS from_attempt, earlier.result
      FROM unnest(%(task_ids)s, %(round_bases)s, %(attempts)s) AS wanted (task_id, round_base, attempt)
     CROSS JOIN LATERAL (
           SELECT results.attempt, results.result
             FROM results
            WHERE results.task_id = wanted.task_id
              AND results.attempt > wanted.round_base
              AND results.attempt < wanted.attempt
            ORDER BY results.attempt DESC
            LIMIT 1) AS earlier
), copied AS (
    INSERT INTO results (task_id, attempt, result)
    SELECT found.task_id, found.attempt, found.result FROM found ORDER BY found.task_id, found.attempt
        ON CONFLICT DO NOTHING
)
SELECT found.task_id, found.attempt, found.from_attempt FROM found ORDER BY found.task_id, found.attempt;

-- name: select_results
SELECT results.task_id, results.attempt, results.result, results.stored_at
  FROM unnest(%(task_ids)s, %(attempts)s) AS wanted (task_id, attempt)
  JOIN results ON results.task_id = wanted.task_id AND results.attempt = wanted.attempt
 ORDER BY results.task_id, results.attempt;

-- name: delete_results
-- Locks in the order of the keys, as every batch does.
WITH doomed AS (
    SELECT results.task_id, results.attempt
      FROM results
     WHERE results.task_id = ANY (%(task_ids)s)
     ORDER BY results.task_id, results.attempt
       FOR UPDATE
)
DELETE FROM results
 USING doomed
 WHERE results.task_id = doomed.task_id AND results.attempt = doomed.attempt;

-- name: sweep_results
-- Rows that somebody else removes right now are left to them: a sweep waits for nobody.
DELETE FROM results
 WHERE ctid = ANY (ARRAY(
       SELECT old.ctid
         FROM results AS old
        WHERE old.stored_at < now() - %(older_than)s
        LIMIT %(limit)s
          FOR UPDATE SKIP LOCKED));

-- name: insert_logs
-- The log of an attempt that was reported twice stays as it came first.
INSERT INTO attempt_logs (task_id, attempt, log)
SELECT new.task_id, new.attempt, new.log
  FROM unnest(%(task_ids)s, %(attempts)s, %(logs)s) AS new (task_id, attempt, log)
    ON CONFLICT DO NOTHING;

-- name: select_logs
-- The newest, in the order of their attempts.
SELECT newest.attempt, newest.log, newest.stored_at
  FROM (SELECT attempt_logs.attempt, attempt_logs.log, attempt_logs.stored_at
          FROM attempt_logs
         WHERE attempt_logs.task_id = %(task_id)s
         ORDER BY attempt_logs.attempt DESC
         LIMIT %(limit)s) AS newest
 ORDER BY newest.attempt;

-- name: delete_logs
WITH doomed AS (
    SELECT attempt_logs.task_id, attempt_logs.attempt
      FROM attempt_logs
     WHERE attempt_logs.task_id = ANY (%(task_ids)s)
     ORDER BY attempt_logs.task_id, attempt_logs.attempt
       FOR UPDATE
)
DELETE FROM attempt_logs
 USING doomed
 WHERE attempt_logs.task_id = doomed.task_id AND attempt_logs.attempt = doomed.attempt;

-- name: sweep_logs
DELETE FROM attempt_logs
 WHERE ctid = ANY (ARRAY(
       SELECT old.ctid
         FROM attempt_logs AS old
        WHERE old.stored_at < now() - %(older_than)s
        LIMIT %(limit)s
          FOR UPDATE SKIP LOCKED));
