"""Reading the archive for lists of relays: every event whose purpose it is to name some, once.

`discovery.sightings` reads new events as relays show them; this looks through all events of these
kinds for those that were left out, such as imported ones. What a batch gave and the note that its
events were read are committed together, so that nothing is read or counted twice and nothing is
left out, whenever the process ends.
"""

import asyncio
import time

import asyncpg

from bigbrotr import BigBrotr
from discovery.harvest import Harvest, store
from discovery.mentions import CONTENT_KINDS, LIST_KINDS, mentions
from discovery.naming import Occasion
from discovery.sieve import Sieve, Sifted
from functions import chunkify
from nostr.events import decode_json

EVENTS_PER_BATCH = 200
# An event can be as large as a message, some megabytes; so few of them are in memory at once.
_EVENTS_AT_ONCE = 20
_EVENTS_PER_LOOK = 20_000

# One page of a walk through the events of a kind, newest first: a statement for all of them would
# one day take longer than a statement may.
_PAGE = """
    WITH page AS (
        SELECT created_at, id
        FROM events
        WHERE kind = $1 AND created_at <= $2 AND (created_at, id) < ($2, $3)
        ORDER BY created_at DESC, id DESC
        LIMIT $4
    )
    SELECT (SELECT count(*) FROM page) AS events, created_at, id,
           ARRAY(
               SELECT page.id FROM page
               WHERE NOT EXISTS (SELECT FROM finder_events_read WHERE event_id = page.id)
           ) AS unread
    FROM page
    ORDER BY created_at, id
    LIMIT 1
"""
_BEFORE_ALL = (2**63 - 1, "g")
_EVENTS = """
    SELECT id, pubkey, kind, tags::text AS tags,
           CASE WHEN kind = ANY ($2::integer[]) THEN content ELSE '' END AS content
    FROM events
    WHERE id = ANY ($1::text[])
"""
# Another finder that marks the same events is waited for, and has them then.
_MARK_READ = """
    INSERT INTO finder_events_read (event_id, read_at)
    SELECT id, $2 FROM events WHERE id = ANY ($1::text[]) ORDER BY id
    ON CONFLICT (event_id) DO NOTHING
    RETURNING event_id
"""


async def read_lists(
    db: BigBrotr, sieve: Sieve, stop: asyncio.Event, *, until: float = float("inf")
) -> Harvest:
    """Read every event of LIST_KINDS not read yet; ends early, between two batches, when `stop`
    is set or the time `until` (of time.monotonic) has come."""
    harvest = Harvest()

    def is_over() -> bool:
        return stop.is_set() or time.monotonic() >= until

    for kind in LIST_KINDS:
        position: tuple[int, str] | None = _BEFORE_ALL
        while position is not None and not is_over():
            started = time.monotonic()
            page = await db.fetchone(_PAGE, kind, *position, _EVENTS_PER_LOOK)
            harvest.looking_seconds += time.monotonic() - started
            if page is None:
                break
            for ids in chunkify(list(page["unread"]), EVENTS_PER_BATCH):
                if is_over():
                    break
                sifted, events, new = await _read_batch(db, sieve, ids)
                sieve.admit(sifted.fresh)
                harvest.add(events, sifted, new)
            is_last = page["events"] < _EVENTS_PER_LOOK
            position = None if is_last else (page["created_at"], page["id"])
    return harvest


async def _read_batch(db: BigBrotr, sieve: Sieve, ids: list[str]) -> tuple[Sifted, int, int]:
    async def work(conn: asyncpg.Connection) -> tuple[Sifted, int, int]:
        ours = [row["event_id"] for row in await conn.fetch(_MARK_READ, ids, int(time.time()))]
        occasions: list[Occasion] = []
        for some in chunkify(ours, _EVENTS_AT_ONCE):
            rows = await conn.fetch(_EVENTS, some, list(CONTENT_KINDS))
            occasions += await asyncio.to_thread(lambda found: list(map(read_row, found)), rows)
        sifted, new = await store(conn, sieve, occasions)
        return sifted, len(ours), new

    return await db.run_in_transaction(work)


def read_row(row: asyncpg.Record) -> Occasion:
    """What an event names, of which the row has id, pubkey, kind, tags as text, and content."""
    tags = decode_json(row["tags"].encode())
    return mentions(row["id"], row["pubkey"], row["kind"], tags, row["content"])
