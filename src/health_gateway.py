"""The published health ports: one for each service, however many containers it has.

`python src/health_gateway.py 8081=monitor:8080 8082=synchronizer:8080` answers on port 8081 for
every container that the name `monitor` leads to, at its port 8080, and so on. A port of the host
can belong to one container only: published from here, it keeps no service from having more.
"""

import argparse
import asyncio
import json
import logging
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web

from constants import HEALTH_CHECK_PORT, LOG_ERROR, LOG_START, LOG_SUCCESS, READY_CHECK_TIMEOUT
from errors import PortTaken
from healthcheck import HealthCheckServer
from logging_config import fields, setup_logging

NAME: Final = "HEALTH"
PATHS: Final = ("/health", "/ready", "/")
# A service says after READY_CHECK_TIMEOUT that its check takes too long; that is to arrive here.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=READY_CHECK_TIMEOUT + 2)
_LOOKUP_SECONDS: Final = 3
_ROUTE: Final = re.compile(r"(\d{1,5})=([\w.-]+):(\d{1,5})", re.ASCII)

FindContainers = Callable[[str], Awaitable[Sequence[str]]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """Requests to `port` here are for port `target_port` of every container named `host`."""

    port: int
    host: str
    target_port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one container said: an HTTP status and a JSON value."""

    container: str
    status: int
    body: object


def parse_route(text: str) -> Route:
    """`8082=synchronizer:8080` as a Route; raises ArgumentTypeError."""
    found = _ROUTE.fullmatch(text)
    if found is None or not all(0 < int(found[group]) < 65_536 for group in (1, 3)):
        raise argparse.ArgumentTypeError(f"{text!r} is not PORT=HOST:PORT")
    return Route(int(found[1]), found[2], int(found[3]))


def combine(host: str, answers: Sequence[Answer]) -> tuple[int, object]:
    """One container's own answer; of several, the worst status and what each of them said."""
    if not answers:
        return 503, _unreachable(f"no container of {host} runs")
    if len(answers) == 1:
        return answers[0].status, answers[0].body
    in_order = sorted(answers, key=lambda answer: answer.container)
    said = {answer.container: answer.body for answer in in_order}
    return max(answer.status for answer in answers), {"containers": said}


def _unreachable(reason: str) -> dict[str, str]:
    return {"status": "unreachable", "reason": reason}


class Gateway:
    """Serves one route; `find` gives the addresses of all containers with a name."""

    def __init__(self, route: Route, session: aiohttp.ClientSession, find: FindContainers) -> None:
        self._route = route
        self._session = session
        self._find = find

    async def start(self, stack: AsyncExitStack, address: str) -> None:
        """Listen at `address` until `stack` is closed; raises OSError."""
        app = web.Application()
        for path in PATHS:
            app.router.add_get(path, self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, address, self._route.port).start()

    async def _answer(self, request: web.Request) -> web.Response:
        addresses = await self._find(self._route.host)
        answers = await asyncio.gather(*(self._ask(address, request.path) for address in addresses))
        status, body = combine(self._route.host, answers)
        return web.json_response(body, status=status)

    async def _ask(self, address: str, path: str) -> Answer:
        container = await _name(address)
        try:
            url = f"http://{address}:{self._route.target_port}{path}"
            async with self._session.get(url) as response:
                return Answer(container, response.status, json.loads(await response.read()))
        except TimeoutError:
            return Answer(container, 503, _unreachable(f"no answer in {_TIMEOUT.total:g} s"))
        except (aiohttp.ClientError, ValueError) as error:
            return Answer(container, 503, _unreachable(str(error)))


async def find_containers(host: str) -> list[str]:
    """The addresses that the name leads to; none when nobody knows it.

    Docker's name server passes a name that no running container has on to those of the host,
    which may be out of reach.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LOOKUP_SECONDS):
            found = await loop.getaddrinfo(
                host, None, family=socket.AF_INET, type=socket.SOCK_STREAM
            )
    except (socket.gaierror, TimeoutError):
        return []
    return sorted({str(entry[4][0]) for entry in found})


async def _name(address: str) -> str:
    """The container's name, which Docker's name server knows; else its address."""
    loop = asyncio.get_running_loop()
    try:
        name, _ = await loop.getnameinfo((address, 0), socket.NI_NAMEREQD)
    except socket.gaierror:
        return address
    return name.split(".")[0]


async def serve(
    routes: Sequence[Route], own_port: int = HEALTH_CHECK_PORT, address: str = "0.0.0.0"
) -> int:
    """Serve every route, and the gateway's own health at `own_port`, until SIGTERM or SIGINT.

    Returns the exit code: 0, or 1 when a port cannot be used.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=_TIMEOUT))
        own = HealthCheckServer(own_port, host=address)
        stack.push_async_callback(own.stop)
        try:
            await own.start()
            for route in routes:
                await Gateway(route, session, find_containers).start(stack, address)
        except (OSError, PortTaken) as error:
            logger.error(f"{LOG_ERROR} {fields('gateway_failed', error=error)}")
            return 1
        ports = ",".join(f"{route.port}={route.host}" for route in routes)
        logger.info(f"{LOG_START} {fields('gateway_started', ports=ports)}")
        await stop.wait()
    logger.info(f"{LOG_SUCCESS} {fields('service_stopped')}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gateway as a program and return its exit code."""
    parser = argparse.ArgumentParser(description="BigBrotr: the health ports of all services")
    parser.add_argument("routes", nargs="+", type=parse_route, metavar="PORT=HOST:PORT")
    routes: list[Route] = parser.parse_args(argv).routes
    setup_logging(NAME)
    return asyncio.run(serve(routes))


if __name__ == "__main__":
    sys.exit(main())
