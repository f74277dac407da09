"""The archive's database behind one class. It knows rows, not services."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncpg
from nostr_tools import Event, Relay, RelayMetadata

from config_types import DatabaseConfig
from constants import LOG_WARNING
from database_errors import attempts_worthwhile, clear_errors
from errors import DatabaseUnavailable
from event_rows import ROWS_PER_STATEMENT, RawEvent, write_events, write_relays
from logging_config import fields
from metadata_rows import write_metadata
from nostr.events import SignedEvent, encode_event, storage_obstacle
from nostr.urls import RelayUrl, from_relay
from transactions import CLEAN_UP_SECONDS, CONNECTION_ERRORS, transaction

_FIRST_PAUSE_SECONDS = 0.02
_CONNECT_TIMEOUT_SECONDS = 15.0
_CLOSE_TIMEOUT_SECONDS = 1.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class BigBrotr:
    """A pool of connections to the archive, meant for PgBouncer in transaction mode: no prepared
    statements, no session state. Times are Unix seconds.

    Every method raises DatabaseUnavailable when the database does not answer, and AccessDenied
    when it refuses the role, the password or the database name. Errors of a statement itself are
    asyncpg's. Values are stored as they are; writes may be repeated and return what was new.
    """

    def __init__(
        self,
        host: str,
        port: int,
        user: str,
        password: str,
        dbname: str,
        min_pool_size: int = 5,
        max_pool_size: int = 20,
        command_timeout: float = 60.0,
    ) -> None:
        for name, text in (("host", host), ("user", user), ("dbname", dbname)):
            _require(text, str, name)
            if not text:
                raise ValueError(f"{name} is empty")
        _require(password, str, "password")
        for name, number in (
            ("port", port),
            ("min_pool_size", min_pool_size),
            ("max_pool_size", max_pool_size),
        ):
            _require(number, int, name)
        if not 0 < port <= 65_535:
            raise ValueError(f"port is {port}: it must be from 1 to 65535")
        if not 1 <= min_pool_size <= max_pool_size:
            raise ValueError(
                f"min_pool_size is {min_pool_size} and max_pool_size {max_pool_size}: "
                "they must be 1 or more, the first not above the second"
            )
        if not command_timeout > 0:
            raise ValueError(f"command_timeout is {command_timeout}: it must be above 0 seconds")
        self.host = host
        self.port = port
        self.user = user
        self.dbname = dbname
        self.min_pool_size = min_pool_size
        self.max_pool_size = max_pool_size
        self.command_timeout = command_timeout
        self._password = password
        self._target = f"database {dbname} of {host}:{port} as {user}"
        self._pool: asyncpg.Pool | None = None

    @classmethod
    def from_config(cls, config: DatabaseConfig) -> Self:
        """A BigBrotr, not connected yet, with these settings."""
        return cls(
            config.host,
            config.port,
            config.user,
            config.password,
            config.dbname,
            min_pool_size=config.min_pool,
            max_pool_size=config.max_pool,
            command_timeout=config.command_timeout,
        )

    @property
    def is_connected(self) -> bool:
        """Whether connect was called, and close was not."""
        return self._pool is not None

    async def connect(self) -> None:
        """Opens the pool; does nothing when it is open."""
        if self._pool is not None:
            return
        with clear_errors(self._target):
            self._pool = await asyncpg.create_pool(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self._password,
                database=self.dbname,
                min_size=self.min_pool_size,
                max_size=self.max_pool_size,
                command_timeout=self.command_timeout,
                timeout=_CONNECT_TIMEOUT_SECONDS,
                statement_cache_size=0,
                reset=_nothing_to_reset,
            )

    async def close(self) -> None:
        """Closes the pool; connections that are still busy after a few seconds are cut."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), _CLOSE_TIMEOUT_SECONDS)
        except CONNECTION_ERRORS:
            pool.terminate()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def execute(self, query: str, *args: Any) -> str:
        """Runs a statement and returns its command tag, such as "DELETE 3"."""
        async with self._connection() as conn:
            return str(await conn.execute(query, *args))

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """The rows of a query."""
        async with self._connection() as conn:
            return list(await conn.fetch(query, *args))

    async def fetchone(self, query: str, *args: Any) -> asyncpg.Record | None:
        """The first row of a query, None if there is none."""
        async with self._connection() as conn:
            return await conn.fetchrow(query, *args)

    async def run_in_transaction(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Runs `work` with a connection inside a transaction, and commits.

        `work` is run again, in a new transaction, after a deadlock, a serialization failure, or
        when a row that it refers to was deleted meanwhile: it must not change anything but the
        database.
        """
        for attempt in count(1):
            try:
                async with self._connection() as conn, transaction(conn):
                    return await work(conn)
            except asyncpg.PostgresError as error:
                if attempt >= attempts_worthwhile(error):
                    raise
                again = fields("transaction_retried", sqlstate=error.sqlstate, attempt=attempt)
                logger.info(f"{LOG_WARNING} {again}")
            await asyncio.sleep(random.uniform(0, _FIRST_PAUSE_SECONDS * 2**attempt))
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection that reads, for as long as it takes, the archive as it is at its first
        query, whatever is written meanwhile. Nothing is tried again."""
        async with self._connection() as conn, transaction(conn):
            await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            # The reader of a pipe may be slow; both settings end with the transaction.
            await conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await conn.execute("SET LOCAL statement_timeout = 0")
            yield conn

    async def insert_event(self, event: Event, relay: Relay, seen_at: int) -> bool:
        """Adds an event and that the relay holds it; true if the archive did not have it."""
        return await self.insert_event_batch([event], relay, seen_at) == 1

    async def insert_event_batch(self, events: Sequence[Event], relay: Relay, seen_at: int) -> int:
        """Adds events that a relay holds; returns how many the archive did not have.

        Events that text or jsonb cannot hold are kept in events_raw. Long lists are written in
        several transactions; all of it can be repeated.
        """
        for event in events:
            _require(event, Event, "event")
        _require(relay, Relay, "relay")
        _require(seen_at, int, "seen_at")
        url = from_relay(relay)
        ordered = sorted({event.id: _signed(event) for event in events}.values())

        async def write(conn: asyncpg.Connection, batch: Sequence[SignedEvent]) -> int:
            storable, raw = _split(batch)
            return len((await write_events(conn, url, seen_at, storable, raw=raw)).new)

        return await self._in_batches(ordered, write)

    async def insert_relay(self, relay: Relay, inserted_at: int) -> bool:
        """Adds a relay; true if it was not known."""
        return await self.insert_relay_batch([relay], inserted_at) == 1

    async def insert_relay_batch(self, relays: Sequence[Relay], inserted_at: int) -> int:
        """Adds relays; returns how many were not known. Those known keep their inserted_at."""
        for relay in relays:
            _require(relay, Relay, "relay")
        _require(inserted_at, int, "inserted_at")
        urls = sorted({from_relay(relay) for relay in relays})

        async def write(conn: asyncpg.Connection, batch: Sequence[RelayUrl]) -> int:
            return await write_relays(conn, batch, inserted_at)

        return await self._in_batches(urls, write)

    async def insert_relay_metadata(
        self, relay_metadata: RelayMetadata, relay_inserted_at: int
    ) -> bool:
        """Adds one check of a relay, and the relay; true if it was not known."""
        return await self.insert_relay_metadata_batch([relay_metadata], relay_inserted_at) == 1

    async def insert_relay_metadata_batch(
        self, relay_metadata_list: Sequence[RelayMetadata], relay_inserted_at: int
    ) -> int:
        """Adds checks of relays, and the relays; returns how many checks were not known. A check
        that PostgreSQL refuses is logged and left out; the others are written."""
        for relay_metadata in relay_metadata_list:
            _require(relay_metadata, RelayMetadata, "relay_metadata")
        _require(relay_inserted_at, int, "relay_inserted_at")

        async def write(conn: asyncpg.Connection, batch: Sequence[RelayMetadata]) -> int:
            return await write_metadata(conn, batch, relay_inserted_at)

        return await self._in_batches(relay_metadata_list, write)

    async def _in_batches(
        self,
        rows: Sequence[T],
        write: Callable[[asyncpg.Connection, Sequence[T]], Awaitable[int]],
    ) -> int:
        """Writes rows a batch per transaction; returns the sum of what `write` returns."""
        written = 0
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            written += await self._write_batch(rows[start : start + ROWS_PER_STATEMENT], write)
        return written

    async def _write_batch(
        self,
        batch: Sequence[T],
        write: Callable[[asyncpg.Connection, Sequence[T]], Awaitable[int]],
    ) -> int:
        return await self.run_in_transaction(lambda conn: write(conn, batch))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the pool. It is given back within seconds even when the network to the
        database is dead and a cancelled statement has no end: then it is cut."""
        pool = self._open_pool()
        with clear_errors(self._target):
            conn = await pool.acquire()
            try:
                yield conn
            finally:
                release = asyncio.ensure_future(pool.release(conn, timeout=CLEAN_UP_SECONDS))
                release.add_done_callback(_take_note)
                with suppress(*CONNECTION_ERRORS):
                    await asyncio.shield(release)

    def _open_pool(self) -> asyncpg.Pool:
        if self._pool is None:
            raise DatabaseUnavailable(f"{self._target}: not connected, call connect() first")
        return self._pool


def _require(value: object, kind: type, name: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}")


def _signed(event: Event) -> SignedEvent:
    return SignedEvent(
        event.id, event.pubkey, event.created_at, event.kind, event.tags, event.content, event.sig
    )


def _split(events: Sequence[SignedEvent]) -> tuple[list[SignedEvent], list[RawEvent]]:
    """The events that the columns can hold, and the others with the reason."""
    storable, raw = [], []
    for event in events:
        obstacle = storage_obstacle(event)
        if obstacle is None:
            storable.append(event)
        else:
            raw.append(RawEvent(event.id, encode_event(event), obstacle))
    return storable, raw


def _take_note(release: "asyncio.Future[None]") -> None:
    """Retrieve the error of a release that nobody waits for after a second cancellation."""
    if not release.cancelled():
        release.exception()


async def _nothing_to_reset(conn: asyncpg.Connection) -> None:
    """There is no session state through PgBouncer, so asyncpg's reset query (a round trip
    whenever a connection is given back) has nothing to do."""
