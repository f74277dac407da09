"""The health check server, asked over HTTP."""

import asyncio
import socket

import aiohttp
import pytest

import healthcheck
from errors import PortTaken
from healthcheck import HealthCheckServer, Info, ReadyCheck


async def ask(
    path: str,
    *,
    method: str = "GET",
    ready_check: ReadyCheck | None = None,
    info: Info | None = None,
) -> tuple[int, object]:
    server = HealthCheckServer(0, ready_check, info, host="127.0.0.1")
    await server.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{server.port}{path}") as answer,
        ):
            assert answer.content_type == "application/json" or answer.status >= 404
            return answer.status, await answer.json() if method == "GET" else await answer.read()
    finally:
        await server.stop()


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


async def test_health_answers_whatever_readiness_says() -> None:
    assert await ask("/health", ready_check=no) == (200, {"status": "healthy"})


async def test_readiness() -> None:
    assert await ask("/ready") == (200, {"status": "ready"})
    assert await ask("/ready", ready_check=yes) == (200, {"status": "ready"})
    status, body = await ask("/ready", ready_check=no)
    assert status == 503
    assert body == {"status": "not ready", "reason": "the service is not ready yet"}


async def test_a_check_that_raises_is_not_ready_and_says_why() -> None:
    async def broken() -> bool:
        raise RuntimeError("no database")

    status, body = await ask("/ready", ready_check=broken)
    assert (status, body) == (503, {"status": "not ready", "reason": "no database"})


async def test_a_check_that_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthcheck, "READY_CHECK_TIMEOUT", 0.05)

    async def hangs() -> bool:
        await asyncio.Event().wait()
        return True

    status, body = await ask("/ready", ready_check=hangs)
    assert status == 503
    assert "longer than 0.05 s" in str(body)


async def test_the_root_shows_the_information_of_the_service() -> None:
    status, body = await ask("/", info=lambda: {"cycles": 3, "path": ValueError("odd")})
    assert status == 200
    assert body == {"cycles": 3, "path": "odd", "endpoints": ["/health", "/ready"]}


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
async def test_head_as_wget_spider_sends_it(path: str) -> None:
    assert await ask(path, method="HEAD") == (200, b"")
    if path == "/ready":
        assert await ask(path, method="HEAD", ready_check=no) == (503, b"")


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = HealthCheckServer(port, host="127.0.0.1")
        with pytest.raises(PortTaken, match=rf"^HEALTH_CHECK_PORT: port {port} is in use; "):
            await server.start()
        await server.stop()


async def test_stop_frees_the_port_and_may_come_twice() -> None:
    server = HealthCheckServer(0, host="127.0.0.1")
    await server.stop()
    await server.start()
    port = server.port
    await server.stop()
    await server.stop()
    again = HealthCheckServer(port, host="127.0.0.1")
    await again.start()
    await again.stop()
