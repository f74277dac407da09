-- Who may do what. Everything is taken away first, so that what is written here is all there is.

DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format(
        'GRANT CONNECT ON DATABASE %I TO bigbrotr_writer, bigbrotr_reader, pgbouncer_auth',
        current_database()
    );
END
$$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON SCHEMA pgbouncer FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgbouncer FROM PUBLIC;

-- PgBouncer: one function.
GRANT USAGE ON SCHEMA pgbouncer TO pgbouncer_auth;
GRANT EXECUTE ON FUNCTION pgbouncer.get_auth(TEXT) TO pgbouncer_auth;

-- Readers: every table and view, and the functions that compute without writing.
GRANT USAGE ON SCHEMA public TO bigbrotr_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO bigbrotr_reader;
GRANT EXECUTE ON FUNCTION
    tag_key(TEXT, TEXT),
    tags_to_tagvalues(JSONB),
    compute_nip11_hash(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, JSONB, TEXT, TEXT, TEXT, TEXT, JSONB,
                       JSONB),
    compute_nip66_hash(BOOLEAN, BOOLEAN, BOOLEAN, INTEGER, INTEGER, INTEGER)
TO bigbrotr_reader;

-- Services: rows, never the schema. What is archived is added and removed, but never changed.
GRANT USAGE ON SCHEMA public TO bigbrotr_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO bigbrotr_writer;
GRANT INSERT, DELETE ON
    relays, events, events_relays, events_raw, nip11, nip66, relay_metadata
TO bigbrotr_writer;
GRANT INSERT, UPDATE, DELETE ON
    refused_events, sync_filters, sync_coverage, sync_gaps, relay_tasks, finder_events_read
TO bigbrotr_writer;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO bigbrotr_writer;

INSERT INTO schema_version (version, name) VALUES (11, 'grants') ON CONFLICT DO NOTHING;
