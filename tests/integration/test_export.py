"""Export and import: whatever was signed comes out as it went in, and goes in again."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transfer.reading
from bigbrotr import BigBrotr
from components.databases import Cluster, Database
from components.odd_events import EVENTS, LARGE, OddEvent, odd_event, serialized_again
from components.pages import blocks
from components.sample_events import corpus_events, sample_event
from components.services import run, running
from config_types import DatabaseConfig, ToolConfig
from event_rows import known_ids, write_events
from export import export
from import_events import import_lines
from nostr.events import SignedEvent, encode_event, parse_event, storage_obstacle
from nostr.filters import clean_filter, matches
from nostr.messages import EventMessage, decode_message
from nostr.urls import RelayUrl, to_relay
from process_relay import insert_batch
from transfer.importing import ImportReport
from transfer.lines import SeenAt, encode_line
from transfer.reading import ReadBatch, read_events
from transfer.selection import Selection, event_conditions

ROOT = Path(__file__).parents[2]
RELAY = RelayUrl.parse("wss://relay.example.com")
OTHER = RelayUrl.parse("wss://other.example.com/path")
SEEN_AT = 1_700_000_500


def settings_of(database: Database, role: str = "writer") -> DatabaseConfig:
    return DatabaseConfig(
        host=database.host,
        port=database.port,
        user=getattr(database, f"{role}_user"),
        password=getattr(database, f"{role}_password"),
        dbname=database.dbname,
        min_pool=1,
        max_pool=2,
    )


async def exported(database: Database, flt: dict[str, Any] | None = None, **how: Any) -> bytes:
    """What the export writes, as the reader."""
    pieces: list[bytes] = []
    selection = Selection(clean_filter(flt or {})[0], how.pop("relay", None))
    report = await export(settings_of(database, "reader"), selection, pieces.append, **how)
    written = b"".join(pieces)
    assert (report.events, report.bytes) == (written.count(b"\n"), len(written))
    assert report.damaged == 0
    return written


async def imported(database: Database, text: bytes, **how: Any) -> ImportReport:
    config = ToolConfig(database=settings_of(database), allow_private_relays=False)
    return await import_lines(config, iter(enumerate(text.split(b"\n"), 1)), **how)


def received(event: OddEvent) -> object:
    """The event as it is decoded when a relay sends it."""
    message = decode_message(b'["EVENT","s",' + event.wire + b"]")
    assert isinstance(message, EventMessage)
    return message.event


async def archive(database: Database, events: Sequence[OddEvent]) -> None:
    async with BigBrotr.from_config(settings_of(database)) as db:
        await insert_batch(db, [received(event) for event in events], to_relay(RELAY), SEEN_AT)


async def write(db: BigBrotr, events: Sequence[SignedEvent], relay: RelayUrl = RELAY) -> None:
    await db.run_in_transaction(lambda conn: write_events(conn, relay, SEEN_AT, events))


def ids_of(text: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in text.splitlines()]


async def check_round_trip(first: Database, second: Database, events: Sequence[OddEvent]) -> None:
    by_id = {event.id: event for event in events}
    await archive(first, events)
    plain = await exported(first)
    lines = plain.splitlines()
    assert sorted(ids_of(plain)) == sorted(by_id)
    for line in lines:
        event = by_id[json.loads(line)["id"]]
        assert serialized_again(line, event.spelling) == event.serialized

    report = await imported(second, plain)
    assert (report.new, report.refused.total()) == (len(by_id), 0)
    assert await exported(second) == plain
    assert (await imported(second, plain)).new == 0

    whole = await exported(first, with_relays=True)
    report = await imported(second, whole)
    assert (report.new, report.known, report.sightings) == (0, len(by_id), len(by_id))
    assert await exported(second, with_relays=True) == whole
    assert (await imported(second, whole)).sightings == 0


async def empty(*databases: Database) -> None:
    for database in databases:
        owner = replace(
            settings_of(database, "owner"), host=database.direct_host, port=database.direct_port
        )
        async with BigBrotr.from_config(owner) as db:
            await db.execute("TRUNCATE relays, events, events_raw CASCADE")


def test_any_event_comes_back_to_the_last_bit(cluster: Cluster, database: Database) -> None:
    second = cluster.create_database()

    @settings(max_examples=25)
    @given(st.lists(EVENTS, min_size=1, max_size=40))
    def check(events: list[OddEvent]) -> None:
        async def example() -> None:
            await empty(database, second)
            await check_round_trip(database, second, events)

        asyncio.run(example())

    try:
        check()
    finally:
        cluster.drop_database(second.dbname)


@pytest.fixture
def second(cluster: Cluster) -> Any:
    """Another empty archive."""
    fresh = cluster.create_database()
    yield fresh
    cluster.drop_database(fresh.dbname)


async def test_large_events_come_back(database: Database, second: Database) -> None:
    await check_round_trip(database, second, LARGE)


async def test_the_corpus_comes_back(database: Database, second: Database) -> None:
    # None where there is no corpus: then there is nothing more to say than above.
    events = corpus_events() or [sample_event(n) for n in range(50)]
    text = b"".join(encode_line(event, [SeenAt(RELAY.url, SEEN_AT)]) for event in events)
    report = await imported(database, text)
    assert (report.lines, report.new + report.known) == (len(events), len(events))
    first = await exported(database, with_relays=True)
    assert {parse_event(json.loads(line)["event"]).id for line in first.splitlines()} == {
        event.id for event in events
    }
    await imported(second, first)
    assert await exported(second, with_relays=True) == first


async def test_the_order_is_that_of_nip_01_over_both_tables(
    database: Database, db: BigBrotr
) -> None:
    events = [
        odd_event([], content, created_at)
        for created_at in (0, 5, 2**63 - 1, 2**63, 2**64, 10**21 + 1)
        for content in ("plain", "nul \0", "more")
    ]
    await archive(database, events)
    objects = [json.loads(line) for line in (await exported(database)).splitlines()]
    order = sorted(objects, key=lambda event: (-event["created_at"], event["id"]))
    assert objects == order
    assert len(objects) == len(events)
    newest = (await exported(database, {"limit": 5})).splitlines()
    assert [json.loads(line) for line in newest] == order[:5]
    assert len(await db.fetch("SELECT FROM events_raw")) > 0


@pytest.mark.parametrize(
    "flt",
    [
        {"kinds": [1, 7]},
        {"kinds": [7], "limit": 3},
        {"limit": 0},
        {"since": 1_700_000_010, "until": 1_700_000_020},
        {"since": 2**63},
        {"since": 2**70, "until": 2**80},
        {"until": 2**63},
        {"#t": ["even"]},
        {"#t": ["even", "odd"], "#e": ["a" * 64], "kinds": [1]},
        {"#t": ["nul \0", "lone \ud800"]},
        {"#t": ["x" * 3_000]},
        {"#t": ["sha256:" + "0" * 64, "'; DROP TABLE events; --"]},
        {"#T": ["even"]},
        {"authors": [sample_event().pubkey], "kinds": [30_023]},
        {"authors": ["0" * 64]},
        {"ids": [sample_event(3, tags=[["t", "odd"]]).id, "0" * 64]},
    ],
    ids=lambda flt: json.dumps(flt)[:40],
)
async def test_a_filter_selects_what_nip_01_says(database: Database, flt: dict[str, Any]) -> None:
    tags = [["t", "even"], ["t", "odd"], ["e", "a" * 64], ["t", "x" * 3_000], ["T", "even"]]
    events = [
        sample_event(
            n, kind=(1, 7, 30_023)[n % 3], tags=[tags[n % 5], ["t", ("even", "odd")[n % 2]]]
        )
        for n in range(30)
    ]
    events.append(sample_event(3, tags=[["t", "odd"]]))
    odd = [
        odd_event([["t", "nul \0"], ["t", "even"]], created_at=1_700_000_015),
        odd_event([["t", "lone \ud800"]], kind=7),
        odd_event([["t", "odd"], [["t"]]], created_at=2**63),
    ]
    await archive(database, odd)
    async with BigBrotr.from_config(settings_of(database)) as db:
        await write(db, events)
    everything = [*events, *(parse_event(received(event)) for event in odd)]
    chosen = sorted(
        (event for event in everything if matches(event, flt)),
        key=lambda event: (-event.created_at, event.id),
    )[: flt.get("limit")]
    assert await exported(database, flt) == b"".join(map(encode_line, chosen))


async def test_tag_keys_are_those_of_the_index(db: BigBrotr) -> None:
    for value in ("", "a", "é" * 500, "é" * 501, "x" * 1_000, "x" * 1_001, "\\" * 2_000, "sha256:"):
        row = await db.fetchone("SELECT tag_key('t', $1) AS key", value)
        assert event_conditions(Selection({"#t": [value]})).parameters == ([row["key"]],)


async def test_a_tag_is_found_by_its_index(database: Database, cluster: Cluster) -> None:
    connection = await cluster.connect(database.dbname)
    try:
        await connection.execute(
            """
            INSERT INTO events (id, pubkey, created_at, kind, tags, content, sig)
            SELECT encode(sha256(n::text::bytea), 'hex'), repeat('0', 64), n, 1,
                   jsonb_build_array(jsonb_build_array('t', 'x' || n % 1000)), '', repeat('0', 128)
            FROM generate_series(1, 20000) AS n
            """
        )
        await connection.execute("ANALYZE events")
        chosen = event_conditions(Selection({"#t": ["x5"]}))
        plan = await connection.fetch(
            f"EXPLAIN SELECT id FROM events WHERE {chosen.where} ORDER BY created_at DESC, id",
            *chosen.parameters,
        )
        assert "idx_events_tagvalues" in str(plan)
    finally:
        await connection.close()


async def test_one_relay_and_the_relays_of_each_event(database: Database, db: BigBrotr) -> None:
    events = [sample_event(n) for n in range(4)]
    await write(db, events[:3])
    await write(db, events[1:], OTHER)
    await archive(database, LARGE[:1])
    assert set(ids_of(await exported(database, relay=OTHER))) == {e.id for e in events[1:]}
    assert len(ids_of(await exported(database, relay=RELAY))) == 4
    listed = {
        obj["event"]["id"]: [(relay["url"], relay["seen_at"]) for relay in obj["relays"]]
        for obj in map(json.loads, (await exported(database, with_relays=True)).splitlines())
    }
    assert listed[events[0].id] == [(RELAY.url, SEEN_AT)]
    assert listed[events[1].id] == [(OTHER.url, SEEN_AT), (RELAY.url, SEEN_AT)]
    assert listed[LARGE[0].id] == [(RELAY.url, SEEN_AT)]


async def test_a_limit_ends_the_reading(db: BigBrotr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.reading, "BATCH_EVENTS", 2)
    await write(db, [sample_event(n) for n in range(10)])
    async with db.snapshot() as conn:
        batches = [batch async for batch in read_events(conn, Selection({"limit": 3}))]
    assert [len(batch.events) for batch in batches] == [2, 1]


async def test_what_is_archived_meanwhile_is_not_exported(
    database: Database, db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.reading, "BATCH_EVENTS", 2)
    monkeypatch.setattr(transfer.reading, "_KEYS_PER_FETCH", 2)
    await write(db, [sample_event(n) for n in range(10)])
    seen: list[str] = []
    async with db.snapshot() as conn:
        async for batch in read_events(conn, Selection(), with_relays=True):
            seen += [event.id for event in batch.events]
            await write(db, [sample_event(len(seen) * 100)])
            await write(db, [sample_event(-len(seen) * 100)])
            await db.execute("DELETE FROM events WHERE id = $1", sample_event(0).id)
    assert sorted(seen) == sorted(sample_event(n).id for n in range(10))


async def test_an_event_in_both_tables_is_exported_once(database: Database, db: BigBrotr) -> None:
    await write(db, [sample_event()])
    await db.execute(
        "INSERT INTO events_raw VALUES ($1, $2, $3, '22P05', 3), ($1, NULL, $3, '22P05', 4)",
        sample_event().id,
        RELAY.url,
        encode_event(sample_event()),
    )
    (line,) = (await exported(database, with_relays=True)).splitlines()
    assert json.loads(line)["relays"] == [{"url": RELAY.url, "seen_at": 3}]


@asynccontextmanager
async def batches_of(db: BigBrotr) -> AsyncIterator[list[ReadBatch]]:
    async with db.snapshot() as conn:
        yield [batch async for batch in read_events(conn, Selection(), with_relays=True)]


async def test_batches_are_bounded_in_number_and_bytes(
    database: Database, db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.reading, "BATCH_EVENTS", 7)
    monkeypatch.setattr(transfer.reading, "BATCH_BYTES", 50_000)
    await archive(database, LARGE)
    compressible = [sample_event(n, content="x" * 30_000) for n in range(10)]
    await write(db, [*compressible, *(sample_event(100 + n) for n in range(50))])
    async with batches_of(db) as batches:
        assert sum(len(batch.events) for batch in batches) == 60 + len(LARGE)
        for batch in batches:
            size = sum(map(len, map(encode_event, batch.events)))
            assert len(batch.events) == 1 or (len(batch.events) <= 7 and size < 60_000)


async def test_a_damaged_row_is_named_and_left_out(database: Database, db: BigBrotr) -> None:
    await write(db, [sample_event(n) for n in range(3)])
    owner = replace(
        settings_of(database, "owner"), host=database.direct_host, port=database.direct_port
    )
    async with BigBrotr.from_config(owner) as admin:
        await admin.execute("UPDATE events SET content = 'x' WHERE id = $1", sample_event(1).id)
    await db.execute(
        "INSERT INTO events_raw VALUES (repeat('f', 64), $1, 'no JSON', 'nul', 3)", RELAY.url
    )
    code, output = await run("export", database.environment(), "--output", "/dev/null")
    assert code == 1
    assert f"left out 2 rows that are not what their id says: {sample_event(1).id}" in output
    assert "ffffffff" in output


async def test_bad_lines_are_counted_and_the_others_archived(
    database: Database, db: BigBrotr
) -> None:
    good = [sample_event(n) for n in range(4)]
    forged = good[1]._replace(sig=good[0].sig)
    lines = [
        encode_line(good[0]),
        b"garbage\n",
        b"\n",
        encode_line(forged),
        encode_line(good[1]),  # the same id, with the right signature
        encode_line(good[2]._replace(content="altered")),
        b"{}\n",
        b"\xff\xfe\n",
        b"[1]\r\n",
        encode_line(good[2], [SeenAt("wss://127.0.0.1", 1), SeenAt("http://x.example", 1)]),
        b'{"event":' + encode_event(good[3]) + b',"relays":[{"url":1,"seen_at":2},7]}\r\n',
        encode_line(good[3], [SeenAt(OTHER.url, 9), SeenAt(OTHER.url, 8)]),
        b'{"event":' + encode_event(good[3]) + b"}",
    ]
    report = await imported(database, b"".join(lines))
    assert report.refused == {
        "malformed-line": 2,
        "malformed": 2,
        "wrong-id": 1,
        "wrong-signature": 1,
        "relay-private-address": 1,
        "relay-not-websocket": 1,
        "relay-malformed": 2,
    }
    assert report.examples["malformed-line"] == [2, 8]
    assert report.examples["wrong-signature"] == [4]
    assert (report.lines, report.new, report.known) == (12, 4, 2)
    assert await known_ids(db, [event.id for event in good]) == {event.id for event in good}
    (sighting,) = await db.fetch("SELECT * FROM events_relays")
    assert tuple(sighting) == (good[3].id, OTHER.url, 8)


async def test_many_batches_and_a_named_relay(
    database: Database, db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer.importing.BATCH_LINES", 7)
    events = [sample_event(n) for n in range(40)]
    text = b"".join(encode_line(event) for event in [*events, *events[:20]])
    report = await imported(database, text, relay=RELAY)
    assert (report.new, report.known, report.sightings) == (40, 20, 40)
    assert len(ids_of(await exported(database, relay=RELAY))) == 40


async def test_what_was_known_and_is_deleted_meanwhile_is_checked_and_written(
    database: Database, db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def as_if_known(reader: Any, ids: Sequence[str]) -> set[str]:
        asked.append(len(ids))
        return set(ids) if len(asked) == 1 else await known_ids(reader, ids)

    monkeypatch.setattr("transfer.importing.known_ids", as_if_known)
    good, forged = sample_event(1), sample_event(2)._replace(sig=sample_event(1).sig)
    report = await imported(database, encode_line(good) + encode_line(forged))
    assert (report.new, report.known, report.refused) == (1, 0, {"wrong-signature": 1})
    assert ids_of(await exported(database)) == [good.id]


async def test_events_beyond_the_columns_are_kept_without_a_relay(
    database: Database, db: BigBrotr
) -> None:
    nul = LARGE[0]
    assert storage_obstacle(parse_event(received(nul))) == "nul"
    for known in (0, 1):
        report = await imported(database, nul.wire)
        assert (report.new, report.known) == (1 - known, known)
    (row,) = await db.fetch("SELECT relay_url FROM events_raw")
    assert row["relay_url"] is None
    await imported(database, nul.wire, relay=RELAY)
    await archive(database, [nul])
    assert len(await db.fetch("SELECT FROM events_raw")) == 2
    assert ids_of(await exported(database)) == [nul.id]


@pytest.mark.parametrize(
    ("program", "arguments", "code", "says"),
    [
        ("export", ["--filter", "{"], 2, "export: --filter is not JSON: '{'"),
        ("export", ["--filter", "[]"], 2, "export: --filter is '[]': give a JSON object"),
        ("export", ["--filter", '{"kinds":1}'], 2, "export: filter key 'kinds' must be"),
        ("export", ["--relay", "relay"], 2, "export: relay URL refused"),
        ("export", ["--output", "/no/such/place"], 1, "export: /no/such/place: No such file"),
        ("export", ["--output", "/tmp"], 1, "export: /tmp: Is a directory"),
        ("import_events", ["--relay", "wss://10.0.0.1"], 2, "relay URL refused (private-address)"),
        ("import_events", ["/no/such/file"], 1, "import_events: /no/such/file: No such file"),
    ],
)
async def test_bad_input_is_one_line(
    database: Database, program: str, arguments: list[str], code: int, says: str
) -> None:
    ended, output = await run(program, database.environment(), *arguments)
    assert ended == code
    assert says in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("program", ["export", "import_events"])
async def test_no_database_is_one_line(database: Database, program: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"{}\n")
    env = {**database.environment(), "POSTGRES_PORT": "1"}
    arguments = (
        ["--output", str(tmp_path / "out")] if program == "export" else [str(tmp_path / "in")]
    )
    code, output = await run(program, env, *arguments)
    assert code == 1
    assert "check POSTGRES_HOST" in output
    assert len(output.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


async def test_an_import_that_was_killed_goes_on_when_it_is_run_again(
    database: Database, db: BigBrotr, tmp_path: Path
) -> None:
    events = [sample_event(n) for n in range(4_000)]
    lines = [encode_line(event, [SeenAt(RELAY.url, SEEN_AT)]) for event in events]
    whole, pipe = tmp_path / "whole", tmp_path / "pipe"
    whole.write_bytes(b"".join(lines))
    os.mkfifo(pipe)
    async with running("import_events", database.environment(), str(pipe)) as program:
        # More than two batches, and the end does not come.
        with await asyncio.to_thread(pipe.open, "wb") as file:
            await asyncio.to_thread(file.write, b"".join(lines[:3_500]))
            await asyncio.to_thread(file.flush)
            async with asyncio.timeout(30):
                while not await db.fetch("SELECT FROM events LIMIT 1"):
                    await asyncio.sleep(0.02)
            program.kill()
            await program.ends()
    for new_is_wanted in (True, False):
        code, output = await run("import_events", database.environment(), str(whole))
        assert code == 0
        assert ("4,000 events, 0 new, 4,000 known" not in output) == new_is_wanted
    assert sorted(ids_of(await exported(database, relay=RELAY))) == sorted(e.id for e in events)


async def test_an_import_that_waits_for_lines_can_be_stopped(
    database: Database, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with running("import_events", database.environment(), str(tmp_path / "pipe")) as program:
        with await asyncio.to_thread((tmp_path / "pipe").open, "wb") as file:
            file.write(b"{}\n")
            file.flush()
            os.kill(program.process.pid, signal.SIGINT)
            assert await program.ends() == 130


async def test_the_reader_may_not_import(database: Database, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(encode_line(sample_event()))
    env = {
        **database.environment(),
        "POSTGRES_USER": database.reader_user,
        "POSTGRES_PASSWORD": database.reader_password,
    }
    code, output = await run("import_events", env, str(tmp_path / "in"))
    assert code == 1
    assert "check POSTGRES_USER" in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stopped_export_leaves_no_file(
    database: Database, db: BigBrotr, tmp_path: Path, number: signal.Signals
) -> None:
    """It is stopped while it waits for a lock, with the file open."""
    out = tmp_path / "out.jsonl"
    out.write_text("older")
    owner = replace(
        settings_of(database, "owner"), host=database.direct_host, port=database.direct_port
    )
    async with BigBrotr.from_config(owner) as admin:

        async def hold(conn: Any) -> None:
            await conn.execute("LOCK TABLE events")
            async with running("export", database.environment(), "--output", str(out)) as program:
                async with asyncio.timeout(30):
                    while not await conn.fetchval(
                        "SELECT count(*) FROM pg_locks WHERE NOT granted"
                    ):
                        await asyncio.sleep(0.02)
                assert len(list(tmp_path.iterdir())) == 2
                os.kill(program.process.pid, number)
                assert await program.ends() == 128 + number
                assert program.output == ""

        await admin.run_in_transaction(hold)
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert out.read_text() == "older"


async def test_a_closed_pipe_is_one_line(database: Database, db: BigBrotr) -> None:
    await write(db, [sample_event(n, content="x" * 1_000) for n in range(500)])
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} {ROOT}/src/export.py | true; echo ${{PIPESTATUS[0]}}",
        executable="/bin/bash",
        env={**os.environ, **database.environment()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert output.split() == [b"1"]
    assert errors.decode().splitlines() == ["export: standard output: closed by its reader"]


async def test_documented_commands_run(database: Database, db: BigBrotr, tmp_path: Path) -> None:
    block, _ = blocks("export.md", "Commands")  # the other one needs Docker
    assert block.count("python src/") == 5
    await write(db, [sample_event(n, tags=[["t", "nostr"]]) for n in range(5)])
    (tmp_path / "src").symlink_to(ROOT / "src")
    process = await asyncio.create_subprocess_shell(
        f"set -e -o pipefail\n{block}",
        executable="/bin/bash",
        cwd=tmp_path,
        env={
            **os.environ,
            **database.environment(),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert output.split() == [b"5"]
    assert (tmp_path / "archive.jsonl.zst").read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    assert len((tmp_path / "relay.jsonl").read_bytes().splitlines()) == 5
    assert b"export: done: 5 events" in errors
    assert b"import_events: done: 5 events" in errors
    assert b"0 new, 5 known" in errors
