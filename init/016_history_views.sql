-- Questions about the past of relays. The views read relay_facts, whose stretches hold the whole
-- history in few rows.

CREATE OR REPLACE VIEW relay_facts_latest AS
SELECT DISTINCT ON (relay_url) *
FROM relay_facts
ORDER BY relay_url, first_checked_at DESC;
COMMENT ON VIEW relay_facts_latest IS 'What the latest check of each relay found';

-- A stretch counts until the next one begins: a relay that was open at noon and closed at 8 p.m. was
-- open for 8 hours. That makes relays comparable though the dead are checked more rarely than the
-- living. Percentages are NULL until two checks lie apart.
CREATE OR REPLACE VIEW relay_uptime AS
SELECT
    relay_url,
    network,
    checks,
    first_checked_at,
    last_checked_at,
    observed_seconds,
    CASE WHEN observed_seconds > 0
        THEN trunc(100.0 * open_seconds / observed_seconds, 2)
    END AS open_percent,
    CASE WHEN observed_seconds > 0
        THEN trunc(100.0 * readable_seconds / observed_seconds, 2)
    END AS readable_percent
FROM (
    SELECT
        relays.url AS relay_url,
        relays.network,
        sum(stretch.checks)::bigint AS checks,
        min(stretch.first_checked_at) AS first_checked_at,
        max(stretch.last_checked_at) AS last_checked_at,
        sum(stretch.seconds)::bigint AS observed_seconds,
        coalesce(sum(stretch.seconds) FILTER (WHERE stretch.openable), 0)::bigint AS open_seconds,
        coalesce(sum(stretch.seconds) FILTER (WHERE stretch.readable), 0)::bigint
            AS readable_seconds
    FROM relays
    JOIN (
        SELECT
            relay_url, checks, first_checked_at, last_checked_at, openable, readable,
            coalesce(
                lead(first_checked_at) OVER (PARTITION BY relay_url ORDER BY first_checked_at),
                last_checked_at
            ) - first_checked_at AS seconds
        FROM relay_facts
    ) AS stretch ON stretch.relay_url = relays.url
    GROUP BY relays.url, relays.network
) AS sums;
COMMENT ON VIEW relay_uptime IS
    'Per relay, for how much of the time since its first check it was open and readable';

CREATE OR REPLACE VIEW relay_lifetimes AS
SELECT
    relays.url AS relay_url,
    relays.network,
    relays.inserted_at AS known_since,
    min(stretch.first_checked_at) FILTER (WHERE stretch.openable) AS first_answered_at,
    max(stretch.last_checked_at) FILTER (WHERE stretch.openable) AS last_answered_at,
    min(stretch.first_checked_at) FILTER (
        WHERE stretch.first_checked_at > coalesce(stretch.last_open_at, -1)
    ) AS dead_since,
    count(*) FILTER (WHERE stretch.openable AND NOT stretch.opened_before) AS returns,
    (array_agg(stretch.outcome ORDER BY stretch.first_checked_at DESC))[1] AS last_outcome
FROM relays
JOIN (
    SELECT
        relay_url, first_checked_at, last_checked_at, openable, outcome,
        max(last_checked_at) FILTER (WHERE openable) OVER (PARTITION BY relay_url)
            AS last_open_at,
        coalesce(
            lag(openable) OVER (PARTITION BY relay_url ORDER BY first_checked_at), TRUE
        ) AS opened_before
    FROM relay_facts
) AS stretch ON stretch.relay_url = relays.url
GROUP BY relays.url, relays.network, relays.inserted_at;
COMMENT ON VIEW relay_lifetimes IS
    'Per relay, when it first and last answered, since when it does not, how often it came back';

GRANT SELECT ON relay_facts_latest, relay_uptime, relay_lifetimes TO bigbrotr_reader, bigbrotr_writer;

INSERT INTO schema_version (version, name) VALUES (16, 'history_views') ON CONFLICT DO NOTHING;
