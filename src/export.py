"""Writes the archive's events as lines of JSON: `python src/export.py --help`.

Needs POSTGRES_HOST, POSTGRES_PORT, POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB; the role
bigbrotr_reader suffices. docs/export.md describes the format.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from config import load_tool_config
from config_types import DatabaseConfig
from errors import FilterInvalid, MessageMalformed
from nostr.filters import clean_filter
from nostr.json_text import decode_json
from nostr.urls import RelayUrl
from transfer.files import STANDARD, Write, writing
from transfer.lines import encode_line
from transfer.program import archive, run_program
from transfer.progress import Progress
from transfer.reading import ReadBatch, read_events
from transfer.selection import Selection

NAME: Final = "export"
_EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class ExportReport:
    """How many events were written, and their size before compression. `damaged` counts rows
    that are not the event that their id names, which were left out; `examples` are a few ids."""

    events: int
    bytes: int
    damaged: int
    examples: tuple[str, ...]


async def export(
    database: DatabaseConfig,
    selection: Selection,
    write: Write,
    *,
    with_relays: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write every selected event once, newest first, all from one snapshot of the archive.

    Raises DatabaseError and FileUnusable.
    """
    events = size = damaged = 0
    examples: tuple[str, ...] = ()
    async with archive(database, connections=1) as db, db.snapshot() as conn:
        async for batch in read_events(conn, selection, with_relays=with_relays):
            lines = _lines(batch, with_relays)
            await asyncio.to_thread(write, lines)
            events, size = events + len(batch.events), size + len(lines)
            damaged += len(batch.damaged)
            examples = (*examples, *batch.damaged)[:_EXAMPLES]
            if progress is not None:
                progress.show(events, _megabytes(size))
    if progress is not None:
        progress.show(events, _megabytes(size), last=True)
    return ExportReport(events, size, damaged, examples)


def _lines(batch: ReadBatch, with_relays: bool) -> bytes:
    if not with_relays:
        return b"".join(map(encode_line, batch.events))
    return b"".join(encode_line(event, batch.relays.get(event.id, ())) for event in batch.events)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def read_filter(text: str) -> tuple[Selection, tuple[str, ...]]:
    """The selection that a filter's JSON makes, and its keys that are none of NIP-01; raises
    FilterInvalid."""
    try:
        value = decode_json(text.encode(errors="surrogateescape"))
    except MessageMalformed:
        raise FilterInvalid(f"--filter is not JSON: {text[:100]!r}") from None
    if type(value) is not dict:
        raise FilterInvalid(f"--filter is {text[:100]!r}: give a JSON object")
    cleaned, dropped = clean_filter(value)
    return Selection(cleaned), dropped


async def _run(arguments: argparse.Namespace) -> int:
    progress = Progress(NAME)
    selection, dropped = read_filter(arguments.filter)
    if dropped:
        progress.say(f"filter keys that NIP-01 does not have are ignored: {', '.join(dropped)}")
    if arguments.relay is not None:
        relay = RelayUrl.parse(arguments.relay, allow_private=True)
        selection = Selection(selection.filter, relay)
    config = load_tool_config()
    with writing(arguments.output, compress=arguments.zstd) as write:
        report = await export(
            config.database,
            selection,
            write,
            with_relays=arguments.with_relays,
            progress=progress,
        )
    if report.damaged:
        shown = ", ".join(report.examples)
        progress.say(f"left out {report.damaged:,} rows that are not what their id says: {shown}")
    return 1 if report.damaged else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the export as a program and return its exit code."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Write the archive's events as lines of JSON, newest first."
    )
    parser.add_argument(
        "--output",
        default=STANDARD,
        metavar="FILE",
        help="where to; it appears when it is whole. Default: -, standard output",
    )
    parser.add_argument(
        "--filter", default="{}", metavar="JSON", help="a NIP-01 filter. Default: every event"
    )
    parser.add_argument("--relay", metavar="URL", help="only events that this relay holds")
    parser.add_argument("--zstd", action="store_true", help="compress")
    parser.add_argument(
        "--with-relays", action="store_true", help="with the relays that hold each event"
    )
    arguments = parser.parse_args(argv)
    return run_program(NAME, lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
