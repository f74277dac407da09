-- Views for people and for the services' reports.

CREATE OR REPLACE VIEW relay_metadata_latest AS
SELECT
    relays.url AS relay_url,
    relays.network,
    relays.inserted_at,
    latest.generated_at,
    latest.nip66_id,
    nip66.openable,
    nip66.readable,
    nip66.writable,
    nip66.rtt_open,
    nip66.rtt_read,
    nip66.rtt_write,
    latest.nip11_id,
    nip11.name,
    nip11.description,
    nip11.banner,
    nip11.icon,
    nip11.pubkey,
    nip11.contact,
    nip11.supported_nips,
    nip11.software,
    nip11.version,
    nip11.privacy_policy,
    nip11.terms_of_service,
    nip11.limitation,
    nip11.extra_fields
FROM relays
CROSS JOIN LATERAL (
    SELECT relay_metadata.generated_at, relay_metadata.nip11_id, relay_metadata.nip66_id
    FROM relay_metadata
    WHERE relay_metadata.relay_url = relays.url
    ORDER BY relay_metadata.generated_at DESC
    LIMIT 1
) AS latest
LEFT JOIN nip11 ON nip11.id = latest.nip11_id
LEFT JOIN nip66 ON nip66.id = latest.nip66_id;
COMMENT ON VIEW relay_metadata_latest IS 'The latest check of each relay that was ever checked';

CREATE OR REPLACE VIEW readable_relays AS
SELECT
    relay_url, network, inserted_at, generated_at,
    readable, writable, rtt_open, rtt_read, rtt_write,
    name, supported_nips, software, version, limitation
FROM relay_metadata_latest
WHERE readable;
COMMENT ON VIEW readable_relays IS 'Relays that the latest check could read from';

-- proven_percent counts seconds of the target interval, not events: nobody can know how many
-- events a relay holds in seconds that are not proven. It is rounded down, so 100 means all of
-- it. The target runs from the earliest second ever asked for to the latest; a filter without
-- one has no percentage. gap_seconds are those that could not be proven when last tried.
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
    tasks.learnt
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

INSERT INTO schema_version (version, name) VALUES (9, 'views') ON CONFLICT DO NOTHING;
