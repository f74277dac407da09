"""What to export, as SQL conditions. The conditions may let too much pass, never too little:
each event is compared with the filter again when it is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from nostr.urls import RelayUrl

_MAX_BIGINT = 2**63 - 1
_COLUMNS = {"ids": "id", "authors": "pubkey", "kinds": "kind"}
_TYPES = {"ids": "text[]", "authors": "text[]", "kinds": "integer[]"}


@dataclass(frozen=True, slots=True)
class Selection:
    """The events that a cleaned NIP-01 filter selects and, if one is named, a relay holds."""

    filter: Mapping[str, Any] = field(default_factory=dict)
    relay: RelayUrl | None = None

    @property
    def limit(self) -> int | None:
        """The most events to export, the newest ones (NIP-01)."""
        limit: int | None = self.filter.get("limit")
        return limit

    @property
    def is_narrow(self) -> bool:
        """Whether it selects by more than time, and all of that."""
        return self.limit is None and not self.filter.keys() <= {"since", "until"}


@dataclass(frozen=True, slots=True)
class Conditions:
    """A WHERE clause and its parameters."""

    where: str
    parameters: tuple[Any, ...]


def event_conditions(selection: Selection) -> Conditions:
    """For table events."""
    flt = selection.filter
    conditions, parameters = ["true"], list[Any]()

    def parameter(value: object) -> str:
        parameters.append(value)
        return f"${len(parameters)}"

    for key, column in _COLUMNS.items():
        if key in flt:
            conditions.append(f"{column} = ANY ({parameter(flt[key])}::{_TYPES[key]})")
    since, until = flt.get("since", 0), flt.get("until", _MAX_BIGINT)
    if since > _MAX_BIGINT:
        conditions.append("false")
    elif since:
        conditions.append(f"created_at >= {parameter(since)}::bigint")
    if until < _MAX_BIGINT:
        conditions.append(f"created_at <= {parameter(until)}::bigint")
    for key, values in flt.items():
        if key.startswith("#"):
            # Computed here, not by tag_key(): only values that it knows make the planner use the
            # index.
            entries = [_tag_key(key[1:], value) for value in _storable(values)]
            conditions.append(f"tagvalues && {parameter(entries)}::text[]")
    if selection.relay is not None:
        conditions.append(
            "EXISTS (SELECT FROM events_relays AS held WHERE held.event_id = events.id "
            f"AND held.relay_url = {parameter(selection.relay.url)})"
        )
    return Conditions(" AND ".join(conditions), tuple(parameters))


def raw_conditions(selection: Selection) -> Conditions:
    """For table events_raw, which knows only ids and relays. An event that is in events too is
    exported from there."""
    conditions = ["NOT EXISTS (SELECT FROM events WHERE events.id = events_raw.id)"]
    parameters: list[Any] = []
    if "ids" in selection.filter:
        parameters.append(selection.filter["ids"])
        conditions.append("id = ANY ($1::text[])")
    if selection.relay is not None:
        parameters.append(selection.relay.url)
        conditions.append(f"relay_url = ${len(parameters)}")
    return Conditions(" AND ".join(conditions), tuple(parameters))


def _tag_key(letter: str, value: str) -> str:
    """What tag_key() of init/ gives."""
    text = value.encode()
    return (
        f"{letter}:{value}" if len(text) <= 1_000 else f"{letter}:sha256:{sha256(text).hexdigest()}"
    )


def _storable(values: Iterable[str]) -> list[str]:
    """Those that text can hold: no event in table events has another one."""
    return [value for value in values if "\0" not in value and _is_unicode(value)]


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
