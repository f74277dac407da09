"""An onion relay is found, checked and archived, and its name never leaves but through SOCKS.

Through a real Tor network where the machine has tor-lab, else through a SOCKS proxy. The programs
run under strace: what counts is every connect and every datagram of the processes, whichever
library makes them.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import pytest

from bigbrotr import BigBrotr
from components.databases import Database
from components.relays import StartRelay
from components.services import ROOT, environment
from components.tor import ONION, Onion, onion_service
from event_rows import write_events
from nostr.events import SignedEvent
from nostr.urls import RelayUrl, to_relay
from standalone.debian import find_program
from standalone.processes import free_port
from standalone.signing import Author

AUTHOR = Author("onion")
START = 1_700_000_000
EVENTS = [AUTHOR.sign(1, START + number, [], f"note {number}") for number in range(60)]
_CALLS = "connect,sendto,sendmsg,sendmmsg"
_INTERNET = re.compile(
    r'sin6?_port=htons\((?P<port>\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, "|sin6_addr=")'
    r'(?P<address>[^"]+)"'
)


class Watched:
    """What programs did on the network, as strace saw it."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "strace.log"
        self._strace = find_program("strace", "strace").path

    async def run(self, name: str, env: Mapping[str, str]) -> str:
        """A program to its end; what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(str(self._strace), "-f", "-qq", "-A", "-s", "256", "-e", f"trace={_CALLS}"),
            *("-o", str(self._log), sys.executable, str(ROOT / "src" / f"{name}.py"), "--once"),
            env=dict(env),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode()
        assert process.returncode == 0, output
        return output

    @property
    def targets(self) -> set[tuple[str, int]]:
        """Every Internet address and port that anything was sent to."""
        return {
            (found["address"], int(found["port"]))
            for line in self._log.read_text(errors="replace").splitlines()
            for found in _INTERNET.finditer(line)
        }

    def says(self, text: str) -> bool:
        """Whether a datagram or an address held the text."""
        lines = self._log.read_text(errors="replace").splitlines()
        return any(text in line for line in lines if "sendto(" in line or "sendmsg(" in line)


@pytest.fixture
async def onion(local_relay: StartRelay) -> AsyncIterator[Onion]:
    """An onion service in front of a relay with EVENTS."""
    relay = await local_relay(EVENTS)
    async with onion_service(relay.port) as running:
        yield running


def variables(database: Database, folder: Path, **more: object) -> dict[str, str]:
    priority = folder / "priority.txt"
    priority.touch()
    return environment(
        database,
        **{
            "SECRET_KEY": AUTHOR.secret_key,
            "PUBLIC_KEY": AUTHOR.pubkey,
            "ALLOW_PRIVATE_RELAYS": "false",
            "FINDER_AGGREGATOR_URLS": "",
            "FINDER_NIP66_RELAYS": "",
            "MONITOR_NUM_CORES": 1,
            "SYNCHRONIZER_NUM_CORES": 1,
            "SYNCHRONIZER_STOP_TIMESTAMP": START + 1_000,
            "SYNCHRONIZER_START_TIMESTAMP": START - 1_000,
            "SYNCHRONIZER_PRIORITY_RELAYS_PATH": priority,
            **more,
        },
    )


async def name_in_an_event(db: BigBrotr, url: str) -> None:
    """An archived event names the relay."""
    event = AUTHOR.sign(10002, START, [["r", url]], "")
    source = RelayUrl.parse("wss://somewhere.example")

    async def write(conn: asyncpg.Connection) -> object:
        return await write_events(conn, source, START, [SignedEvent(*event)])

    await db.run_in_transaction(write)
    # Only a place to have seen the event at: it must not be asked for itself.
    await db.execute(
        "INSERT INTO relay_tasks (purpose, relay_url, not_before, updated_at) "
        "SELECT purpose, $1, extract(epoch FROM now())::bigint + 86400, 1 "
        "FROM unnest(ARRAY['monitor', 'sync']) AS purpose",
        source.url,
    )


async def test_an_onion_relay_is_found_checked_and_archived_through_socks_alone(
    db: BigBrotr, database: Database, onion: Onion, tmp_path: Path
) -> None:
    env = variables(database, tmp_path, TORPROXY_HOST="127.0.0.1", TORPROXY_PORT=onion.socks_port)
    await name_in_an_event(db, f"ws://{onion.host.upper()}/")
    allowed = {("127.0.0.1", onion.socks_port), ("127.0.0.1", database.port)}
    for name in ("finder", "monitor", "synchronizer"):
        watched = Watched(tmp_path)
        output = await watched.run(name, env)
        assert watched.targets <= allowed, f"{name} went elsewhere\n{output}"
        if name != "finder":
            assert ("127.0.0.1", onion.socks_port) in watched.targets

    facts = await db.fetchone("SELECT * FROM relay_facts WHERE relay_url = $1", onion.url)
    assert facts is not None
    assert (facts["outcome"], facts["scheme"], facts["write_outcome"]) == ("ok", "ws", "ok")
    assert (facts["ipv4"], facts["ipv6"]) == (None, None)
    rows = await db.fetch("SELECT event_id FROM events_relays WHERE relay_url = $1", onion.url)
    assert {row["event_id"] for row in rows} == {event.id for event in EVENTS}
    relay = await db.fetchone("SELECT network FROM relays WHERE url = $1", onion.url)
    assert relay is not None
    assert relay["network"] == "tor"


async def test_an_onion_name_stays_here_when_tor_is_away(
    db: BigBrotr, database: Database, tmp_path: Path
) -> None:
    relay = RelayUrl.parse(f"wss://{ONION}")
    await db.insert_relay_batch([to_relay(relay)], 1)
    proxies = {
        "none": {},
        "dead": {"TORPROXY_HOST": "127.0.0.1", "TORPROXY_PORT": free_port()},
    }
    for name, proxy in proxies.items():
        watched = Watched(tmp_path)
        await watched.run("monitor", variables(database, tmp_path, **proxy))
        port = int(str(proxy.get("TORPROXY_PORT", 0)))
        assert watched.targets <= {("127.0.0.1", database.port), ("127.0.0.1", port)}, name
    assert await db.fetch("SELECT 1 FROM relay_metadata") == []


async def test_the_watch_would_see_a_name_that_leaves(
    db: BigBrotr, database: Database, tmp_path: Path
) -> None:
    """The control: the same programs, the same watch, and a name that goes to DNS."""
    relay = RelayUrl.parse("wss://seen-leaving.example")
    await db.insert_relay_batch([to_relay(relay)], 1)
    watched = Watched(tmp_path)
    await watched.run("monitor", variables(database, tmp_path, MONITOR_REQUEST_TIMEOUT=2))
    assert 53 in {port for _, port in watched.targets}
    assert watched.says("seen-leaving")
