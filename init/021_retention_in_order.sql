-- Synchronizers commit the proofs of many relays in one transaction. Retention, too, locks their
-- rows of sync_coverage in the order of the keys: or each might wait for the other.

-- A batch ends in a commit. The ledger is cut after the batch's events were deleted and in the
-- same transaction: it sees, and takes back, whatever was claimed with any of them. Events to
-- which a writer refers at this moment are left to the next run.
CREATE OR REPLACE PROCEDURE apply_retention(batch_size INTEGER DEFAULT 5000)
LANGUAGE plpgsql AS $$
DECLARE
    rule RECORD;
    before BIGINT;
    since BIGINT;
    batch TEXT[];
    removed BIGINT;
BEGIN
    FOR rule IN SELECT kind, keep_days FROM retention ORDER BY kind NULLS FIRST LOOP
        before := greatest(
            floor(extract(epoch FROM now()))::bigint - rule.keep_days::bigint * 86400, 0
        );
        UPDATE retention
        SET removed_before = greatest(removed_before, before),
            applied_at = floor(extract(epoch FROM now()))::bigint
        WHERE kind IS NOT DISTINCT FROM rule.kind;
        COMMIT;

        -- encode_event (src/nostr/events.py) writes the members in this order.
        DELETE FROM events_raw WHERE id IN (
            SELECT id
            FROM events_raw, regexp_match(
                encode(substring(raw FROM 1 FOR 300), 'escape'),
                '^\{"id":"\w{64}","pubkey":"\w{64}","created_at":([0-9]+),"kind":([0-9]+),'
            ) AS member
            WHERE member[1]::numeric < before
              AND (rule.kind IS NULL OR member[2]::numeric = rule.kind)
        );
        GET DIAGNOSTICS removed = ROW_COUNT;
        since := 0;
        LOOP
            UPDATE retention SET removed_events = removed_events + removed
            WHERE kind IS NOT DISTINCT FROM rule.kind;
            IF rule.kind IS NULL THEN
                PERFORM FROM sync_coverage
                WHERE lower(covered) < before OR lower(target) < before
                ORDER BY relay_url, filter_hash FOR UPDATE;
                UPDATE sync_coverage
                SET covered = covered - int8multirange(int8range(NULL, before)),
                    target = target * int8range(before, NULL)
                WHERE lower(covered) < before OR lower(target) < before;
                DELETE FROM sync_gaps WHERE upper(gap) <= before;
            END IF;
            COMMIT;

            -- From where the last batch ended: the index still has what was removed before.
            IF rule.kind IS NULL THEN
                SELECT array_agg(id), max(created_at) INTO batch, since FROM (
                    SELECT id, created_at FROM events
                    WHERE created_at >= since AND created_at < before
                    ORDER BY created_at LIMIT batch_size FOR UPDATE SKIP LOCKED
                ) AS old;
            ELSE
                SELECT array_agg(id), max(created_at) INTO batch, since FROM (
                    SELECT id, created_at FROM events
                    WHERE kind = rule.kind AND created_at >= since AND created_at < before
                    ORDER BY created_at LIMIT batch_size FOR UPDATE SKIP LOCKED
                ) AS old;
            END IF;
            EXIT WHEN batch IS NULL;
            DELETE FROM events WHERE id = ANY (batch);
            GET DIAGNOSTICS removed = ROW_COUNT;
        END LOOP;
    END LOOP;
END
$$;

INSERT INTO schema_version (version, name)
VALUES (21, 'retention_in_order') ON CONFLICT DO NOTHING;
