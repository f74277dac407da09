"""The HTTP server that tells Docker, and people, how a service is doing."""

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from constants import READY_CHECK_TIMEOUT
from errors import PortTaken

ReadyCheck = Callable[[], Awaitable[bool]]
Info = Callable[[], Mapping[str, object]]


class HealthCheckServer:
    """`/health`: 200 while the process answers. `/ready`: 200 or 503, by `ready_check`.
    `/`: what `info` returns. All answer GET and HEAD with JSON.

    `port` 0 takes a free port; `port` tells which after `start`.
    """

    def __init__(
        self,
        port: int,
        ready_check: ReadyCheck | None = None,
        info: Info | None = None,
        host: str = "0.0.0.0",
    ) -> None:
        self.port = port
        self._ready_check = ready_check
        self._info = info
        self._host = host
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; raises PortTaken when that is not possible."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/", self._root)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self.port).start()
        except OSError as error:
            await runner.cleanup()
            raise PortTaken(_port_problem(self.port, error)) from error
        self._runner = runner
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening; does nothing when it was never started."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "healthy"})

    async def _ready(self, _: web.Request) -> web.Response:
        reason = await self._not_ready_because()
        if reason is None:
            return _json({"status": "ready"})
        return _json({"status": "not ready", "reason": reason}, status=503)

    async def _not_ready_because(self) -> str | None:
        if self._ready_check is None:
            return None
        try:
            async with asyncio.timeout(READY_CHECK_TIMEOUT):
                ready = await self._ready_check()
        except TimeoutError:
            return f"the check took longer than {READY_CHECK_TIMEOUT:g} s"
        except Exception as error:  # whatever it is, it is the answer
            return str(error) or type(error).__name__
        return None if ready else "the service is not ready yet"

    async def _root(self, _: web.Request) -> web.Response:
        info = {} if self._info is None else dict(self._info())
        return _json({**info, "endpoints": ["/health", "/ready"]})


def _json(body: Mapping[str, object], status: int = 200) -> web.Response:
    return web.json_response(body, status=status, dumps=_dumps)


def _dumps(body: object) -> str:
    return json.dumps(body, default=str)


def _port_problem(port: int, error: OSError) -> str:
    why = {
        errno.EADDRINUSE: "is in use",
        errno.EACCES: "needs privileges that this process does not have",
    }.get(error.errno or 0, f"cannot be used ({error.strerror or error})")
    return (
        f"HEALTH_CHECK_PORT: port {port} {why}; choose another port, "
        "or 0 for no health check server"
    )
