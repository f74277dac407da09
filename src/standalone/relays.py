"""The relays of the demo and the tests: two independent implementations on loopback."""

import json
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from errors import ComponentMissing
from standalone.processes import Child, accepts_connections, free_port, start, wait_until

_START_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """A relay process on the loopback interface."""

    name: str
    child: Child
    port: int

    @property
    def url(self) -> str:
        """Its URL in the archive's canonical form."""
        return f"wss://127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        """Where it really listens."""
        return f"ws://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End the process; its events are gone."""
        self.child.stop(10)


def start_local_relay(
    name: str, folder: Path, cap: int, *, outlive_parent: bool = False
) -> RunningRelay:
    """nostr-sdk's LocalRelay (Rust) with at most `cap` events in an answer, kept in memory.

    Raises ComponentMissing when it does not start.
    """
    port = free_port()
    command = [sys.executable, "-m", "standalone.local_relay", str(port), str(cap)]
    return _start(name, command, port, folder, outlive_parent)


def start_nostr_relay(name: str, folder: Path, *, outlive_parent: bool = False) -> RunningRelay:
    """The PyPI package nostr-relay (Python, SQLite in `folder`): it takes old and big events.

    Raises ComponentMissing when it is not installed or does not start.
    """
    program = shutil.which("nostr-relay", path=sysconfig.get_path("scripts"))
    if program is None:
        raise ComponentMissing("nostr-relay is not installed; run `make setup`")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    # JSON is YAML too.
    settings = folder / f"{name}.yaml"
    settings.write_text(json.dumps(_nostr_relay_settings(name, folder, port), indent=2))
    command = [program, "--config", str(settings), "serve", "--use-uvicorn"]
    return _start(name, command, port, folder, outlive_parent)


def _nostr_relay_settings(name: str, folder: Path, port: int) -> dict[str, object]:
    return {
        "DEBUG": False,
        "relay_name": name,
        "relay_description": "a relay of the demo",
        "storage": {
            "sqlalchemy.url": f"sqlite+aiosqlite:///{folder / name}.sqlite3",
            "num_concurrent_reqs": 10,
            "num_concurrent_adds": 2,
            # Its defaults also refuse old events and content above 4,096 characters.
            "validators": ["nostr_relay.validators.is_signed"],
        },
        "verification": {"nip05_verification": "disabled"},
        "authentication": {"enabled": False},
        "gunicorn": {"bind": f"127.0.0.1:{port}", "loglevel": "warning"},
        "logging": {"version": 1, "disable_existing_loggers": True},
        "message_timeout": 1800,
        "subscription_limit": 32,
        "max_limit": 6000,
        "hellthread_limit": 0,
    }


def _start(
    name: str, command: list[str], port: int, folder: Path, outlive_parent: bool
) -> RunningRelay:
    folder.mkdir(parents=True, exist_ok=True)
    child = start(
        name,
        command,
        folder / f"{name}.log",
        cwd=Path(__file__).parent.parent,
        outlive_parent=outlive_parent,
    )
    if not wait_until(partial(accepts_connections, port), child, _START_TIMEOUT):
        child.stop()
        raise ComponentMissing(f"the relay {name} does not start:\n{child.tail()}")
    return RunningRelay(name, child, port)
