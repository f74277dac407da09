"""The SQL that the specification prints."""

# The ```sql blocks, in order.
BLOCKS = (
    "SELECT COUNT(*) FROM events;",
    """\
SELECT COUNT(*) FROM relays;
SELECT network, COUNT(*) FROM relays GROUP BY network;""",
    "SELECT * FROM relay_metadata_latest LIMIT 10;",
    "SELECT * FROM readable_relays;",
    """\
SELECT relay_url, COUNT(*) as event_count
FROM events_relays
GROUP BY relay_url
ORDER BY event_count DESC
LIMIT 10;""",
    """\
SELECT id, kind, created_at, content
FROM events
ORDER BY created_at DESC
LIMIT 10;""",
    """\
SELECT
    r.url,
    r.network,
    COUNT(DISTINCT er.event_id) as event_count,
    rm.generated_at as last_check,
    n66.readable,
    n66.rtt_read
FROM relays r
LEFT JOIN events_relays er ON r.url = er.relay_url
LEFT JOIN relay_metadata_latest rm ON r.url = rm.relay_url
LEFT JOIN nip66 n66 ON rm.nip66_id = n66.id
GROUP BY r.url, r.network, rm.generated_at, n66.readable, n66.rtt_read
ORDER BY event_count DESC;""",
    "SELECT delete_orphan_events();",
    """\
SELECT delete_orphan_nip11();
SELECT delete_orphan_nip66();""",
    """\
DELETE FROM events WHERE created_at < EXTRACT(EPOCH FROM NOW() - INTERVAL '90 days');
SELECT delete_orphan_events();
VACUUM FULL;""",
    """\
REINDEX INDEX CONCURRENTLY idx_events_pubkey;
REINDEX INDEX CONCURRENTLY idx_events_created_at;
REINDEX INDEX CONCURRENTLY idx_events_relays_relay_seen;""",
    """\
ANALYZE events;
ANALYZE events_relays;
ANALYZE relay_metadata;""",
)
# Printed outside of such blocks.
INLINE = ("VACUUM ANALYZE;", "SELECT count(*) FROM pg_stat_activity;")
OF_READERS = BLOCKS[:7]


def statements(block: str) -> list[str]:
    """The statements of a block."""
    return [statement for statement in block.split(";") if statement.strip()]
