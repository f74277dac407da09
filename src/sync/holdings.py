"""What the archive has seen at one relay: the set that NIP-77 compares with the relay's."""

from collections.abc import Mapping
from typing import Any

import orjson

from bigbrotr import BigBrotr
from nostr.events import SignedEvent
from nostr.filters import matcher
from nostr.json_text import decode_json
from nostr.urls import RelayUrl
from sync.windows import Window

_RAW_ROWS = 200
_EVENTS = """
    SELECT e.id, e.created_at, e.pubkey, e.kind, CASE WHEN $4 THEN e.tags::text END AS tags
    FROM events e JOIN events_relays s ON s.event_id = e.id AND s.relay_url = $1
    WHERE e.created_at BETWEEN $2 AND $3
    LIMIT $5
"""
_RAW_EVENTS = """
    SELECT id, raw FROM events_raw WHERE relay_url = $1 AND id > $2 ORDER BY id LIMIT $3
"""

Item = tuple[int, str]


class Holdings:
    """The events of a filter that the archive has seen at a relay.

    Those that only events_raw can hold are read once: SQL cannot tell their time, and they are
    few. One that comes later is fetched again at worst.
    """

    def __init__(self, db: BigBrotr, relay: RelayUrl, flt: Mapping[str, Any]) -> None:
        self._db = db
        self._relay = relay
        self._by_tags = any(key.startswith("#") for key in flt)
        self._everything = not flt
        self._matches = matcher(flt)
        self._raw: list[Item] | None = None

    async def items(self, window: Window, most: int) -> list[Item]:
        """(created_at, id) of the events in the window. More than `most` only says that there
        are more: not all of them are listed."""
        if self._raw is None:
            self._raw = await self._raw_items()
        items = [item for item in self._raw if window.since <= item[0] <= window.until]
        rows = await self._db.fetch(
            _EVENTS, self._relay.url, window.since, window.until, self._by_tags, most + 1
        )
        if self._everything:
            return items + [(row["created_at"], row["id"]) for row in rows]
        events = map(_partial_event, rows)
        chosen = [(event.created_at, event.id) for event in events if self._matches(event)]
        return items + chosen

    async def _raw_items(self) -> list[Item]:
        items: list[Item] = []
        last = ""
        while rows := await self._db.fetch(_RAW_EVENTS, self._relay.url, last, _RAW_ROWS):
            last = rows[-1]["id"]
            for row in rows:
                event: Any = decode_json(row["raw"])
                if self._matches(SignedEvent(*(event[name] for name in SignedEvent._fields))):
                    items.append((event["created_at"], row["id"]))
        return items


def _partial_event(row: Mapping[str, Any]) -> SignedEvent:
    """As much of an event as a filter looks at."""
    tags = orjson.loads(row["tags"]) if row["tags"] else []
    return SignedEvent(row["id"], row["pubkey"], row["created_at"], row["kind"], tags, "", "")
