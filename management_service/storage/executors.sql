-- Sessions of execution replicas, the managers' own rows, and the catalog of task types.

-- name: open_session
-- Make the row of a session whose Hello was heard. It may be there already, also ended.
INSERT INTO executors (session_id, replica, address, types, beat)
VALUES (%(session_id)s, %(replica)s, %(address)s, %(types)s::text[], %(beat)s)
ON CONFLICT (session_id) DO UPDATE SET address = excluded.address, types = excluded.types
RETURNING ended_at IS NOT NULL;

-- name: raise_beats
-- Write the newest heartbeats heard. No row: the session was ended, or is not known.
WITH heard AS (
    SELECT e.session_id, h.beat
      FROM executors e
      JOIN unnest(%(session_ids)s::bigint[], %(beats)s::bigint[]) AS h (session_id, beat) USING (session_id)
     WHERE e.ended_at IS NULL
     ORDER BY e.session_id
       FOR UPDATE OF e
)
UPDATE executors e SET beat = greatest(e.beat, heard.beat)
  FROM heard WHERE e.session_id = heard.session_id
RETURNING e.session_id;

-- name: scan_sessions
-- The manager's own row and the beats of all live sessions: proof that this manager can write and read.
WITH own AS (
    INSERT INTO managers (manager_id, replica) VALUES (%(manager_id)s, %(replica)s)
    ON CONFLICT (manager_id) DO UPDATE SET scanned_at = now()
)
SELECT session_id, beat, address, replica FROM executors WHERE ended_at IS NULL;

-- name: end_session
-- End a session for good, if nobody has heard it meanwhile.
UPDATE executors SET ended_at = now()
 WHERE session_id = %(session_id)s AND ended_at IS NULL AND beat = %(beat)s
RETURNING session_id;

-- name: close_session
-- End a session that said good-bye.
UPDATE executors SET ended_at = now() WHERE session_id = %(session_id)s AND ended_at IS NULL RETURNING session_id;

-- name: forget_old_rows
-- Drop sessions and managers that ended long ago; unfinished tasks of such a session were rescued long before.
WITH gone AS (DELETE FROM managers WHERE scanned_at < now() - interval '1 hour')
DELETE FROM executors e
 WHERE ended_at < now() - %(retention)s::interval
   AND NOT EXISTS (SELECT FROM tasks t WHERE t.status = 'processing' AND t.session_id = e.session_id);

-- name: save_task_types
INSERT INTO task_types (name, pool, description, data_schema, result_schema, timeout_ms, max_attempts, version,
                        details)
SELECT * FROM unnest(
    %(names)s::text[], %(pools)s::text[], %(descriptions)s::text[], %(data_schemas)s::text[],
    %(result_schemas)s::text[], %(timeouts)s::bigint[], %(max_attempts)s::int2[], %(versions)s::text[],
    %(details)s::bytea[]
) AS n (name, pool, description, data_schema, result_schema, timeout_ms, max_attempts, version, details)
 ORDER BY name
ON CONFLICT (name) DO UPDATE
   SET pool = excluded.pool, description = excluded.description, data_schema = excluded.data_schema,
       result_schema = excluded.result_schema, timeout_ms = excluded.timeout_ms,
       max_attempts = excluded.max_attempts, version = excluded.version, details = excluded.details, updated_at = now()
 WHERE task_types.version <> excluded.version;

-- name: list_task_types
-- The catalog with the names of the live replicas that serve each type.
SELECT t.name, t.pool, t.description, t.data_schema, t.result_schema, t.timeout_ms, t.max_attempts, t.version,
       t.details,
       array(SELECT DISTINCT e.replica FROM executors e
              WHERE e.ended_at IS NULL AND t.name = ANY(e.types) ORDER BY e.replica)
  FROM task_types t ORDER BY t.name;

-- name: count_live
SELECT (SELECT count(*) FROM executors WHERE ended_at IS NULL),
       (SELECT count(*) FROM managers WHERE scanned_at > now() - interval '5 seconds');
