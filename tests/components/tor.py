"""A way to onion relays: a real Tor network where the machine has ours, else a SOCKS proxy."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from socks_proxy import SocksProxy
from standalone.debian import find_program

LAB = Path(__file__).parents[2].parent / "shared" / "tor-lab"
# A name with a right checksum, for the proxy that plays Tor.
ONION = "oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"


@dataclass(frozen=True, slots=True)
class Onion:
    """A local port behind an onion name. `real` is whether Tor leads there."""

    socks_port: int
    host: str
    real: bool

    @property
    def url(self) -> str:
        """The relay's URL in canonical form."""
        return f"wss://{self.host}"


@asynccontextmanager
async def onion_service(port: int) -> AsyncIterator[Onion]:
    """An onion service in front of a port of the loopback interface."""
    if (LAB / "up").exists():
        async with _real(port) as onion:
            yield onion
        return
    server = await asyncio.start_server(SocksProxy(port).serve, "127.0.0.1", 0)
    async with server:
        yield Onion(server.sockets[0].getsockname()[1], ONION, False)


@asynccontextmanager
async def _real(port: int) -> AsyncIterator[Onion]:
    folder = Path(tempfile.mkdtemp(prefix="bigbrotr-tor-"))
    where = ("--dir", str(folder / "lab"))
    try:
        said = await asyncio.to_thread(_lab, "up", "--json", *where, str(port))
        yield _onion(json.loads(said))
    finally:
        await asyncio.to_thread(_lab, "down", *where)
        shutil.rmtree(folder, ignore_errors=True)


def _lab(*arguments: str) -> str:
    programs = [find_program(name, "tor") for name in ("tor", "tor-gencert")]
    folders = dict.fromkeys(str(program.path.parent) for program in programs)
    env = os.environ | {"PATH": ":".join((*folders, os.environ.get("PATH", "")))}
    if programs[0].libraries:
        env["LD_LIBRARY_PATH"] = programs[0].libraries
    command = [str(LAB / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _onion(document: dict[str, object]) -> Onion:
    match document:
        case {"socks_port": int() as port, "services": [{"onion": str() as host}]}:
            return Onion(port, host, True)
    raise AssertionError(f"tor-lab says {document}")
