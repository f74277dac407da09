"""The published health ports, in front of real health check servers at several addresses."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import aiohttp
import pytest

from components.services import ROOT
from health_gateway import Answer, Gateway, Route, combine, find_containers, parse_route
from healthcheck import HealthCheckServer, ReadyCheck
from standalone.processes import free_port

# The loopback interface has many addresses: each stands for a container's.
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
PORT = free_port()


async def ready() -> bool:
    return True


async def without_database() -> bool:
    raise OSError("no database")


async def silent() -> bool:
    await asyncio.Event().wait()
    return True


@asynccontextmanager
async def containers(*checks: ReadyCheck) -> AsyncIterator[Sequence[str]]:
    """One container for each check; gives their addresses."""
    async with AsyncExitStack() as stack:
        for address, check in zip(ADDRESSES, checks, strict=False):
            server = HealthCheckServer(PORT, check, partial(dict, cycles=3), host=address)
            await server.start()
            stack.push_async_callback(server.stop)
        yield ADDRESSES[: len(checks)]


async def ask(
    path: str, addresses: Sequence[str], seconds: float = 10, method: str = "GET"
) -> tuple[int, object]:
    async def find(host: str) -> Sequence[str]:
        assert host == "synchronizer"
        return addresses

    route = Route(free_port(), "synchronizer", PORT)
    async with AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(total=seconds)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        await Gateway(route, session, find).start(stack, "127.0.0.1")
        url = f"http://127.0.0.1:{route.port}{path}"
        async with aiohttp.request(method, url) as answer:
            if method == "HEAD" or answer.status == 404:
                return answer.status, None
            return answer.status, await answer.json()


async def test_of_one_container_the_answers_are_its_own() -> None:
    async with containers(ready) as one:
        assert await ask("/health", one) == (200, {"status": "healthy"})
        assert await ask("/ready", one) == (200, {"status": "ready"})
        assert await ask("/", one) == (200, {"cycles": 3, "endpoints": ["/health", "/ready"]})
        assert await ask("/ready", one, method="HEAD") == (200, None)
        assert await ask("/metrics", one) == (404, None)
    async with containers(without_database) as one:
        reason = {"status": "not ready", "reason": "no database"}
        assert await ask("/ready", one) == (503, reason)
        assert await ask("/health", one) == (200, {"status": "healthy"})


async def test_several_are_as_good_as_the_worst_of_them() -> None:
    async with containers(ready, without_database, ready) as three:
        status, body = await ask("/ready", three)
        assert status == 503
        assert isinstance(body, dict)
        assert [said["status"] for said in body["containers"].values()] == [
            "ready",
            "not ready",
            "ready",
        ]
        status, body = await ask("/health", three)
        assert status == 200
        assert isinstance(body, dict)
        assert len(body["containers"]) == 3


async def test_who_does_not_answer_is_unreachable() -> None:
    status, body = await ask("/health", [])
    reason = "no container of synchronizer runs"
    assert (status, body) == (503, {"status": "unreachable", "reason": reason})
    status, body = await ask("/health", [ADDRESSES[0]])
    assert status == 503
    assert ADDRESSES[0] in str(body)
    async with containers(silent) as one:
        status, body = await ask("/ready", one, seconds=0.2)
        assert status == 503
        assert "no answer" in str(body)


def test_the_worst_status_wins() -> None:
    good, bad = Answer("a", 200, {"status": "ready"}), Answer("b", 503, {"status": "not ready"})
    assert combine("s", [good, bad]) == combine("s", [bad, good])
    assert combine("s", [good, bad])[0] == 503
    assert combine("s", [good, good])[0] == 200


async def test_names_lead_to_addresses() -> None:
    assert await find_containers("127.0.0.2") == ["127.0.0.2"]
    assert await find_containers("nobody.invalid") == []


@pytest.mark.parametrize("text", ["", "8082", "8082=x", "8082=x:0", "70000=x:1", "8082=a b:1"])
def test_a_wrong_route_is_named(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not PORT=HOST:PORT"):
        parse_route(text)


async def test_the_program_serves_until_sigterm() -> None:
    port = free_port()
    async with containers(ready) as (address,):
        code = f"""
import asyncio, health_gateway as gateway
raise SystemExit(asyncio.run(gateway.serve(
    [gateway.parse_route("{port}={address}:{PORT}")], own_port={free_port()}, address="127.0.0.1")))
"""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, cwd=ROOT / "src", stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(30):
            while process.returncode is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                await asyncio.sleep(0.05)
            async with aiohttp.request("GET", f"http://127.0.0.1:{port}/ready") as answer:
                assert await answer.json() == {"status": "ready"}
            os.kill(process.pid, signal.SIGTERM)
            assert await process.wait() == 0
