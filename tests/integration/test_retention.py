"""Retention: what it removes, and that the ledger and its views never claim what was removed."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bigbrotr import BigBrotr
from components.archiving import SERVICE, settings
from components.databases import Cluster, Database
from components.services import run
from components.sessions import archived, synchronize, true_ids, unproven
from event_rows import RawEvent, write_events
from nostr.events import encode_event, parse_event
from nostr.filters import filter_hash
from nostr.urls import RelayUrl
from scripted_relay import ScriptedRelay, make_event
from sync import ledger
from sync.windows import Window

DAY = 86_400
NOW = int(time.time())
WANTED = Window(NOW - 100 * DAY, NOW - DAY)
KEPT_DAYS = 30
CUT = NOW - KEPT_DAYS * DAY


@pytest.fixture
async def owner(cluster: Cluster, database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await cluster.connect(database.dbname)
    yield connection
    await connection.close()


def aged(days: int, kind: int = 1, content: str = "") -> dict[str, Any]:
    """Half a day younger, so that a slow run of the tests changes nothing."""
    return make_event(created_at=NOW - days * DAY + DAY // 2, kind=kind, content=content)


EVENTS = [aged(days, kind) for days in range(2, 100) for kind in (1, 7)]


def younger(days: int) -> set[str]:
    return true_ids([event for event in EVENTS if event["created_at"] >= NOW - days * DAY])


async def held(db: BigBrotr) -> set[str]:
    return {row["id"] for row in await db.fetch("SELECT id FROM events")}


async def progress(db: BigBrotr, url: str) -> asyncpg.Record:
    (row,) = await db.fetch("SELECT * FROM sync_progress WHERE relay_url = $1", url)
    return row


async def test_by_age_and_the_ledger_is_cut_too(
    db: BigBrotr, owner: asyncpg.Connection, database: Database, tmp_path: Path
) -> None:
    async with ScriptedRelay(EVENTS) as relay:
        url = relay.url.url
        env = settings(database, [url], tmp_path, SYNCHRONIZER_START_TIMESTAMP=WANTED.since)
        env["SYNCHRONIZER_STOP_TIMESTAMP"] = str(WANTED.until)
        assert (await run(SERVICE, env, "--once"))[0] == 0
        assert await held(db) == true_ids(EVENTS)
        assert (await progress(db, url))["proven_percent"] == 100

        await owner.execute("INSERT INTO retention (kind, keep_days) VALUES (NULL, $1)", KEPT_DAYS)
        await owner.execute("CALL apply_retention(10)")

        assert await held(db) == younger(KEPT_DAYS)
        rule = await owner.fetchrow("SELECT * FROM retention")
        assert CUT <= rule["removed_before"] <= CUT + 600
        assert rule["removed_events"] == len(EVENTS) - len(younger(KEPT_DAYS))
        cut = Window(WANTED.since, rule["removed_before"] - 1)
        assert await unproven(db, url, WANTED) == [cut]
        shown = await progress(db, url)
        assert shown["target_from"] == rule["removed_before"]
        assert (shown["proven_percent"], shown["removed_kinds"]) == (100, [])

        # What was removed on purpose is not asked for again, nor claimed.
        asked = len(relay.requests)
        assert (await run(SERVICE, env, "--once"))[0] == 0
        assert all(request["since"] >= cut.until for request in relay.requests[asked:])
        assert await held(db) == younger(KEPT_DAYS)
        assert await unproven(db, url, WANTED) == [cut]

        # Without the rule it is wanted again.
        await owner.execute("DELETE FROM retention")
        assert (await run(SERVICE, env, "--once"))[0] == 0
        assert await held(db) == true_ids(EVENTS)
        assert await unproven(db, url, WANTED) == []


async def test_by_kind_and_progress_names_the_kind(db: BigBrotr, owner: asyncpg.Connection) -> None:
    async with ScriptedRelay(EVENTS) as relay:
        url = relay.url.url
        await synchronize(db, url, WANTED)
        await owner.execute("INSERT INTO retention (kind, keep_days) VALUES (7, $1)", KEPT_DAYS)
        assert (await progress(db, url))["removed_kinds"] == []
        await owner.execute("CALL apply_retention()")

        reactions = true_ids([event for event in EVENTS if event["kind"] == 7])
        assert await held(db) == true_ids(EVENTS) - (reactions - younger(KEPT_DAYS))
        shown = await progress(db, url)
        assert (shown["proven_percent"], shown["removed_kinds"]) == (100, [7])

        # Whoever drops the rule wants the events again.
        await owner.execute("DELETE FROM retention")
        assert len(await unproven(db, url, WANTED)) == 1
        await synchronize(db, url, WANTED)
        assert await held(db) == true_ids(EVENTS)
        assert (await progress(db, url))["removed_kinds"] == []


@pytest.mark.parametrize(
    ("flt", "named"), [("{}", True), ('{"kinds": [1, 7]}', True), ('{"kinds": [1]}', False)]
)
async def test_a_kind_is_named_where_the_filter_takes_it(
    db: BigBrotr, owner: asyncpg.Connection, flt: str, named: bool
) -> None:
    await db.execute("SELECT insert_relay('wss://a.example', 'clearnet', 1)")
    await db.execute("INSERT INTO sync_filters VALUES (repeat('a', 64), $1)", flt)
    await db.execute(
        "INSERT INTO sync_coverage VALUES "
        "('wss://a.example', repeat('a', 64), '{[5,99)}', '[5,99)', 99)"
    )
    await owner.execute("INSERT INTO retention (kind, keep_days) VALUES (7, 1)")
    await owner.execute("CALL apply_retention()")
    assert (await progress(db, "wss://a.example"))["removed_kinds"] == ([7] if named else [])
    await owner.execute("UPDATE retention SET kind = 8")
    row = await db.fetchone("SELECT isempty(covered) FROM sync_coverage")
    assert row == (named,)


async def test_events_kept_as_bytes_are_removed_as_well(
    db: BigBrotr, owner: asyncpg.Connection
) -> None:
    relay = RelayUrl.parse("wss://a.example")
    events = [aged(50, 1, "\0"), aged(50, 7, "\0"), aged(5, 7, "\0")]
    nul = [RawEvent(event["id"], encode_event(parse_event(event)), "nul") for event in events]
    foreign = RawEvent("f" * 64, b'{"kind":7}', "nul")
    await db.run_in_transaction(
        lambda conn: write_events(conn, relay, NOW, [], raw=[*nul, foreign])
    )

    async def kept() -> set[str]:
        return {row["id"] for row in await db.fetch("SELECT id FROM events_raw")}

    await owner.execute("INSERT INTO retention (kind, keep_days) VALUES (7, 30)")
    await owner.execute("CALL apply_retention()")
    assert await kept() == {nul[0].id, nul[2].id, foreign.id}
    await owner.execute("INSERT INTO retention (keep_days) VALUES (30)")
    await owner.execute("CALL apply_retention()")
    assert await kept() == {nul[2].id, foreign.id}
    assert await owner.fetchval("SELECT sum(removed_events) FROM retention") == 2


async def test_an_interrupted_run_leaves_no_false_claim(
    db: BigBrotr, owner: asyncpg.Connection
) -> None:
    async with ScriptedRelay(EVENTS) as relay:
        url = relay.url.url
        await synchronize(db, url, WANTED)
        await owner.execute("INSERT INTO retention (keep_days) VALUES (1)")
        stubborn = aged(50)["id"]
        await owner.execute(
            f"""
            CREATE FUNCTION fail() RETURNS TRIGGER LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'interrupted'; END $$;
            CREATE TRIGGER fail BEFORE DELETE ON events
            FOR EACH ROW WHEN (OLD.id = '{stubborn}') EXECUTE FUNCTION fail();
            """
        )
        with pytest.raises(asyncpg.RaiseError, match="interrupted"):
            await owner.execute("CALL apply_retention(10)")
        have = await held(db)
        assert 0 < len(have) < len(EVENTS), "the batches before were committed"
        lost = [event for event in EVENTS if event["id"] not in have]
        left = await unproven(db, url, WANTED)
        assert all(any(w.since <= e["created_at"] <= w.until for w in left) for e in lost)
        removed_before = await ledger.kept_from(db)
        assert all(event["created_at"] < removed_before for event in lost)


async def test_an_event_that_a_writer_refers_to_is_left(
    db: BigBrotr, owner: asyncpg.Connection, database: Database, cluster: Cluster
) -> None:
    async with ScriptedRelay(EVENTS) as relay:
        await synchronize(db, relay.url.url, WANTED)
    await owner.execute("INSERT INTO retention (keep_days) VALUES (1)")
    await db.execute("SELECT insert_relay('wss://b.example', 'clearnet', 1)")
    busy = aged(70)["id"]
    writer = await cluster.connect(database.dbname)
    try:
        async with writer.transaction():
            await writer.execute("SELECT insert_sightings($1, 'wss://b.example', 1)", [busy])
            await owner.execute("CALL apply_retention()")
            assert await held(db) == {busy}
        assert await archived(db, "wss://b.example") == {busy}
    finally:
        await writer.close()
    await owner.execute("CALL apply_retention()")
    assert await held(db) == set()


async def test_it_waits_for_a_commit_of_many_relays_and_never_deadlocks(
    db: BigBrotr, owner: asyncpg.Connection, database: Database, cluster: Cluster
) -> None:
    target, name = Window(1_000, 1_999), filter_hash({})
    entries = [ledger.Entry(f"wss://{letter}.example", name, target, [target]) for letter in "ab"]
    await ledger.register_filter(db, name, {})
    for entry in reversed(entries):
        await db.execute("SELECT insert_relay($1, 'clearnet', 1)", entry.relay_url)
        await db.run_in_transaction(lambda conn, entry=entry: ledger.record(conn, [entry]))
    await owner.execute("INSERT INTO retention (keep_days) VALUES (1)")
    writer = await cluster.connect(database.dbname)
    try:
        async with writer.transaction():
            await ledger.record(writer, entries[:1])
            retention = asyncio.create_task(owner.execute("CALL apply_retention()"))
            async with asyncio.timeout(30):
                while not await db.fetch("SELECT FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.02)
            await ledger.record(writer, entries[1:])
        await retention
    finally:
        await writer.close()
    rows = await db.fetch("SELECT isempty(covered) AS cut FROM sync_coverage")
    assert [row["cut"] for row in rows] == [True, True]


async def test_rules_that_make_no_sense_are_refused(owner: asyncpg.Connection) -> None:
    for values in ("(NULL, 0)", "(NULL, -1)", "(70000, 5)", "(1, NULL)"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await owner.execute(f"INSERT INTO retention (kind, keep_days) VALUES {values}")
    await owner.execute("INSERT INTO retention (keep_days) VALUES (5)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await owner.execute("INSERT INTO retention (keep_days) VALUES (6)")
