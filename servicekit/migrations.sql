-- What the migration runner itself asks. The migrations are in the packages that own the tables.

-- name: create_table
CREATE TABLE IF NOT EXISTS schema_migrations (
    package text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, version)
);

-- name: select_versions
SELECT version FROM schema_migrations WHERE package = %(package)s ORDER BY version;

-- name: insert_version
INSERT INTO schema_migrations (package, version, name) VALUES (%(package)s, %(version)s, %(name)s);

-- name: try_lock
-- Held by the connection: it ends with it, so that a replica that dies blocks nobody.
SELECT pg_try_advisory_lock(%(key)s);

-- name: set_lock_timeout
SELECT set_config('lock_timeout', %(timeout)s, true);
