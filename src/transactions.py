"""Transactions that end within seconds, also when they are cancelled or the network is dead."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import asyncpg

# After a cancelled or failed statement, for its cancellation and the ROLLBACK to get through.
CLEAN_UP_SECONDS = 1.0
# What a connection that is lost or in disorder raises.
CONNECTION_ERRORS = (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


@asynccontextmanager
async def transaction(conn: asyncpg.Connection) -> AsyncIterator[None]:
    """A transaction whose ROLLBACK, unlike that of asyncpg, cannot outlast the connection."""
    begun = conn.transaction()
    with _cut_when_interrupted(conn):
        await begun.start()
    try:
        yield
    except BaseException:
        try:
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                await begun.rollback()
        except CONNECTION_ERRORS:
            _cut(conn)
        raise
    with _cut_when_interrupted(conn):
        await begun.commit()


@contextmanager
def _cut_when_interrupted(conn: asyncpg.Connection) -> Iterator[None]:
    """Nobody knows whether an interrupted BEGIN or COMMIT has reached the server."""
    try:
        yield
    except (asyncio.CancelledError, TimeoutError):
        _cut(conn)
        raise


def _cut(conn: asyncpg.Connection) -> None:
    with suppress(asyncpg.InterfaceError):  # it has gone by itself
        conn.terminate()
