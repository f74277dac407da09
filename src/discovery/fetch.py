"""HTTP GET against servers that nobody vouches for: bounded in size, time and redirects, and with
every address on the way checked (a list's server may redirect to the cloud's metadata)."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from aiohttp_socks import ProxyConnector, ProxyError
from yarl import URL

from errors import AggregatorFailed
from nostr.addresses import GuardedResolver, is_address, is_public
from nostr.transport import USER_AGENT, failure_kind

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_REDIRECTS = 5

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_HEADERS = {"Accept": "application/json", "User-Agent": USER_AGENT}
_LONGEST_RETRY_AFTER = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches documents; see `open_fetcher`.

    Attributes:
        direct: the session for the clearnet.
        onion: the session through Tor, None when there is no proxy.
        allow_private: whether addresses outside the public Internet may be asked.
    """

    direct: aiohttp.ClientSession
    onion: aiohttp.ClientSession | None
    allow_private: bool

    async def get(self, url: str) -> bytes:
        """The body behind `url`.

        Raises:
            AggregatorFailed: "http-<status>", "too-large", "too-many-redirects", "bad-url",
                "address-refused", "no-tor", or a kind of `nostr.transport.failure_kind`.
        """
        with _failures_named(url):
            address = URL(url)
            for _ in range(MAX_REDIRECTS + 1):
                session = self._session_for(address, url)
                async with session.get(address, allow_redirects=False) as response:
                    location = response.headers.get("Location")
                    if response.status not in _REDIRECTS or not location:
                        return await _body(response, url)
                    address = address.join(URL(location))
        raise AggregatorFailed("too-many-redirects", url)

    def _session_for(self, address: URL, url: str) -> aiohttp.ClientSession:
        host = (address.host or "").rstrip(".").lower()
        if address.scheme not in ("http", "https") or not host or address.user is not None:
            raise AggregatorFailed("bad-url", url, f"{address} is no plain http(s) URL")
        if host.endswith(".onion"):
            if self.onion is None:
                raise AggregatorFailed("no-tor", url, f"{host} needs TORPROXY_HOST")
            return self.onion
        # The resolver is not asked about an address that is written as one.
        if not self.allow_private and is_address(host) and not is_public(host):
            raise AggregatorFailed("address-refused", url, f"{host} is not a public address")
        return self.direct


@asynccontextmanager
async def open_fetcher(
    *, timeout: float, allow_private: bool, socks5_url: str | None
) -> AsyncIterator[Fetcher]:
    """A Fetcher whose requests take at most `timeout` seconds each, the body included.

    Onion hosts are reached through `socks5_url` only, which also resolves their names.
    """
    async with AsyncExitStack() as stack:
        resolver = GuardedResolver(allow_private=allow_private)
        stack.push_async_callback(resolver.close)
        direct = _session(aiohttp.TCPConnector(resolver=resolver), timeout)
        await stack.enter_async_context(direct)
        onion: aiohttp.ClientSession | None = None
        if socks5_url is not None:
            onion = _session(ProxyConnector.from_url(socks5_url, rdns=True), timeout)
            await stack.enter_async_context(onion)
        yield Fetcher(direct, onion, allow_private)


def _session(connector: aiohttp.BaseConnector, timeout: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _body(response: aiohttp.ClientResponse, url: str) -> bytes:
    if response.status != HTTPStatus.OK:
        raise AggregatorFailed(
            f"http-{response.status}", url, retry_after=_retry_after(response.headers)
        )
    # The declared length is not believed, and a compressed body counts as what it unpacks to.
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise AggregatorFailed("too-large", url, f"more than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _retry_after(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Retry-After", "")
    if not (text.isascii() and text.isdecimal()):
        return None
    return min(int(text[:9]), _LONGEST_RETRY_AFTER)


@contextmanager
def _failures_named(url: str) -> Iterator[None]:
    """Turns whatever the HTTP client raises into AggregatorFailed with a reason."""
    try:
        yield
    except ValueError as error:  # aiohttp's InvalidURL is one
        raise AggregatorFailed("bad-url", url, str(error)) from error
    except (aiohttp.ClientError, ProxyError, OSError) as error:
        kind, detail = failure_kind(error)
        raise AggregatorFailed(kind, url, detail) from error
