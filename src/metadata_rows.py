"""Checks of relays as rows: the SQL side of relay metadata (NIP-11, NIP-66)."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from nostr_tools import RelayMetadata

from constants import LOG_WARNING
from event_rows import insert_bisected
from logging_config import fields
from nostr.urls import from_relay

ORIGINAL_JSON = "_original_json"

_INSERT = "SELECT insert_relay_metadata_batch($1, $2, $3, $4, $5, $6)"
_NOT_IN_TEXT = re.compile("[\0\ud800-\udfff]")

logger = logging.getLogger(__name__)


async def write_metadata(
    conn: asyncpg.Connection, checks: Sequence[RelayMetadata], relay_inserted_at: int
) -> int:
    """Writes checks in the caller's transaction; returns how many were new. A check that
    PostgreSQL refuses is logged and left out."""
    rows = sorted(
        (from_relay(check.relay), check.generated_at, index) for index, check in enumerate(checks)
    )

    async def insert(conn: asyncpg.Connection, chunk: Sequence[tuple[Any, int, int]]) -> int:
        chosen = [checks[index] for _, _, index in chunk]
        return int(
            await conn.fetchval(
                _INSERT,
                [url.url for url, _, _ in chunk],
                [url.network for url, _, _ in chunk],
                relay_inserted_at,
                [generated_at for _, generated_at, _ in chunk],
                [_document(check.nip11) for check in chosen],
                [_document(check.nip66) for check in chosen],
            )
        )

    if not rows:
        return 0
    new, refused = await insert_bisected(conn, rows, insert)
    for (url, generated_at, _), sqlstate in refused:
        lost = fields(
            "relay_metadata_refused", relay=url, generated_at=generated_at, sqlstate=sqlstate
        )
        logger.warning(f"{LOG_WARNING} {lost}")
    return new


def _document(facts: RelayMetadata.Nip11 | RelayMetadata.Nip66 | None) -> str | None:
    if facts is None:
        return None
    return json.dumps(storable_document(facts.to_dict()), allow_nan=False)


def storable_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as text and jsonb can hold it.

    A relay may put NUL, lone surrogates or infinite numbers into its document, which PostgreSQL
    refuses. They are replaced (by U+FFFD and null), and the document as it was is kept as JSON
    text in `extra_fields`, under `_original_json`, so nothing is lost.
    """
    try:
        clean: dict[str, Any] = _clean(document)
        if clean == document:
            return clean
        original = json.dumps(document)
    except RecursionError:
        flat = {name: value for name, value in document.items() if isinstance(value, str | None)}
        return {**_clean(flat), "extra_fields": {ORIGINAL_JSON: "nested too deep"}}
    extra_fields = clean.get("extra_fields") or {}
    return clean | {"extra_fields": extra_fields | {ORIGINAL_JSON: original}}


def _clean(value: Any) -> Any:
    match value:
        case str():
            return _NOT_IN_TEXT.sub("\ufffd", value)
        case float():
            return value if value - value == 0 else None
        case dict():
            return {_clean(key): _clean(member) for key, member in value.items()}
        case list():
            return [_clean(member) for member in value]
    return value
