"""Every ```sql block of README.md and docs/ runs as printed: as the reader, through PgBouncer, or
past it as the owner where the block says so."""

import re

import asyncpg
import pytest

from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from components.pages import PAGES, read_page
from components.sample_events import sample_event
from event_rows import RawEvent, write_events
from nostr.urls import RelayUrl

AS_THE_OWNER = "-- as the owner"


def queries(page: str) -> list[str]:
    return [block.text for block in read_page(page) if block.language == "sql"]


def statements(block: str) -> list[str]:
    code = re.sub(r"--.*", "", block)
    return [statement.strip() for statement in code.split(";") if statement.strip()]


PAGES_WITH_SQL = [page for page in PAGES if queries(page)]


async def fill(db: BigBrotr) -> None:
    """Something in each table that the pages query."""
    relay = RelayUrl.parse("wss://relay.damus.io")
    events = [sample_event(number) for number in range(5)]
    raw = RawEvent("f" * 64, b'{"content":"\\u0000"}', "nul")
    await db.run_in_transaction(
        lambda conn: write_events(
            conn, relay, 1_700_000_100, events, raw=[raw], refused={"wrong-id": 2}
        )
    )
    await db.execute(
        "SELECT insert_relay_metadata($1, 'clearnet', 1, 1700000000, $2::jsonb, $3::jsonb)",
        relay.url,
        '{"software": "strfry"}',
        '{"openable": true, "readable": true, "writable": false, "rtt_open": 5, "rtt_read": 7}',
    )
    await db.execute("INSERT INTO sync_filters VALUES (repeat('0', 64), '{}')")
    await db.execute(
        """INSERT INTO sync_coverage
           VALUES ($1, repeat('0', 64), '{[0,50),[60,90)}', '[0,100)', 1700000000)""",
        relay.url,
    )
    await db.execute(
        """INSERT INTO sync_gaps
           VALUES ($1, repeat('0', 64), '[90,91)', 'saturated', '', 1700000000, 1700000000)""",
        relay.url,
    )
    await db.execute(
        """INSERT INTO relay_tasks (purpose, relay_url, not_before, last_outcome, updated_at)
           VALUES ('monitor', $1, 4000000000, 'ok', 1700000000)""",
        relay.url,
    )


async def run(connection: asyncpg.Connection, block: str) -> None:
    for statement in statements(block):
        try:
            await connection.execute(statement)
        except asyncpg.PostgresError as error:
            pytest.fail(f"{error}\nin:\n{statement}")


@pytest.mark.parametrize("page", PAGES_WITH_SQL)
async def test_documented_sql_runs(
    page: str, database: Database, cluster: Cluster, db: BigBrotr
) -> None:
    await fill(db)
    reader = await asyncpg.connect(
        host=database.host,
        port=database.port,
        user=database.reader_user,
        password=database.reader_password,
        database=database.dbname,
        statement_cache_size=0,
    )
    owner = await asyncpg.connect(
        host=database.direct_host,
        port=database.direct_port,
        user=database.owner_user,
        password=database.owner_password,
        database=database.dbname,
    )
    # Not the owner of this cluster, who would be locked out.
    cluster.administer("CREATE ROLE documented")
    try:
        for block in queries(page):
            if AS_THE_OWNER not in block:
                await run(reader, block)
        for block in queries(page):
            if AS_THE_OWNER in block:
                await run(owner, block.replace("ALTER ROLE admin", "ALTER ROLE documented"))
    finally:
        await reader.close()
        await owner.close()
        cluster.administer("DROP ROLE documented")


async def test_printed_answers_to_what_is_missing(database: Database, db: BigBrotr) -> None:
    """The query of the proof page lists exactly the seconds that are wanted and not covered."""
    await fill(db)
    (query,) = [block for block in queries("proof.md") if "AS missing" in block]
    rows = await db.fetch(query)
    seconds = [(row["since"].timestamp(), row["until"].timestamp()) for row in rows]
    assert seconds == [(50, 60), (90, 100)]


def test_there_are_blocks_on_the_pages_that_promise_them() -> None:
    assert len(queries("README.md")) >= 3
    assert len(queries("schema.md")) >= 12
    assert any(AS_THE_OWNER in block for block in queries("maintenance.md"))
