"""Asking a relay for events by their ids, until each has come or does not come (async shell)."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from nostr.filters import matcher
from sync.asker import Asker
from sync.writer import SessionWriter

_BYTES_PER_ID = 67  # with its quotes and comma
_OTHER_BYTES = 200  # of a REQ besides its ids


@dataclass(slots=True)
class Fetched:
    """Events asked for by id.

    Attributes:
        created_at: of the valid events that came, by id.
        outside: how many of them are not what the filter selects.
        refused: ids under which something came that is no valid event; it is counted.
        withheld: ids that did not come.
    """

    created_at: dict[str, int] = field(default_factory=dict)
    outside: int = 0
    refused: set[str] = field(default_factory=set)
    withheld: set[str] = field(default_factory=set)


async def fetch_by_id(
    asker: Asker,
    writer: SessionWriter,
    ids: Collection[str],
    selection: Mapping[str, Any],
    page_limit: int,
) -> Fetched:
    """Ask for events by id, which a filter is said to select, and give the writer what comes.

    A relay that sends fewer than asked for (its pages have a limit) is asked for the rest, as
    long as each request brings something.

    Raises SyncAbandoned if the relay does not answer, DatabaseError if the archive is lost.
    """
    fetched = Fetched()
    selects = matcher(selection)
    wanted = sorted(ids)
    most = min(page_limit, max(1, (asker.longest_message - _OTHER_BYTES) // _BYTES_PER_ID))
    batches = deque(wanted[at : at + most] for at in range(0, len(wanted), most))
    while batches:
        batch = batches.popleft()
        page = await asker.ask({"ids": batch, "limit": len(batch)}, writer.add)
        await writer.add(page)
        if not page.facts.is_answer:  # more came than a page may hold
            if len(batch) == 1:
                fetched.withheld.update(batch)
            else:
                batches += (batch[: len(batch) // 2], batch[len(batch) // 2 :])
            continue
        came = {event.id: event.created_at for event in page.facts.events}
        fetched.created_at |= came
        fetched.outside += sum(not selects(event) for event in page.facts.events)
        # What was refused may yet come in a valid form, unless nothing valid comes any more.
        refused = set() if came else page.refused_ids.intersection(batch)
        fetched.refused |= refused
        missing = [id_ for id_ in batch if id_ not in came and id_ not in refused]
        if len(missing) == len(batch):
            fetched.withheld.update(missing)
        elif missing:
            batches.append(missing)
    return fetched
