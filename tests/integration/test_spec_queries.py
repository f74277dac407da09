"""The queries, maintenance calls and tuning commands of the specification run as printed."""

import re
import textwrap
from pathlib import Path

import pytest

from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from components.sample_events import sample_event
from components.spec_queries import BLOCKS, INLINE, OF_READERS, statements
from event_rows import write_events
from nostr.urls import RelayUrl

SPECIFICATION = Path(__file__).parents[3] / "shared" / "spec" / "bigbrotr-specification.md"


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
        for statement in statements(block):
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
        for statement in statements(block):
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
