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
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg

from errors import BigBrotrError, ServiceError
from standalone import demo_archive, report
from standalone.demo_archive import Reading
from standalone.demo_events import MINIMUM_EVENTS
from standalone.demo_stage import SOFTWARE, Stage
from standalone.kept import remember
from standalone.processes import free_port
from standalone.report import RelayResult, Verdict
from standalone.signing import Author
from standalone.suite import READER, SERVICES, Passwords, Plan, Suite, open_suite

EVENTS = 20_000
TIME_LIMIT = 240.0
_POLL_SECONDS = 0.5
_SAY_SECONDS = 3.0
# After the last event the walk still has to ask once below it for its proof.
_PROOF_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code is 0 when it proved the archive complete."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.add_argument("--events", type=int, default=EVENTS, help="size of the published set")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds")
    options = parser.parse_args(arguments)
    if options.events < MINIMUM_EVENTS:
        parser.error(f"--events is {options.events}: give {MINIMUM_EVENTS} or more")
    # A termination request unwinds like Ctrl-C, so that nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="bigbrotr-demo-"))
    folder.chmod(0o755)
    demo = Demo(folder, options.events, options.time_limit, keep=options.keep)
    passed = False
    try:
        passed = demo.run()
    except (BigBrotrError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
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
        self._stage.start_relays(self._folder / "relays", outlive_parent=self._keep)
        asyncio.run(self._stage.load(self._total, _say))
        suite = self._start_suite()
        started = time.monotonic()
        reached = asyncio.run(self._watch(suite, started))
        codes = {} if self._keep else suite.stop_services()
        self._report(asyncio.run(self._read(suite)), reached)
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
            if suite is not None:
                suite.stop()
            self._stage.stop()
            if passed:
                shutil.rmtree(self._folder, ignore_errors=True)
            else:
                _say(f"the logs are in {self._folder}")
        if self._verdict is not None:
            print(self._verdict.line(), flush=True)

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
            "FINDER_NIP66_RELAYS": self._stage.relays[0].websocket,
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
        """Follow the services until all is archived and proven, or the time is up; for how many
        seconds each relay's events were coming in, by URL.

        Raises ServiceError when a service ends by itself.
        """
        held = {url: len(ids) for url, ids in self._stage.held.items()}
        clock = report.ArrivalClock()
        done_at: float | None = None
        said_at = -_SAY_SECONDS
        connection = await _connect(suite)
        try:
            while (seconds := time.monotonic() - started) < self._time_limit:
                progress = await demo_archive.read_progress(connection, held)
                clock.note(seconds, progress)
                complete = all(progress.relays[url].archived >= n for url, n in held.items())
                proven = all(relay.proven >= 100 for relay in progress.relays.values())
                done_at = (done_at or seconds) if complete else None
                over = done_at is not None and (proven or seconds - done_at > _PROOF_SECONDS)
                if over or seconds - said_at >= _SAY_SECONDS:
                    said_at = seconds
                    _say(report.progress_line(seconds, progress, self._stage.names, held))
                if over:
                    break
                _check_services(suite)
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            await connection.close()
        return clock.seconds()

    async def _read(self, suite: Suite) -> Reading:
        connection = await _connect(suite)
        try:
            return await demo_archive.read_all(connection, self._stage.published, self._stage.held)
        finally:
            await connection.close()

    def _report(self, reading: Reading, reached: Mapping[str, float]) -> None:
        result, progress = reading.back, reading.progress
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
            for relay, software in zip(self._stage.relays, SOFTWARE, strict=True)
        ]
        print(f"\n{report.table(rows)}\n")
        for name in ("initializer", *SERVICES):
            log = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
            print(report.service_line(name, log))
            if name == "finder":
                print("\n".join(report.finder_lines(reading.named, self._stage.names, log)))
            if name == "monitor":
                print("\n".join(report.monitor_lines(reading.checked, self._stage.names)))
        print(report.archive_line(reading.counts, len(result.right), result.unknown))
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
