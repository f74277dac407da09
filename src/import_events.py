"""Reads events from lines of JSON into the archive: `python src/import_events.py --help`.

Needs POSTGRES_HOST, POSTGRES_PORT, POSTGRES_USER (bigbrotr_writer), POSTGRES_PASSWORD and
POSTGRES_DB; ALLOW_PRIVATE_RELAYS as for the services. docs/export.md describes the formats.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Final

from config import load_tool_config
from config_types import ToolConfig
from nostr.urls import RelayUrl
from transfer.files import STANDARD, reading
from transfer.importing import Importer, ImportReport, NumberedLine, batches
from transfer.program import archive, run_program
from transfer.progress import Progress

NAME: Final = "import_events"
_AT_ONCE: Final = 2


async def import_lines(
    config: ToolConfig,
    lines: Iterator[NumberedLine],
    *,
    relay: RelayUrl | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Archive the events of numbered lines, checked like those of a relay. May be repeated.

    While one batch is written the next one is read and checked, so memory is bounded by the
    batches' size. Raises DatabaseError and FileUnusable; what was committed before stays.
    """
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads + 1, thread_name_prefix="import") as executor:
        async with archive(config.database, connections=_AT_ONCE) as db:
            importer = Importer(
                db,
                executor,
                threads,
                int(time.time()),
                relay=relay,
                allow_private=config.allow_private_relays,
            )
            report = importer.report
            under_way: list[asyncio.Task[None]] = []
            try:
                async with aclosing(_read(batches(lines))) as read:
                    async for batch in read:
                        under_way.append(asyncio.create_task(importer.take(batch)))
                        if len(under_way) == _AT_ONCE:
                            await under_way.pop(0)
                        if progress is not None:
                            progress.show(report.lines, _summary(report))
                for task in under_way:
                    await task
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)
    if progress is not None:
        progress.show(report.lines, _summary(report), last=True)
    return report


async def _read(found: Iterator[list[NumberedLine]]) -> AsyncGenerator[list[NumberedLine], None]:
    while batch := await asyncio.to_thread(next, found, None):
        yield batch


def _summary(report: ImportReport) -> str:
    return (
        f"{report.new:,} new, {report.known:,} known, {report.sightings:,} new sightings, "
        f"{report.refused.total():,} refused"
    )


async def _run(arguments: argparse.Namespace) -> int:
    progress = Progress(NAME)
    config = load_tool_config()
    relay = None
    if arguments.relay is not None:
        relay = RelayUrl.parse(arguments.relay, allow_private=config.allow_private_relays)
    with reading(arguments.file) as lines:
        report = await import_lines(config, lines, relay=relay, progress=progress)
    for reason, count in sorted(report.refused.items()):
        shown = ", ".join(map(str, report.examples[reason]))
        more = ", ..." if count > len(report.examples[reason]) else ""
        progress.say(f"refused as {reason}: {count:,} (line {shown}{more})")
    return 1 if report.refused else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the import as a program and return its exit code."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Read events from lines of JSON, plain or zstd, into the archive."
    )
    parser.add_argument(
        "file", nargs="?", default=STANDARD, help="where from. Default: -, standard input"
    )
    parser.add_argument("--relay", metavar="URL", help="a relay that holds all of these events")
    arguments = parser.parse_args(argv)
    return run_program(NAME, lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
