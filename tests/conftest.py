"""Fixtures: real PostgreSQL, PgBouncer and relays. Nothing here is skipped when missing."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial

import hypothesis
import pytest

from bigbrotr import BigBrotr
from components import relays
from components.databases import Cluster, Database, start_cluster
from components.relays import StartRelay

# A busy machine makes a single example slow now and then.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One PostgreSQL and one PgBouncer for all tests."""
    running = start_cluster()
    yield running
    running.stop()


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """A fresh, migrated, empty archive."""
    fresh = cluster.create_database()
    yield fresh
    cluster.drop_database(fresh.dbname)


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """A fresh database without any table, as before the first migration."""
    fresh = cluster.create_database(migrated=False)
    yield fresh
    cluster.drop_database(fresh.dbname)


@pytest.fixture
async def db(database: Database) -> AsyncIterator[BigBrotr]:
    """A connected BigBrotr: the services' role, through PgBouncer."""
    async with BigBrotr(
        database.host,
        database.port,
        database.writer_user,
        database.writer_password,
        database.dbname,
        min_pool_size=1,
        max_pool_size=4,
    ) as connected:
        yield connected


@pytest.fixture
async def local_relay() -> AsyncIterator[StartRelay]:
    """Starts LocalRelays: `await local_relay(events, cap=500, customize=...)`."""
    async with AsyncExitStack() as stack:
        yield partial(relays.local_relay, stack)


@pytest.fixture
async def nostr_relay() -> AsyncIterator[StartRelay]:
    """Starts nostr-relays: `await nostr_relay(events)`."""
    async with AsyncExitStack() as stack:
        yield partial(relays.nostr_relay, stack)
