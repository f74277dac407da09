-- Retention: which events are removed, by age and by kind, without the ledger going on to claim
-- that they are archived.

-- removed_before outlives a change of keep_days: whoever reads the archive must know what is not
-- in it any more.
CREATE TABLE IF NOT EXISTS retention (
    kind            INTEGER CHECK (kind BETWEEN 0 AND 65535),
    keep_days       INTEGER NOT NULL CHECK (keep_days >= 0),
    removed_before  BIGINT NOT NULL DEFAULT 0 CHECK (removed_before >= 0),
    removed_events  BIGINT NOT NULL DEFAULT 0 CHECK (removed_events >= 0),
    applied_at      BIGINT CHECK (applied_at >= 0),
    CONSTRAINT retention_kind UNIQUE NULLS NOT DISTINCT (kind),
    CONSTRAINT retention_keeps_something CHECK (kind IS NOT NULL OR keep_days > 0)
);
COMMENT ON TABLE retention IS
    'Which events are removed: those of a kind, or (kind NULL) of all kinds, older than keep_days';
COMMENT ON COLUMN retention.removed_before IS
    'Events created before this second were removed. For all kinds, these seconds are not in the '
    'ledger and not asked for; for one kind, sync_progress.removed_kinds names it';

COMMENT ON COLUMN sync_coverage.covered IS
    'Seconds for which every event that the relay serves is in the archive, but for those of '
    'kinds that table retention has removed';

CREATE OR REPLACE FUNCTION filter_takes_kind(filter JSONB, kind INTEGER) RETURNS BOOLEAN
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN NOT filter ? 'kinds' OR filter -> 'kinds' @> to_jsonb(kind);
COMMENT ON FUNCTION filter_takes_kind(JSONB, INTEGER) IS
    'Whether an event filter (NIP-01) can match events of this kind';

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
COMMENT ON PROCEDURE apply_retention(INTEGER) IS
    'Removes the events that table retention says, so many at a time; not within a transaction';

-- Without its rule, nothing says any more what was removed: the seconds are wanted again.
CREATE OR REPLACE FUNCTION retract_removed() RETURNS TRIGGER
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE sync_coverage
    SET covered = covered - int8multirange(int8range(NULL, OLD.removed_before))
    FROM sync_filters
    WHERE sync_filters.filter_hash = sync_coverage.filter_hash
      AND OLD.kind IS NOT NULL
      AND filter_takes_kind(sync_filters.filter, OLD.kind)
      AND lower(sync_coverage.covered) < OLD.removed_before;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION retract_removed() IS
    'When a rule of a kind goes: takes the seconds back of which it has removed events';
CREATE OR REPLACE TRIGGER retract_removed
AFTER DELETE OR UPDATE OF kind ON retention
FOR EACH ROW EXECUTE FUNCTION retract_removed();

CREATE OR REPLACE VIEW sync_progress AS
SELECT
    coverage.relay_url,
    relays.network,
    coverage.filter_hash,
    sync_filters.filter,
    lower(coverage.target) AS target_from,
    upper(coverage.target) - 1 AS target_until,
    span.target_seconds,
    span.covered_seconds,
    CASE WHEN span.target_seconds > 0
        THEN trunc(100.0 * span.covered_seconds / span.target_seconds, 2)
    END AS proven_percent,
    gaps.gaps,
    gaps.gap_seconds,
    coverage.updated_at,
    coverage.verified_at,
    tasks.last_outcome,
    tasks.learnt,
    ARRAY(
        SELECT retention.kind
        FROM retention
        WHERE retention.kind IS NOT NULL
          AND retention.removed_before > lower(coverage.covered)
          AND filter_takes_kind(sync_filters.filter, retention.kind)
        ORDER BY retention.kind
    ) AS removed_kinds
FROM sync_coverage AS coverage
JOIN relays ON relays.url = coverage.relay_url
LEFT JOIN relay_tasks AS tasks
    ON tasks.purpose = 'sync' AND tasks.relay_url = coverage.relay_url
JOIN sync_filters ON sync_filters.filter_hash = coverage.filter_hash
CROSS JOIN LATERAL (
    SELECT
        coalesce(upper(coverage.target) - lower(coverage.target), 0) AS target_seconds,
        coalesce(sum(upper(part) - lower(part)), 0)::bigint AS covered_seconds
    FROM unnest(
        coverage.covered * coalesce(int8multirange(coverage.target), coverage.covered)
    ) AS part
) AS span
CROSS JOIN LATERAL (
    SELECT
        count(*) AS gaps,
        coalesce(sum(upper(gap) - lower(gap)), 0)::bigint AS gap_seconds
    FROM sync_gaps
    WHERE sync_gaps.relay_url = coverage.relay_url
      AND sync_gaps.filter_hash = coverage.filter_hash
) AS gaps;
COMMENT ON VIEW sync_progress IS
    'Per relay and filter, how many seconds of the interval asked for are proven archived';
COMMENT ON COLUMN sync_progress.removed_kinds IS
    'Kinds of which events in proven seconds were removed on purpose: see table retention';

REVOKE ALL ON FUNCTION filter_takes_kind(JSONB, INTEGER), retract_removed() FROM PUBLIC;
REVOKE ALL ON PROCEDURE apply_retention(INTEGER) FROM PUBLIC;
GRANT SELECT ON retention TO bigbrotr_reader, bigbrotr_writer;
GRANT EXECUTE ON FUNCTION filter_takes_kind(JSONB, INTEGER) TO bigbrotr_reader, bigbrotr_writer;

INSERT INTO schema_version (version, name) VALUES (17, 'retention') ON CONFLICT DO NOTHING;
