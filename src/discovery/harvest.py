"""What sources gave, added up; and how one portion of it is sifted and stored."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from bigbrotr import BigBrotr
from discovery.naming import Occasion
from discovery.sieve import Sieve, Sifted
from discovery.store import write_sifted


@dataclass(slots=True)
class Harvest:
    """What sources gave, added up.

    Attributes:
        sources: events, aggregators or relays that were read.
        named: texts in the place of relay URLs.
        new: candidates that the archive did not have.
        refused: texts that are no usable relay URL, by reason.
        looking_seconds: how long it took to find out which sources are new.
    """

    sources: int = 0
    named: int = 0
    new: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    looking_seconds: float = 0.0

    def add(self, sources: int, sifted: Sifted, new: int) -> None:
        """Count some sources and what came of them."""
        self.sources += sources
        self.named += len(sifted.fresh) + sifted.known + sifted.refused.total()
        self.new += new
        self.refused += sifted.refused

    def join(self, other: "Harvest") -> None:
        """Add what other sources gave."""
        self.sources += other.sources
        self.named += other.named
        self.new += other.new
        self.refused += other.refused


async def store(
    conn: asyncpg.Connection, sieve: Sieve, occasions: Sequence[Occasion]
) -> tuple[Sifted, int]:
    """Sift occasions and write what came of them, in the caller's transaction: what was new, to
    be admitted to the sieve after the commit, and how many candidates that were."""
    sifted = await asyncio.to_thread(sieve.sift, occasions)
    return sifted, await write_sifted(conn, sifted)


async def take_answer(db: BigBrotr, sieve: Sieve, answer: Occasion) -> Harvest:
    """Store one answer of an aggregator or relay, all of it or nothing."""

    async def work(conn: asyncpg.Connection) -> tuple[Sifted, int]:
        return await store(conn, sieve, [answer])

    sifted, new = await db.run_in_transaction(work)
    sieve.admit(sifted.fresh)
    harvest = Harvest()
    harvest.add(1, sifted, new)
    return harvest
