"""`make run`: the suite on the real network with the settings of `.env`, until Ctrl-C.

The database lives in `.run/archive` and is kept between runs. A service that ends by itself is
started again, after ever longer pauses while it keeps ending.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from errors import BigBrotrError, ConfigError, PortTaken
from settings import Settings
from standalone import dotenv
from standalone.processes import Child, accepts_connections, free_port, service_account
from standalone.suite import SERVICES, Passwords, Plan, Suite, open_suite

ROOT = Path(__file__).parents[2]
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
# A service that ran this long is not taken to end because of how it was started.
STEADY_SECONDS = 120.0
WRONG_SETTING = 2
LOG_BYTES = 50_000_000
_PORTS = {
    "DATABASE_PORT": 5432,
    "PGBOUNCER_PORT": 6432,
    "MONITOR_PORT": 8081,
    "SYNCHRONIZER_PORT": 8082,
    "PRIORITY_SYNCHRONIZER_PORT": 8083,
    "FINDER_PORT": 8084,
}


@dataclass(frozen=True, slots=True)
class Restart:
    """When a service that ended is started again (monotonic seconds), and the pause before."""

    at: float
    pause: float


def next_restart(previous: Restart | None, started: float, now: float) -> Restart:
    """The restart of a service that was started at `started` and has ended by `now`."""
    if previous is None or now - started >= STEADY_SECONDS:
        pause = FIRST_PAUSE
    else:
        pause = min(previous.pause * 2, LONGEST_PAUSE)
    return Restart(now + pause, pause)


def data_folder(chosen: str | None) -> Path:
    """Where the archive's data is kept: the `chosen` folder, else below the repository, else,
    where PostgreSQL's account cannot reach that (a clone under /root), /var/lib/bigbrotr."""
    if chosen:
        return Path(chosen).absolute()
    account = service_account()
    if account is None or account.can_reach(ROOT):
        return ROOT / ".run" / "archive"
    return Path("/var/lib/bigbrotr")


def choose_port(name: str, environ: Mapping[str, str]) -> int:
    """The port in the variable `name`, which must be free; without it the usual one, or another
    when that is taken. Of a range (for replicas in containers) the first counts.

    Raises PortTaken or ConfigError.
    """
    usual = _PORTS[name]
    if environ.get(name):
        first, _, _ = environ[name].partition("-")
        port = Settings({name: first or environ[name]}).integer(name, usual)
        if not 0 < port < 65_536:
            raise ConfigError(f"{name} is {port}: give a port from 1 to 65535")
        if accepts_connections(port):
            raise PortTaken(f"{name}: port {port} is in use: give another or stop what uses it")
        return port
    return free_port() if accepts_connections(usual) else usual


def make_plan(environ: Mapping[str, str], folder: Path) -> Plan:
    """What to start, from the variables of `.env`, with its data in `folder`; raises ConfigError
    and PortTaken."""
    settings = Settings(environ)
    passwords = Passwords(
        owner=settings.secret("POSTGRES_PASSWORD"),
        writer=settings.secret("POSTGRES_WRITER_PASSWORD"),
        reader=settings.secret("POSTGRES_READER_PASSWORD"),
        pgbouncer_auth=settings.secret("PGBOUNCER_AUTH_PASSWORD"),
    )
    return Plan(
        folder,
        passwords,
        owner=settings.text("POSTGRES_USER", "admin"),
        dbname=settings.text("POSTGRES_DB", "bigbrotr"),
        postgres_port=choose_port("DATABASE_PORT", environ),
        pgbouncer_port=choose_port("PGBOUNCER_PORT", environ),
    )


class Supervisor:
    """Keeps the services of a suite running; `settings` are each one's own."""

    def __init__(self, suite: Suite, settings: Mapping[str, Mapping[str, str]]) -> None:
        self._suite = suite
        self._settings = settings
        self._started: dict[str, float] = {}
        self._restarts: dict[str, Restart] = {}
        self._due: dict[str, float] = dict.fromkeys(settings, 0.0)

    def step(self, now: float) -> None:
        """Start what is due and plan the restart of what has ended (monotonic seconds).

        Raises ConfigError when a service refuses its settings: it would do so again.
        """
        for name in [name for name, at in self._due.items() if at <= now]:
            self._suite.start_service(name, self._settings[name])
            self._started[name] = now
            del self._due[name]
        for name, child in self._suite.services.items():
            child.limit_log(LOG_BYTES)
            if not child.alive and name not in self._due:
                self._plan_restart(name, child, now)

    def _plan_restart(self, name: str, child: Child, now: float) -> None:
        code = child.wait(1)
        if code == WRONG_SETTING:
            raise ConfigError(child.tail(1))
        restart = next_restart(self._restarts.get(name), self._started[name], now)
        self._restarts[name], self._due[name] = restart, restart.at
        _say(
            f"the {name} ended (exit code {code}), starting it again in "
            f"{restart.pause:.0f} s; its log ends: {child.tail(1)}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C or SIGTERM: 0; 1 when the suite cannot run, 2 when a setting is wrong."""
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    parser.add_argument("--data", help="where to keep the database and the logs")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    suite: Suite | None = None
    try:
        environ = {**dotenv.read(ROOT / ".env"), **os.environ}
        plan = make_plan(environ, data_folder(options.data))
        ports = {name: choose_port(f"{name.upper()}_PORT", environ) for name in SERVICES}
        suite = open_suite(plan)
        settings = service_settings(environ)
        _say(f"database in {plan.folder}; bringing it up to date and adding the seed relays")
        suite.initialize(settings)
        supervisor = Supervisor(
            suite,
            {name: settings | {"HEALTH_CHECK_PORT": str(ports[name])} for name in SERVICES},
        )
        _announce(suite, ports)
        while True:
            supervisor.step(time.monotonic())
            time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
    except ConfigError as error:
        _say(str(error))
        return WRONG_SETTING
    except BigBrotrError as error:
        _say(str(error))
        return 1
    finally:
        if suite is not None:
            _say("stopping")
            suite.stop()


def service_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What the services get of `environ`: everything but where the database is and the
    passwords, which the suite gives to each as it needs them."""
    ours = ("POSTGRES_", "PGBOUNCER_", "PGADMIN_")
    return {name: value for name, value in environ.items() if not name.startswith(ours)}


def _announce(suite: Suite, ports: Mapping[str, int]) -> None:
    _say("running, Ctrl-C stops it")
    for name, port in ports.items():
        print(f"  {name:22} http://127.0.0.1:{port}/  /health  /ready")
    print(f"  logs                   {suite.plan.folder}/*.log")
    print(f"  archive                {suite.psql()}  (POSTGRES_READER_PASSWORD)", flush=True)


def _say(text: str) -> None:
    print(f"run: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
