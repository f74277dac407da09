"""Committing what the sessions of a process have, together: one transaction for many relays.

Slow relays give small pages, and a transaction costs the same for few events as for many. So all
shares that have come by the time of a commit are written in one. While it is under way, others
come together for the next: the busier the database, the larger the transactions.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from bigbrotr import BigBrotr
from constants import LOG_WARNING
from errors import DatabaseError
from logging_config import fields
from sync.share import Share, write_shares

# What is due at once; as much again may come while it is committed.
_MOST_EVENTS = 1_000
_MOST_BYTES = 2 * 1024 * 1024
# The longest that anything waits for company; and that it does after the last thing came.
_OLDEST_SECONDS = 2.0
_IDLE_SECONDS = 0.5
# The same for a session that can do nothing else meanwhile.
_ASKED_SECONDS = 0.05

logger = logging.getLogger(__name__)


class Member(Protocol):
    """A session that has something to commit."""

    def hand_over(self) -> Share:
        """All that there is. Either `committed` or `give_back` follows."""

    def committed(self, share: Share, new: int) -> None:
        """The share is in the archive; `new` of its events were not before."""

    def give_back(self, share: Share, failure: Exception | None) -> None:
        """The share was not committed; `failure` says why, unless somebody was told already."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One session's share, as far as it matters when to commit.

    Attributes:
        since: when the first of it came.
        events: how many there are.
        text_bytes: what they took to be sent.
        asked: when the session began to wait for the commit; None: it does not.
        done: what it waits for.
    """

    since: float
    events: int = 0
    text_bytes: int = 0
    asked: float | None = None
    done: "asyncio.Future[None] | None" = None


def due_at(waiting: Collection[Waiting], latest: float) -> float:
    """When to commit what waits, the latest of which came at `latest` (pure)."""
    if is_full(waiting) or all(share.asked is not None for share in waiting):
        return latest
    asked = [share.asked + _ASKED_SECONDS for share in waiting if share.asked is not None]
    oldest = min(share.since for share in waiting)
    return min(oldest + _OLDEST_SECONDS, latest + _IDLE_SECONDS, *asked)


def is_full(waiting: Collection[Waiting]) -> bool:
    """Whether there is enough for a transaction (pure)."""
    return (
        sum(share.events for share in waiting) >= _MOST_EVENTS
        or sum(share.text_bytes for share in waiting) >= _MOST_BYTES
    )


class GroupCommit:
    """Commits the shares of its members, all of one database.

    It has a task of its own for that: a session that is cancelled takes nothing with it.
    """

    def __init__(self, db: BigBrotr) -> None:
        self._db = db
        self._waiting: dict[Member, Waiting] = {}
        self._latest = 0.0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def add(self, member: Member, events: int, text_bytes: int = 0) -> None:
        """Take note that a session has so many events more. Returns once there is room for what
        may come next: that is the back-pressure."""
        waiting = self._note(member)
        waiting.events += events
        waiting.text_bytes += text_bytes
        while is_full(self._waiting.values()):
            self._news.set()
            self._room.clear()
            await self._room.wait()

    async def commit(self, member: Member) -> None:
        """Commit all that a session has, and raise what keeps it from being committed."""
        waiting = self._note(member)
        if waiting.done is None:
            waiting.asked = self._latest
            waiting.done = asyncio.get_running_loop().create_future()
            waiting.done.add_done_callback(_take_note)
            self._news.set()
        await asyncio.shield(waiting.done)

    async def close(self) -> None:
        """Commit nothing any more: what is under way is undone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _note(self, member: Member) -> Waiting:
        self._latest = asyncio.get_running_loop().time()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return self._waiting.setdefault(member, Waiting(self._latest))

    async def _run(self) -> None:
        try:
            while self._waiting:
                due = due_at(self._waiting.values(), self._latest)
                if due <= asyncio.get_running_loop().time():
                    await self._commit(self._take())
                else:
                    self._news.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(due):
                            await self._news.wait()
        finally:
            self._task = None

    def _take(self) -> dict[Member, Waiting]:
        """Those that have waited longest, as many as fill a transaction."""
        taken: dict[Member, Waiting] = {}
        while self._waiting and not is_full(taken.values()):
            member = next(iter(self._waiting))
            taken[member] = self._waiting.pop(member)
        self._room.set()
        return taken

    async def _commit(self, taken: Mapping[Member, Waiting]) -> None:
        """Write the shares, and tell everybody. One relay's data must not harm the others: if it
        fails all, each is written by itself."""
        shares = {member: member.hand_over() for member in taken}
        batches = deque([list(shares)])
        try:
            while batches:
                batch = batches.popleft()
                try:
                    new = await self._write([shares[member] for member in batch])
                except DatabaseError:
                    raise
                except Exception as error:
                    if len(batch) == 1:
                        _give_back(batch[0], taken[batch[0]], shares.pop(batch[0]), error)
                    else:
                        divided = fields("commit_divided", relays=len(batch), error=error)
                        logger.warning(f"{LOG_WARNING} {divided}")
                        batches.extend([member] for member in batch)
                else:
                    for member, count in zip(batch, new, strict=True):
                        member.committed(shares.pop(member), count)
                        if (done := taken[member].done) is not None:
                            done.set_result(None)
        except BaseException as error:
            for member, share in shares.items():
                _give_back(member, taken[member], share, error)
            if not isinstance(error, DatabaseError):
                raise

    async def _write(self, shares: Sequence[Share]) -> list[int]:
        return await self._db.run_in_transaction(lambda conn: write_shares(conn, shares))


def _give_back(member: Member, waiting: Waiting, share: Share, error: BaseException) -> None:
    if waiting.done is None:
        member.give_back(share, error if isinstance(error, Exception) else None)
        return
    member.give_back(share, None)
    if isinstance(error, Exception):
        waiting.done.set_exception(error)
    else:
        waiting.done.cancel()


def _take_note(done: "asyncio.Future[None]") -> None:
    """Retrieve the error, which nobody may be waiting for any more."""
    if not done.cancelled():
        done.exception()
