-- Roles. The owner is whoever runs these files (POSTGRES_USER).
--
-- The roles have no password, so nobody can log in over the network as one of them until the
-- migration runner sets the passwords from its settings.

DO $$
DECLARE
    wanted TEXT;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['bigbrotr_writer', 'bigbrotr_reader', 'pgbouncer_auth'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            -- Roles belong to the whole cluster: another database's migration was faster.
            RAISE DEBUG 'role % exists already', wanted;
        END;
    END LOOP;
END
$$;

INSERT INTO schema_version (version, name) VALUES (2, 'roles') ON CONFLICT DO NOTHING;
