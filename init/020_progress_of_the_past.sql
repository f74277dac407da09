-- No second is proven before it is over. What a clock that was ahead, or a hand, put beyond a row's
-- last change or beyond the present is not asked for as proven, and is not shown as proven either.

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
        coverage.covered
        * coalesce(int8multirange(coverage.target), coverage.covered)
        * int8multirange(int8range(
            NULL, least(coverage.updated_at, floor(extract(epoch FROM now()))::bigint)))
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

INSERT INTO schema_version (version, name)
VALUES (20, 'progress_of_the_past') ON CONFLICT DO NOTHING;
