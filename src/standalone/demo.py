"""`make demo`: archive three local relays with the real services, and prove it complete.

What the relays hold is asked of the relays; what is archived is read back from PostgreSQL,
every id recomputed. Exit code 0 means that nothing is missing and nothing was altered.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from errors import BigBrotrError, ServiceError
from standalone import demo_archive, report
from standalone.demo_archive import Progress, ReadBack
from standalone.demo_events import (
    RELAYS,
    Planned,
    build_events,
    events_for,
    most_in_one_second,
)
from standalone.kept import remember
from standalone.processes import free_port
from standalone.relay_client import publish, served
from standalone.relays import RunningRelay, start_local_relay, start_nostr_relay
from standalone.report import RelayResult, Verdict
from standalone.signing import Author, DemoEvent
from standalone.suite import READER, SERVICES, Passwords, Plan, Suite, open_suite

EVENTS = 20_000
TIME_LIMIT = 240.0
_POLL_SECONDS = 3.0
# After the last event the walk still has to ask once below it for its proof.
_PROOF_SECONDS = 30.0
_SOFTWARE = ("nostr-sdk, cap 500", "nostr-sdk, cap 300", "nostr-relay")


@dataclass(slots=True)
class Stage:
    """The relays and what they hold (ids by URL); `published` has every event by its id."""

    relays: list[RunningRelay] = field(default_factory=list)
    published: dict[str, DemoEvent] = field(default_factory=dict)
    held: dict[str, Set[str]] = field(default_factory=dict)
    until: int = 0

    @property
    def names(self) -> dict[str, str]:
        """The relays' names by URL."""
        return {relay.url: relay.name for relay in self.relays}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code is 0 when it proved the archive complete."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.add_argument("--events", type=int, default=EVENTS, help="size of the published set")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds")
    options = parser.parse_args(arguments)
    # A termination request unwinds like Ctrl-C, so that nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="bigbrotr-demo-"))
    folder.chmod(0o755)
    demo = Demo(folder, options.events, options.time_limit, keep=options.keep)
    passed = False
    try:
        passed = demo.run()
    except BigBrotrError as error:
        print(f"demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
    finally:
        demo.close(passed)
    return 0 if passed else 1


class Demo:
    """One run of the demo, with its files in `folder`."""

    def __init__(self, folder: Path, total: int, time_limit: float, *, keep: bool) -> None:
        self._folder = folder
        self._total = total
        self._time_limit = time_limit
        self._keep = keep
        self._stage = Stage()
        self._suite: Suite | None = None
        self._verdict: Verdict | None = None
        self._ports = {name: free_port() for name in SERVICES}

    def run(self) -> bool:
        """The whole of it; whether the archive is complete and unaltered."""
        _say(f"working in {self._folder}")
        self._start_relays()
        asyncio.run(self._load_relays())
        suite = self._start_suite()
        started = time.monotonic()
        reached = asyncio.run(self._watch(suite, started))
        codes = {} if self._keep else suite.stop_services()
        result, counts, progress = asyncio.run(self._read(suite))
        self._report(suite, result, counts, progress, reached)
        clean = all(code == 0 for code in codes.values())
        if not clean:
            _say(f"a service did not stop cleanly, exit codes: {codes}")
        return clean and self._verdict is not None and self._verdict.passed

    def close(self, passed: bool) -> None:
        """Stop everything unless it is to be kept; the verdict is the last line."""
        suite = self._suite
        if suite is not None and not passed:
            for name, child in suite.services.items():
                print(f"--- the end of {child.log} ({name})\n{child.tail()}")
        if self._keep and suite is not None and self._verdict is not None:
            self._explain_kept(suite)
        else:
            for relay in self._stage.relays:
                relay.child.ask_to_stop()
            if suite is not None:
                suite.stop()
            for relay in self._stage.relays:
                relay.stop()
            if passed:
                shutil.rmtree(self._folder, ignore_errors=True)
            else:
                _say(f"the logs are in {self._folder}")
        if self._verdict is not None:
            print(self._verdict.line(), flush=True)

    def _start_relays(self) -> None:
        folder = self._folder / "relays"
        for number, cap in enumerate((500, 300), start=1):
            self._stage.relays.append(
                start_local_relay(f"relay-{number}", folder, cap, outlive_parent=self._keep)
            )
        self._stage.relays.append(start_nostr_relay("relay-3", folder, outlive_parent=self._keep))

    async def _load_relays(self) -> None:
        stage = self._stage
        now = int(time.time())
        stage.until = now
        planned = build_events(
            self._total, now, stage.relays[2].websocket, f"ws://127.0.0.1:{free_port()}"
        )
        stage.published = {one.event.id: one.event for one in planned}
        _say(f"signed {len(planned):,} events, publishing them to {RELAYS} relays")
        held = await asyncio.gather(
            *(_load(relay, planned, number) for number, relay in enumerate(stage.relays))
        )
        stage.held = {relay.url: ids for relay, ids in zip(stage.relays, held, strict=True)}
        everything = set().union(*held)
        _say(
            f"the relays hold {len(everything):,} different events; the other "
            f"{len(planned) - len(everything)} were refused by all, replaced or deleted"
        )

    def _start_suite(self) -> Suite:
        stage, folder = self._stage, self._folder
        suite = open_suite(Plan(folder, Passwords.random(), outlive_parent=self._keep))
        self._suite = suite
        _say(
            f"PostgreSQL {suite.postgres.binaries.version} from {suite.postgres.binaries.folder}, "
            + ("PgBouncer in front of it" if suite.pgbouncer else "no PgBouncer")
        )
        first, second = stage.relays[0].websocket, stage.relays[1].websocket
        seeds = f"# relay 3 is in no list\n{first}\n{second}\n{second}/\nnot a relay\n"
        (folder / "seed_relays.txt").write_text(seeds)
        (folder / "priority_relays.txt").write_text(f"{first}\n")
        settings = self._settings()
        suite.initialize(settings)
        for name in SERVICES:
            suite.start_service(name, settings | {"HEALTH_CHECK_PORT": str(self._ports[name])})
        return suite

    def _settings(self) -> dict[str, str]:
        folder, archive = self._folder, Author("the demo's archive")
        return {
            "ALLOW_PRIVATE_RELAYS": "true",
            "SECRET_KEY": archive.secret_key,
            "PUBLIC_KEY": archive.pubkey,
            "SEED_RELAYS_PATH": str(folder / "seed_relays.txt"),
            "FINDER_AGGREGATOR_URLS": "",
            "FINDER_LOOP_INTERVAL_MINUTES": "0.03",
            "MONITOR_LOOP_INTERVAL_MINUTES": "0.03",
            "MONITOR_REQUEST_TIMEOUT": "5",
            "MONITOR_NUM_CORES": "1",
            "SYNCHRONIZER_PRIORITY_RELAYS_PATH": str(folder / "priority_relays.txt"),
            "SYNCHRONIZER_LOOP_INTERVAL_MINUTES": "0.03",
            "SYNCHRONIZER_NUM_CORES": "1",
            # Up to the newest event, instead of the day before yesterday's end.
            "SYNCHRONIZER_STOP_TIMESTAMP": str(self._stage.until),
        }

    async def _watch(self, suite: Suite, started: float) -> dict[str, float]:
        """Follow the services until all is archived and proven, or the time is up; the seconds
        after which each relay reached its last event, by URL.

        Raises ServiceError when a service ends by itself.
        """
        stage = self._stage
        held = {url: len(ids) for url, ids in stage.held.items()}
        reached: dict[str, float] = {}
        archived: dict[str, int] = {}
        done_at: float | None = None
        connection = await _connect(suite)
        try:
            while (seconds := time.monotonic() - started) < self._time_limit:
                progress = await demo_archive.read_progress(connection, held)
                for url, relay in progress.relays.items():
                    if relay.archived > archived.get(url, 0):
                        archived[url], reached[url] = relay.archived, seconds
                _say(report.progress_line(seconds, progress, stage.names, held))
                _check_services(suite)
                complete = all(progress.relays[url].archived >= n for url, n in held.items())
                if complete:
                    done_at = done_at or seconds
                    proven = all(relay.proven >= 100 for relay in progress.relays.values())
                    if proven or seconds - done_at > _PROOF_SECONDS:
                        break
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            await connection.close()
        return reached

    async def _read(self, suite: Suite) -> tuple[ReadBack, dict[str, int], Progress]:
        connection = await _connect(suite)
        try:
            result = await demo_archive.read_back(connection, self._stage.published)
            counts = await demo_archive.read_counts(connection)
            return result, counts, await demo_archive.read_progress(connection, self._stage.held)
        finally:
            await connection.close()

    def _report(
        self,
        suite: Suite,
        result: ReadBack,
        counts: Mapping[str, int],
        progress: Progress,
        reached: Mapping[str, float],
    ) -> None:
        self._verdict = report.judge(self._stage.held, result)
        rows = [
            RelayResult(
                relay.name,
                software,
                len(self._stage.held[relay.url]),
                len(self._stage.held[relay.url] & report.archived_from(relay.url, result)),
                progress.relays[relay.url].proven,
                reached.get(relay.url, 0.0),
            )
            for relay, software in zip(self._stage.relays, _SOFTWARE, strict=True)
        ]
        print(f"\n{report.table(rows)}\n")
        for name in ("initializer", *SERVICES):
            log = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
            print(report.service_line(name, log))
        print(report.archive_line(counts, len(result.right), result.unknown))
        for event_id, problem in list(result.wrong.items())[:10]:
            print(f"WRONG {event_id}: {problem}")
        print(flush=True)

    def _explain_kept(self, suite: Suite) -> None:
        children = [*suite.children, *(relay.child for relay in self._stage.relays)]
        remember("demo", self._folder, children)
        _say("everything still runs; `make stop` ends it")
        for name, port in self._ports.items():
            print(f"  {name:22} http://127.0.0.1:{port}/  /health  /ready")
        for relay in self._stage.relays:
            print(f"  {relay.name:22} {relay.websocket}")
        print(f"  logs                   {self._folder}")
        password = suite.plan.passwords.reader
        print(f"  archive                PGPASSWORD={password} {suite.psql()}", flush=True)


async def _load(relay: RunningRelay, planned: Sequence[Planned], number: int) -> Set[str]:
    events = events_for(planned, number)
    started = time.monotonic()
    publication = await publish(relay.websocket, events)
    held = await served(relay.websocket, [event.id for event in events])
    reasons = Counter(publication.refused.values())
    refused = ", ".join(f"{amount} ({reason})" for reason, amount in reasons.most_common(3))
    _say(
        f"{relay.name}: {len(events):,} events sent in {time.monotonic() - started:.1f} s, "
        f"{len(held):,} held, {most_in_one_second(events)} of them in one second"
        + (f"; refused {refused}" if refused else "")
    )
    return held


async def _connect(suite: Suite) -> asyncpg.Connection:
    return await asyncpg.connect(
        host="127.0.0.1",
        port=suite.port,
        user=READER,
        password=suite.plan.passwords.reader,
        database=suite.plan.dbname,
        statement_cache_size=0,
    )


def _check_services(suite: Suite) -> None:
    for name, child in suite.services.items():
        if not child.alive:
            raise ServiceError(f"the {name} ended by itself (exit code {child.wait(1)})")


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
