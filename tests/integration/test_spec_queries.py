"""The queries, maintenance calls and tuning commands of the specification run as printed."""

import re
import textwrap
from pathlib import Path

import pytest

from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from components.sample_events import sample_event
from event_rows import write_events
from nostr.urls import RelayUrl

SPECIFICATION = Path(__file__).parents[3] / "shared" / "spec" / "bigbrotr-specification.md"

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


def _statements(block: str) -> list[str]:
    return [statement for statement in block.split(";") if statement.strip()]


async def _fill(db: BigBrotr) -> None:
    relay = RelayUrl.parse("wss://relay.example.com")
    events = [sample_event(number) for number in range(20)]
    await db.run_in_transaction(lambda conn: write_events(conn, relay, 1_700_000_100, events))
    await db.execute(
        "SELECT insert_relay_metadata('wss://relay.example.com', 'clearnet', 1, 2, $1, $2)",
        '{"name": "a relay"}',
        '{"openable": true, "readable": true, "writable": false, "rtt_open": 5, "rtt_read": 9}',
    )


@pytest.mark.parametrize("block", [*BLOCKS, *INLINE], ids=lambda block: block.split("\n")[0][:50])
async def test_runs_as_printed_for_the_owner(
    cluster: Cluster, database: Database, db: BigBrotr, block: str
) -> None:
    await _fill(db)
    connection = await cluster.connect(database.dbname)
    try:
        for statement in _statements(block):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("block", OF_READERS, ids=lambda block: block.split("\n")[0][:50])
async def test_queries_answer_a_reader_through_pgbouncer(
    database: Database, db: BigBrotr, block: str
) -> None:
    await _fill(db)
    async with BigBrotr(
        database.host,
        database.port,
        database.reader_user,
        database.reader_password,
        database.dbname,
        min_pool_size=1,
    ) as reader:
        for statement in _statements(block):
            assert await reader.fetch(statement)


async def test_statistics_name_the_relay_and_its_last_check(db: BigBrotr) -> None:
    await _fill(db)
    row = await db.fetchone(BLOCKS[6])
    assert row is not None
    assert dict(row) == {
        "url": "wss://relay.example.com",
        "network": "clearnet",
        "event_count": 20,
        "last_check": 2,
        "readable": True,
        "rtt_read": 9,
    }


async def test_wrapper_queries_run_as_printed(db: BigBrotr) -> None:
    await _fill(db)
    url, event_id = "wss://relay.example.com", sample_event(3).id
    assert len(await db.fetch("SELECT * FROM relays")) == 1
    row = await db.fetchone("SELECT * FROM relays WHERE url = $1", url)
    assert row is not None
    assert row["url"] == url
    assert await db.execute("DELETE FROM events WHERE id = $1", event_id) == "DELETE 1"


def test_no_sql_of_the_specification_is_left_out() -> None:
    if not SPECIFICATION.exists():
        return
    text = SPECIFICATION.read_text()
    printed = re.findall(r"^ *```sql\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    assert [textwrap.dedent(block).strip() for block in printed] == list(BLOCKS)
    assert all(statement in text for statement in INLINE)
