-- Removing what nothing refers to any more. Each function works in batches along the primary
-- key and returns how many rows it deleted.
--
-- A batch is locked first and looked at again afterwards: a row to which a writer refers at this
-- very moment is either skipped, because the writer's foreign key check holds it, or seen to be
-- in use, because the second statement has a new snapshot. Nobody can refer to a row in between.
-- They run as the owner, since services may not lock rows of tables that they may not update.

CREATE OR REPLACE FUNCTION delete_orphan_events(batch_size INTEGER DEFAULT 5000)
RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    batch TEXT[];
    last_id TEXT := '';
    removed BIGINT;
    total BIGINT := 0;
BEGIN
    LOOP
        SELECT array_agg(id), max(id) INTO batch, last_id FROM (
            SELECT id FROM public.events
            WHERE id > last_id COLLATE "C"
              AND NOT EXISTS (SELECT FROM public.events_relays WHERE event_id = events.id)
            ORDER BY id LIMIT batch_size FOR UPDATE SKIP LOCKED
        ) AS orphans;
        EXIT WHEN batch IS NULL;
        DELETE FROM public.events
        WHERE id = ANY (batch)
          AND NOT EXISTS (SELECT FROM public.events_relays WHERE event_id = events.id);
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
    END LOOP;
    RETURN total;
END
$$;
COMMENT ON FUNCTION delete_orphan_events(INTEGER) IS
    'Deletes events that no relay is known to hold';

CREATE OR REPLACE FUNCTION delete_orphan_nip11(batch_size INTEGER DEFAULT 5000)
RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    batch TEXT[];
    last_id TEXT := '';
    removed BIGINT;
    total BIGINT := 0;
BEGIN
    LOOP
        SELECT array_agg(id), max(id) INTO batch, last_id FROM (
            SELECT id FROM public.nip11
            WHERE id > last_id COLLATE "C"
              AND NOT EXISTS (SELECT FROM public.relay_metadata WHERE nip11_id = nip11.id)
            ORDER BY id LIMIT batch_size FOR UPDATE SKIP LOCKED
        ) AS orphans;
        EXIT WHEN batch IS NULL;
        DELETE FROM public.nip11
        WHERE id = ANY (batch)
          AND NOT EXISTS (SELECT FROM public.relay_metadata WHERE nip11_id = nip11.id);
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
    END LOOP;
    RETURN total;
END
$$;
COMMENT ON FUNCTION delete_orphan_nip11(INTEGER) IS 'Deletes NIP-11 documents of no check';

CREATE OR REPLACE FUNCTION delete_orphan_nip66(batch_size INTEGER DEFAULT 5000)
RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    batch TEXT[];
    last_id TEXT := '';
    removed BIGINT;
    total BIGINT := 0;
BEGIN
    LOOP
        SELECT array_agg(id), max(id) INTO batch, last_id FROM (
            SELECT id FROM public.nip66
            WHERE id > last_id COLLATE "C"
              AND NOT EXISTS (SELECT FROM public.relay_metadata WHERE nip66_id = nip66.id)
            ORDER BY id LIMIT batch_size FOR UPDATE SKIP LOCKED
        ) AS orphans;
        EXIT WHEN batch IS NULL;
        DELETE FROM public.nip66
        WHERE id = ANY (batch)
          AND NOT EXISTS (SELECT FROM public.relay_metadata WHERE nip66_id = nip66.id);
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
    END LOOP;
    RETURN total;
END
$$;
COMMENT ON FUNCTION delete_orphan_nip66(INTEGER) IS 'Deletes NIP-66 results of no check';

INSERT INTO schema_version (version, name)
VALUES (8, 'maintenance_functions') ON CONFLICT DO NOTHING;
