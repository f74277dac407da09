"""Checks of relays in the archive, as the monitor leaves them."""

import time
from typing import Any

from nostr_tools import RelayMetadata

from bigbrotr import BigBrotr
from nostr.urls import RelayUrl, to_relay


async def insert_check(
    db: BigBrotr, url: RelayUrl, *, readable: bool = True, nip11: dict[str, Any] | None = None
) -> None:
    """A check of now: whether the relay could be read, and its NIP-11 document."""
    now = int(time.time())
    check = RelayMetadata(relay=to_relay(url), generated_at=now)
    if readable:
        check.nip66 = RelayMetadata.Nip66(True, True, rtt_open=1, rtt_read=1)
    if nip11 is not None:
        check.nip11 = RelayMetadata.Nip11(**nip11)
    await db.insert_relay_metadata(check, now)
