"""HTTP aggregators as they are: paged, broken, endless, slow, redirecting, and malicious."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from discovery import fetch
from discovery.aggregators import Answer, ask, pause_before_asking_again
from discovery.fetch import Fetcher, open_fetcher
from errors import AggregatorFailed

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "aggregators"
A, B = "wss://a.example", "wss://b.example"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts HTTP servers: the URL of one that answers everything with `handler`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler) -> str:
            runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}/relays"

        yield start


async def asked(url: str, *, timeout: float = 5, allow_private: bool = True) -> Answer:
    async with open_fetcher(
        timeout=timeout, allow_private=allow_private, socks5_url=None
    ) as fetcher:
        return await ask(fetcher, url, timeout=timeout)


async def failure(url: str, **options: object) -> AggregatorFailed:
    with pytest.raises(AggregatorFailed) as caught:
        await asked(url, **options)  # type: ignore[arg-type]
    return caught.value


def answering(body: bytes | str, status: int = 200, **headers: str) -> Handler:
    data = body.encode() if isinstance(body, str) else body

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, body=data, headers=headers)

    return handler


@pytest.mark.parametrize(
    "body", [f'["{A}", "{B}"]', f'\ufeff{{"relays": ["{A}", "{B}"]}}', f' [{{"url": "{A}"}},"{B}"]']
)
async def test_a_list_is_read(serve: Serve, body: str) -> None:
    assert await asked(await serve(answering(body))) == Answer((A, B), 1)


async def test_pages_are_read_to_the_end(serve: Serve) -> None:
    relays = [f"wss://r{n}.example" for n in range(9)]
    requests: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request.query_string)
        offset = int(request.query.get("offset", 0))
        page = relays[offset : offset + int(request.query["limit"])]
        return web.json_response({"relays": page, "total": 9, "limit": 4, "offset": offset})

    answer = await asked(f"{await serve(handler)}?format=simple&limit=4")
    assert answer == Answer(tuple(relays), 3)
    assert requests == [
        "format=simple&limit=4",
        "format=simple&limit=4&offset=4",
        "format=simple&limit=4&offset=8",
    ]


async def test_a_server_that_ignores_the_offset_is_asked_twice_at_most(serve: Serve) -> None:
    requests = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        offset = int(request.query.get("offset", 0))
        return web.json_response({"relays": [A, B], "total": 10**9, "offset": offset})

    assert (await asked(await serve(handler))).urls == (A, B)
    assert requests == 2


async def test_pages_before_a_failing_one_are_kept(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        if "offset" in request.query:
            return web.Response(status=429, headers={"Retry-After": "120"})
        return web.json_response({"relays": [A], "total": 5, "offset": 0})

    answer = await asked(await serve(handler))
    assert answer.urls == (A,)
    assert answer.cut_short is not None
    assert (answer.cut_short.reason, answer.cut_short.retry_after) == ("http-429", 120)


async def test_an_endless_list_is_cut_short(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.aggregators.MAX_PAGES", 3)

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        page = [f"wss://r{offset}.example"]
        return web.json_response({"relays": page, "total": 10**9, "offset": offset})

    answer = await asked(await serve(handler))
    assert len(answer.urls) == 3
    assert answer.cut_short is not None
    assert answer.cut_short.reason == "too-long"


HTML = "<!doctype html><html><body><div id=app></div></body></html>"


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (answering(HTML, 502), "http-502"),
        (answering('{"error": "Payment Required"}', 402), "http-402"),
        (answering("", 204), "http-204"),
        (answering(HTML), "not-json"),
        (answering(""), "not-json"),
        (answering(b"\xff\xfe\x00"), "not-json"),
        (answering("[" * 100_000), "not-json"),
        (answering('{"error": {"code": "RELAY_NOT_FOUND"}}'), "no-relays"),
        (answering("x" * 1_001), "too-large"),
        (answering(gzip.compress(b" " * 50_000_000), **{"Content-Encoding": "gzip"}), "too-large"),
        (answering(b"not gzip", **{"Content-Encoding": "gzip"}), "protocol"),
        (answering("", 302), "http-302"),
        (answering("", 302, Location="/relays"), "too-many-redirects"),
        (answering("", 302, Location="http://[bad"), "bad-url"),
        (answering("", 302, Location="file:///etc/passwd"), "bad-url"),
        (answering("", 302, Location="http://user:secret@a.example/"), "bad-url"),
        (answering("", 302, Location=f"http://{'a' * 56}.onion/"), "no-tor"),
    ],
)
async def test_what_is_no_list_has_a_reason(
    serve: Serve, handler: Handler, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "MAX_BODY_BYTES", 1_000 if reason == "too-large" else 1_000_000)
    url = await serve(handler)
    error = await failure(url)
    assert error.reason == reason
    assert url in str(error)
    assert "\n" not in str(error)


async def test_an_endless_body_is_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BODY_BYTES", 100_000)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"[" * 10_000)
        return response

    assert (await failure(await serve(handler))).reason == "too-large"


async def test_a_body_that_drips_for_ever_is_left(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        return response

    assert (await failure(await serve(handler), timeout=0.3)).reason == "timeout"


async def test_a_server_that_says_nothing_is_left(serve: Serve) -> None:
    async def handler(_: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response()

    assert (await failure(await serve(handler), timeout=0.2)).reason == "timeout"


async def test_a_closed_port_is_refused() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    assert (await failure(f"http://127.0.0.1:{port}/")).reason == "refused"


async def test_a_server_without_tls_is_no_https_server(serve: Serve) -> None:
    url = await serve(answering("[]"))
    error = await failure(url.replace("http:", "https:"))
    assert error.reason in ("not-tls", "tls")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_private_addresses_are_not_asked(serve: Serve, host: str) -> None:
    reached = False

    async def handler(_: web.Request) -> web.Response:
        nonlocal reached
        reached = True
        return web.json_response([A])

    url = (await serve(handler)).replace("127.0.0.1", host)
    error = await failure(url, allow_private=False)
    assert error.reason in ("address-refused", "dns", "bad-url")
    assert not reached


class _Resolver(AbstractResolver):
    """DNS in which every name is a public one that leads to this machine's test server."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family or 2, proto=0, flags=0
            )
        ]

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1/", "http://[fd00::1]/"]
)
async def test_redirects_to_private_addresses_are_not_followed(serve: Serve, target: str) -> None:
    url = await serve(answering("", 302, Location=target))
    connector = aiohttp.TCPConnector(resolver=_Resolver())
    async with aiohttp.ClientSession(connector=connector) as session:
        fetcher = Fetcher(session, None, allow_private=False)
        with pytest.raises(AggregatorFailed) as caught:
            await fetcher.get(url.replace("127.0.0.1", "list.example"))
    assert caught.value.reason == "address-refused"


async def test_a_redirect_to_the_list_is_followed(serve: Serve) -> None:
    target = await serve(answering(f'["{A}"]'))
    assert (await asked(await serve(answering("", 301, Location=target)))).urls == (A,)


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not part of the repository")
async def test_answers_of_the_corpus_are_survived(serve: Serve) -> None:
    found: dict[str, int | str] = {}
    for file in sorted(CORPUS.iterdir()):
        if file.suffix in (".json", ".html"):
            status = 502 if "502" in file.name else 200
            try:
                answer = await asked(await serve(answering(file.read_bytes(), status)))
                found[file.name] = len(answer.urls)
            except AggregatorFailed as error:
                found[file.name] = error.reason
    assert found["nostr_watch_v1_502.html"] == "http-502"
    assert found["nostr_watch_app_shell_200.html"] == "not-json"
    assert found["nostr_watch_v2_relays_state_404.json"] == "no-relays"
    assert found["nostr_watch_v1_empty.json"] == 0
    assert found["nostr_watch_v2_relays_simple.json"] == 4


@pytest.mark.parametrize(
    ("failures", "retry_after", "minutes"),
    [(0, None, 480), (1, None, 15), (2, None, 30), (6, None, 480), (99, None, 480), (1, 7200, 120)],
)
def test_a_failing_aggregator_is_asked_again_ever_more_rarely(
    failures: int, retry_after: int | None, minutes: int
) -> None:
    pause = pause_before_asking_again(
        failures, frequency=8 * 3600, retry_after=retry_after, chance=1.0
    )
    assert pause == minutes * 60
