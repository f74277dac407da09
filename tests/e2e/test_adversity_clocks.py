"""Clocks that are wrong, and clocks that are stepped: of the machine, and of the database."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bigbrotr import BigBrotr
from components.archiving import (
    SERVICE,
    everything,
    no_false_claim,
    nothing_unforeseen,
    settings,
    some_events,
)
from components.databases import Database
from components.services import run, running
from components.sessions import archived, true_ids
from scripted_relay import ScriptedRelay, make_event, make_events
from sync.windows import Window

# The machine's clock, off by so many seconds as the file says just now.
_STEPPED = """
import os, time
_real, _file = time.time, os.environ["CLOCK_OFFSET"]
def _stepped():
    with open(_file) as offset:
        return _real() + float(offset.read() or 0)
time.time = _stepped
"""


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    """Slow enough to be interrupted."""
    async with ScriptedRelay(make_events(1_500), cap=50, delay=0.002) as running_relay:
        yield running_relay


@pytest.mark.parametrize("hours", [48, -48])
async def test_a_wrong_clock_claims_no_second_that_is_not_over(
    hours: int, db: BigBrotr, database: Database, tmp_path: Path
) -> None:
    """The machine's clock is stepped by days, and right again in the next run."""
    (tmp_path / "sitecustomize.py").write_text(_STEPPED)
    offset = tmp_path / "offset"
    offset.write_text(str(hours * 3_600))
    start = int(time.time()) - 400_000
    events = [make_event(created_at=start + 4_000 * n, content=str(n)) for n in range(100)]
    async with ScriptedRelay(events) as relay:
        url = relay.url.url
        env = settings(
            database,
            [url],
            tmp_path,
            SYNCHRONIZER_START_TIMESTAMP=start,
            SYNCHRONIZER_STOP_TIMESTAMP=-1,
            SYNCHRONIZER_LAG_SECONDS=0,
        )
        stepped = {**env, "PYTHONPATH": str(tmp_path), "CLOCK_OFFSET": str(offset)}
        code, output = await run(SERVICE, stepped, "--once")
        assert code == 0, output
        late = [make_event(created_at=int(time.time()), content="late")]
        if hours < 0:
            # What a clock that is behind has not asked for, it must not claim.
            late.append(make_event(created_at=int(time.time()) - 24 * 3_600, content="missed"))
        relay.events += late
        await asyncio.sleep(1.1)
        code, output = await run(SERVICE, env, "--once")
        assert code == 0, output
        assert await archived(db, url) == true_ids(relay.events)


async def test_a_clock_stepped_in_mid_synchronization_claims_nothing_and_stops_nothing(
    db: BigBrotr, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_STEPPED)
    offset = tmp_path / "offset"
    offset.write_text("0")
    start = int(time.time()) - 200_000
    events = [make_event(created_at=start + 130 * n, content=str(n)) for n in range(1_500)]
    async with ScriptedRelay(events, cap=50, delay=0.002) as relay:
        url = relay.url.url
        env = settings(
            database,
            [url],
            tmp_path,
            SYNCHRONIZER_START_TIMESTAMP=start,
            SYNCHRONIZER_STOP_TIMESTAMP=-1,
            SYNCHRONIZER_LAG_SECONDS=0,
        ) | {"PYTHONPATH": str(tmp_path), "CLOCK_OFFSET": str(offset)}
        async with running("priority_synchronizer", env) as program:
            for hours, at_least in ((48, 100), (-48, 400), (0, 700)):
                await some_events(db, url, at_least)
                offset.write_text(str(hours * 3_600))
                # Until the present, for nobody can have claimed what comes after it.
                past = Window(start, int(time.time()) - 1)
                await no_false_claim(db, url, relay.events, past)
            await some_events(db, url, len(events))
            for number in range(3):
                relay.events.append(make_event(created_at=int(time.time()), content=f"{number}"))
                await asyncio.sleep(1.1)
            await some_events(db, url, len(relay.events))
            await no_false_claim(db, url, relay.events, Window(start, int(time.time()) - 1))
            nothing_unforeseen(program)
        (row,) = await db.fetch("SELECT upper(covered) AS until FROM sync_coverage")
        assert row["until"] <= time.time()


async def test_stepped_lease_clocks_neither_lose_a_relay_nor_fake_a_proof(
    db: BigBrotr, database: Database, relay: ScriptedRelay, tmp_path: Path
) -> None:
    """Moving the stored times is stepping the database's clock the other way."""
    url = relay.url.url
    env = settings(database, [url], tmp_path)
    async with running(SERVICE, env) as first, running(SERVICE, env) as second:
        await some_events(db, url, 200)
        await db.execute(  # hours forward: the lease is over, and the other one takes the relay
            "UPDATE relay_tasks SET lease_expires_at = lease_expires_at - 7200, "
            "heartbeat_at = heartbeat_at - 7200 WHERE owner IS NOT NULL"
        )
        await some_events(db, url, 500)
        await no_false_claim(db, url, relay.events)
        await everything(db, relay)
        nothing_unforeseen(first)
        nothing_unforeseen(second)
    # Years back: a dead owner's lease and a pause that could never end.
    far = 10 * 365 * 86_400
    await db.execute("DELETE FROM sync_coverage")
    await db.execute(
        "UPDATE relay_tasks SET owner = 'dead', lease_expires_at = updated_at + $1::bigint, "
        "heartbeat_at = updated_at + $1::bigint, not_before = updated_at + $1::bigint",
        far,
    )
    relay.delay = 0.0
    code, output = await run(SERVICE, env, "--once")
    assert code == 0, output
    await everything(db, relay)
