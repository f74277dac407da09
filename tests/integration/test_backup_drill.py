"""Every command of docs/backup.md, as printed: what is restored is what was there."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace

import asyncpg
import pytest

from bigbrotr import BigBrotr
from components.documented import DATABASE, PASSWORDS, Host, create_archive, host
from components.pages import blocks, cron_command
from components.sample_events import sample_event
from event_rows import RawEvent, write_events
from migrate import check_schema, migrate
from nostr.filters import filter_hash
from nostr.urls import RelayUrl
from sync import ledger
from sync.ledger import Entry, Gap
from sync.windows import Window

RELAY = RelayUrl.parse("wss://relay.example.com")
START = 1_700_000_000
TARGET = Window(START, START + 100_000)

State = dict[str, tuple[int, str]]


async def connect(machine: Host, user: str = "bigbrotr_reader") -> BigBrotr:
    db = BigBrotr.from_config(replace(machine.database(user), min_pool=1))
    await db.connect()
    return db


async def add_events(machine: Host, first: int, last: int) -> None:
    """Events of these numbers, an odd one, and the proof of their seconds, as a session writes."""
    db = await connect(machine, "bigbrotr_writer")
    name = filter_hash({})
    raw = RawEvent(f"{first:064x}", b'{"content":"\\u0000"}', "nul")
    events = [sample_event(number, tags=[["t", "x"]]) for number in range(first, last)]

    async def write(conn: asyncpg.Connection) -> None:
        await write_events(conn, RELAY, START, events, raw=[raw], refused={"wrong-id": 1})
        proven = [Window(START + first, START + last - 1)]
        gap = Gap(Window(TARGET.until - last, TARGET.until - first), "saturated")
        await ledger.record(conn, [Entry(RELAY.url, name, TARGET, proven, gaps=[gap])])

    async with db:
        await ledger.register_filter(db, name, {})
        await db.run_in_transaction(write)


async def state(machine: Host) -> State:
    """Of each table the number of rows and a digest of them all."""
    async with await connect(machine) as db:
        tables = await db.fetch(
            "SELECT relname FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        )
        found: State = {}
        for row in tables:
            table = row["relname"]
            (content,) = await db.fetch(
                "SELECT count(*) AS rows, "
                "coalesce(md5(string_agg(t::text, ' ' ORDER BY t::text)), '') AS digest "
                f"FROM {table} AS t"
            )
            found[table] = (content["rows"], content["digest"])
        return found


@pytest.fixture
def source() -> Iterator[Host]:
    with host() as machine:
        yield machine


@pytest.fixture
def target() -> Iterator[Host]:
    with host() as machine:
        yield machine


@pytest.mark.parametrize("form", ["file", "directory", "cron"])
async def test_a_dump_gives_everything_back(source: Host, target: Host, form: str) -> None:
    await create_archive(source)
    await add_events(source, 0, 500)
    before = await state(source)
    assert before["events"][0] == 500
    assert before["sync_coverage"][0] == before["sync_gaps"][0] == 1

    dump, dump_directory, restore = blocks("backup.md", "A dump")
    source.run(dump)
    if form == "directory":
        source.run(dump_directory, {"-p 5432": f"-p {source.port}"})
        dumped = "bigbrotr.dir"
        restore = restore.replace("< bigbrotr.dump", "bigbrotr.dir")
    elif form == "cron":
        (source.clone / "bigbrotr.dump").unlink()
        source.run(cron_command("backup.md", "On a schedule"))
        (newest,) = source.clone.glob("bigbrotr-[1-7].dump")
        dumped = str(newest.rename(source.clone / "bigbrotr.dump").name)
    else:
        dumped = "bigbrotr.dump"
    for name in ("roles.sql", dumped):
        copy = shutil.copytree if (source.clone / name).is_dir() else shutil.copy
        copy(source.clone / name, target.clone / name)
        target.run(f"test -r {name}") if target.account is None else give(target, name)

    target.run(restore)
    assert await state(target) == before
    async with await connect(target) as db:
        await check_schema(db)
    # The roles are back, with their passwords, and the archive goes on.
    await add_events(target, 500, 600)
    assert (await state(target))["events"][0] == 600
    assert await migrate(target.database()) == ()


def give(machine: Host, name: str) -> None:
    """What came from another machine belongs to the user of this one."""
    path = machine.clone / name
    assert machine.account is not None
    for each in [path, *path.rglob("*")]:
        machine.account.give(each, 0o700 if each.is_dir() else 0o600)


async def test_a_moment_comes_back_from_the_log() -> None:
    make_folder, base_backup, clean_up, restore = blocks(
        "backup.md", "To any moment, with the write-ahead log"
    )
    with host("archive_mode = on\n") as machine:
        user = '-o "$(id -u)" -g "$(id -g)"'
        wal = str(machine.folder / "wal")
        machine.run(make_folder, {"-o 999 -g 999": user, "/srv/bigbrotr-wal": wal})
        await create_archive(machine)
        await add_events(machine, 0, 300)
        machine.run(base_backup)
        await add_events(machine, 300, 700)
        before = await state(machine)
        owner = await asyncpg.connect(
            host="127.0.0.1",
            port=machine.port,
            user="admin",
            password=PASSWORDS["admin"],
            database=DATABASE,
        )
        moment = await owner.fetchval("SELECT clock_timestamp()")
        await owner.execute("DELETE FROM relays")  # the accident
        await owner.execute("SELECT pg_switch_wal()")
        async with asyncio.timeout(30):
            while not await owner.fetchval(
                "SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) "
                "FROM pg_stat_archiver"
            ):
                await asyncio.sleep(0.1)
        assert await owner.fetchval("SELECT failed_count FROM pg_stat_archiver") == 0
        await owner.close()
        assert await state(machine) != before
        machine.run(clean_up)
        assert list((machine.folder / "wal").glob("*.part")) == []

        machine.run(restore, {"2026-11-25 12:00:00+00": str(moment)})
        assert await state(machine) == before
        await add_events(machine, 700, 750)
        assert (await state(machine))["events"][0] == 750
        assert "recovery_target" not in (machine.folder / "data/postgresql.auto.conf").read_text()


async def test_the_log_never_overwrites_and_repeats_itself_gladly() -> None:
    """archive_command, as PostgreSQL calls it after a crash: again, with the same file."""
    with host("archive_mode = on\n") as machine:
        conf = (machine.folder / "postgresql.conf").read_text()
        (line,) = [line for line in conf.splitlines() if line.startswith("archive_command")]
        command = line.partition(" = ")[2].strip("'")

        def archive(content: str) -> bool:
            (machine.folder / "data/segment").write_text(content)
            done = machine.run(
                f"({command.replace('%p', '../data/segment').replace('%f', 'segment')}) "
                "&& echo kept || echo refused"
            )
            return done.strip().endswith("kept")

        kept = machine.folder / "wal" / "segment"
        (machine.folder / "wal" / "segment.part").write_text("half")
        if machine.account is not None:
            give_part = machine.folder / "wal" / "segment.part"
            machine.account.give(give_part, 0o600)
        assert archive("one")
        assert archive("one")
        assert not archive("two")
        assert kept.read_text() == "one"
