"""A synchronizer as a program, one slow relay or several, and what must come of it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigbrotr import BigBrotr
from components.databases import Database
from components.services import Program, environment
from components.sessions import archived, true_ids, unproven
from scripted_relay import ScriptedRelay
from sync.windows import Window

START = 1_700_000_000
TARGET = Window(START, START + 2_000)
SERVICE = "priority_synchronizer"


def settings(
    database: Database, urls: Sequence[str], folder: Path, **more: object
) -> dict[str, str]:
    """The environment of a synchronizer of these relays, with short pauses."""
    listed = folder / "relays.txt"
    listed.write_text("".join(f"{url}\n" for url in urls))
    return environment(
        database,
        **{
            "SYNCHRONIZER_NUM_CORES": 1,
            "SYNCHRONIZER_REQUEST_TIMEOUT": 5,
            "SYNCHRONIZER_START_TIMESTAMP": TARGET.since,
            "SYNCHRONIZER_STOP_TIMESTAMP": TARGET.until,
            "SYNCHRONIZER_LOOP_INTERVAL_MINUTES": 0.02,
            "SYNCHRONIZER_PRIORITY_RELAYS_PATH": listed,
            **more,
        },
    )


async def some_events(db: BigBrotr, url: str, at_least: int = 300) -> None:
    """Wait until the synchronization is well on its way."""
    async with asyncio.timeout(40):
        while len(await archived(db, url)) < at_least:
            await asyncio.sleep(0.05)


async def no_false_claim(
    db: BigBrotr, url: str, events: Sequence[dict[str, Any]], target: Window = TARGET
) -> None:
    """Whatever is not archived is not claimed either."""
    left = await unproven(db, url, target)
    have = await archived(db, url)
    for event in events:
        if event["id"] not in have:
            assert any(window.since <= event["created_at"] <= window.until for window in left)


async def everything(db: BigBrotr, relay: ScriptedRelay, url: str | None = None) -> None:
    """All archived, all proven."""
    url = url or relay.url.url
    async with asyncio.timeout(60):
        while await unproven(db, url, TARGET):
            await asyncio.sleep(0.1)
    assert await archived(db, url) == true_ids(relay.events)
    rows = await db.fetch("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM events")
    assert rows[0]["n"] == rows[0]["ids"] >= len(relay.events)


async def workers_of(program: Program) -> list[int]:
    async with asyncio.timeout(20):
        while not (workers := await program.children()):
            await asyncio.sleep(0.05)
    return workers


async def ended(pids: Sequence[int]) -> None:
    async with asyncio.timeout(10):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await asyncio.sleep(0.05)


async def time_passes(db: BigBrotr) -> None:
    """Every pause and every lease is over."""
    await db.execute("UPDATE relay_tasks SET not_before = 0")
    await db.execute("UPDATE relay_tasks SET lease_expires_at = 0 WHERE owner IS NOT NULL")


def nothing_unforeseen(program: Program) -> None:
    """The program lives, and its log has no traceback."""
    assert program.process.returncode is None, program.output
    assert "Traceback" not in program.output, program.output
