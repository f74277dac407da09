"""postgresql.conf: PostgreSQL knows each setting, and the memory they may use is there."""

import re
from pathlib import Path

from bigbrotr import BigBrotr

CONF = Path(__file__).parents[2] / "postgresql.conf"
SETTINGS = dict(re.findall(r"^(\w+) = '?([^'#\n]+?)'?$", CONF.read_text(), re.MULTILINE))
CONTAINER_BYTES = 4 << 30


async def test_postgresql_knows_each_setting(db: BigBrotr) -> None:
    lines = [line for line in CONF.read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) == len(SETTINGS)
    known = await db.fetch(
        "SELECT lower(name) AS name FROM pg_settings WHERE lower(name) = ANY ($1)", list(SETTINGS)
    )
    assert {row["name"] for row in known} == set(SETTINGS)


async def test_memory_fits_into_the_container(db: BigBrotr) -> None:
    async def size(name: str) -> int:
        row = await db.fetchone("SELECT pg_size_bytes($1) AS bytes", SETTINGS[name])
        assert row is not None
        return int(row["bytes"])

    assert await size("shared_buffers") * 4 == CONTAINER_BYTES
    assert await size("effective_cache_size") * 4 == CONTAINER_BYTES * 3
    at_work = (
        await size("shared_buffers")
        + await size("wal_buffers")
        + await size("autovacuum_work_mem") * int(SETTINGS["autovacuum_max_workers"])
        + await size("maintenance_work_mem")
        # Four services' pools of 25 connections, each with a sort.
        + await size("work_mem") * 4 * 25
    )
    assert at_work < CONTAINER_BYTES


def test_commits_are_durable() -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        assert SETTINGS[name] == "on"


def test_values_of_the_specification() -> None:
    assert SETTINGS["max_connections"] == "300"
    assert SETTINGS["max_worker_processes"] == "300"
    assert SETTINGS["max_parallel_workers"] == "300"
