-- What backup and restore ask PostgreSQL through psql, which puts its variables in where :'name' or :"name" stands.

-- name: begin_snapshot
-- A transaction that sees one moment of the database, and the id by which others see the same.
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_export_snapshot();

-- name: schema_versions
SELECT coalesce(json_object_agg(package, version), '{}')
  FROM (SELECT package, max(version) AS version FROM schema_migrations GROUP BY package) newest;

-- name: count_rows
-- Of every table, as name and number.
SELECT format('SELECT %L, count(*) FROM public.%I', relname, relname)
  FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname \gexec

-- name: server_version
SHOW server_version;

-- name: has_table
SELECT to_regclass(:'table') IS NOT NULL;

-- name: has_rows
SELECT EXISTS (SELECT FROM :"table");

-- name: removed_lately
-- Tasks that were removed in the last minute. The transaction of a removal may be older than its commit by as much as
-- a statement may take, which is less.
SELECT coalesce(json_agg(task_id ORDER BY task_id), '[]') FROM tasks WHERE removed_at > now() - interval '1 minute';

-- name: completed_keys
-- Of every task that shows a result, the key of that result.
COPY (SELECT task_id, result_attempt FROM tasks
       WHERE status = 'completed' AND removed_at IS NULL ORDER BY task_id) TO STDOUT;

-- name: result_keys
COPY (SELECT task_id, attempt FROM results ORDER BY task_id, attempt) TO STDOUT;

-- name: highest_result
SELECT coalesce(max(task_id), 0) FROM results;

-- name: id_high
SELECT high FROM id_blocks;

-- name: numbers_given
-- The highest task id and the number of the newest block; the highest outbox id and what its sequence says.
SELECT json_build_object(
           'task_id', (SELECT coalesce(max(task_id), 0) FROM tasks), 'block', (SELECT high FROM id_blocks),
           'outbox_id', (SELECT coalesce(max(outbox_id), 0) FROM outbox),
           'outbox_sequence', (SELECT last_value FROM outbox_outbox_id_seq));

-- name: raise_ids
UPDATE id_blocks SET high = greatest(high, :'block'::bigint);

-- name: remove_again
-- Tasks that were removed while the backup was taken: their results are not in it.
BEGIN;
WITH removed AS (
    UPDATE tasks SET removed_at = now(), revision = revision + 1, data = NULL
     WHERE task_id = ANY (:'task_ids'::bigint[]) AND finished_at IS NOT NULL AND removed_at IS NULL
    RETURNING task_id
)
DELETE FROM ended_attempts a USING removed WHERE a.task_id = removed.task_id;
COMMIT;

-- name: analyze
ANALYZE;

-- name: list_databases
SELECT coalesce(json_agg(datname), '[]') FROM pg_database;

-- name: create_database
CREATE DATABASE :"name" TEMPLATE template0;

-- name: drop_database
DROP DATABASE IF EXISTS :"name" WITH (FORCE);

-- name: put_in_place
-- Give a database the name of another, which is kept under a new one: both or neither. Whoever uses them is cut off.
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname IN (:'name', :'fresh');
BEGIN;
SELECT format('ALTER DATABASE %I RENAME TO %I', datname, :'kept') FROM pg_database WHERE datname = :'name' \gexec
ALTER DATABASE :"fresh" RENAME TO :"name";
COMMIT;
