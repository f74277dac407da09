-- PgBouncer asks here for the password verifier of whoever logs in (auth_query), so that no
-- file of it holds one. Superusers cannot log in through PgBouncer: they get no answer.

CREATE SCHEMA IF NOT EXISTS pgbouncer;

CREATE OR REPLACE FUNCTION pgbouncer.get_auth(
    wanted TEXT, OUT username TEXT, OUT password TEXT
) RETURNS SETOF RECORD
LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT rolname::text, rolpassword
    FROM pg_catalog.pg_authid
    WHERE rolname = wanted
      AND rolcanlogin
      AND NOT rolsuper
      AND NOT rolreplication
      AND NOT rolbypassrls
      AND rolpassword LIKE 'SCRAM-SHA-256$%'
      AND (rolvaliduntil IS NULL OR rolvaliduntil > now())
$$;
COMMENT ON FUNCTION pgbouncer.get_auth(TEXT) IS
    'auth_query of PgBouncer: the SCRAM verifier of an ordinary role that may log in';

INSERT INTO schema_version (version, name) VALUES (10, 'pgbouncer_auth') ON CONFLICT DO NOTHING;
