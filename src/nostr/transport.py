"""Reaching a relay's host: which addresses, through which proxy, and why it failed."""

import asyncio
import errno
import ssl
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType

import aiohttp
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError
from python_socks import ProxyType, parse_proxy_url

from errors import AddressRefused, ConnectFailed
from nostr.addresses import GuardedResolver, is_address, is_public
from nostr.urls import RelayUrl

USER_AGENT = "BigBrotr"

# OpenSSL's x509_vfy.h; any other verification error is "tls-certificate".
_CERTIFICATE_FAULTS = {
    10: "tls-expired",  # X509_V_ERR_CERT_HAS_EXPIRED
    18: "tls-self-signed",  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
    19: "tls-self-signed",  # X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
    62: "tls-wrong-host",  # X509_V_ERR_HOSTNAME_MISMATCH
    64: "tls-wrong-host",  # X509_V_ERR_IP_ADDRESS_MISMATCH
}
_SOCKS_REFUSED = 5  # RFC 1928, section 6
_NOT_TLS_REASONS = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "UNKNOWN_PROTOCOL",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNEXPECTED_MESSAGE",
    }
)
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})


@dataclass(frozen=True, slots=True)
class Transport:
    """An HTTP session for one relay, with the resolver that guards it, or the address that the
    relay's URL gives. An async context manager."""

    session: aiohttp.ClientSession
    resolver: GuardedResolver | None
    address: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the relay's name led, or its address; empty where the proxy resolves it."""
        if self.address is not None:
            return (self.address,)
        return self.resolver.answered if self.resolver is not None else ()

    async def close(self) -> None:
        try:
            await self.session.close()
        finally:
            if self.resolver is not None:
                await self.resolver.close()

    async def __aenter__(self) -> "Transport":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def open_transport(
    url: RelayUrl,
    *,
    socks5_url: str | None,
    allow_private: bool,
    timeout: float,
    trust: ssl.SSLContext | None,
) -> Transport:
    """A session that can only reach what the rules allow: an .onion name through the SOCKS proxy
    (which resolves it), all else directly, and public addresses only unless allow_private.

    Raises ConnectFailed of kind "no-tor" or "address-refused".
    """
    if url.network == "tor":
        if not socks5_url:
            raise ConnectFailed("no-tor", url.url, "an .onion relay needs the Tor proxy")
        connector: aiohttp.TCPConnector = _tor_connector(url, socks5_url)
        resolver = None
        address = None
    else:
        address = url.host if is_address(url.host) else None
        if address and not allow_private and not is_public(url.host):
            raise ConnectFailed("address-refused", url.url, "not a public address")
        resolver = GuardedResolver(allow_private=allow_private)
        connector = aiohttp.TCPConnector(
            resolver=resolver, ssl=trust or True, force_close=True, use_dns_cache=False
        )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout),
        trace_configs=[_no_redirects()],
    )
    return Transport(session, resolver, address)


def patience(url: RelayUrl) -> int:
    """By how much a relay's network is slower: a circuit through Tor takes some seconds to build,
    and an onion service's descriptor is fetched first."""
    return 2 if url.network == "tor" else 1


def failure_kind(error: BaseException) -> tuple[str, str]:
    """The kind of ConnectFailed that an exception of a connection attempt means, and detail."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return failure_kind(error.certificate_error)
        case ssl.SSLCertVerificationError():
            kind = _CERTIFICATE_FAULTS.get(error.verify_code, "tls-certificate")
            return kind, _one_line(error.verify_message)
        case aiohttp.ClientSSLError() if isinstance(error.os_error, ssl.SSLError):
            return _tls_failure(error.os_error)
        case aiohttp.ClientConnectorDNSError():
            refused = isinstance(error.os_error, AddressRefused)
            return "address-refused" if refused else "dns", _one_line(error.os_error)
        case aiohttp.WSServerHandshakeError() if error.status != 101:
            return "http-status", f"HTTP {error.status}"
        case aiohttp.ClientResponseError():
            return "not-websocket", _one_line(error.message)
        case ProxyConnectionError() | ProxyError():
            return _proxy_failure(error), _one_line(error)
        case TimeoutError():
            return "timeout", ""
        case ssl.SSLError():
            return _tls_failure(error)
        case OSError():
            return _network_failure(error), _one_line(error)
        case aiohttp.ServerDisconnectedError():
            return "closed", "the peer closed the connection without an answer"
        case _:
            return "protocol", _one_line(error)


def speaks_no_tls(kind: str) -> bool:
    """Whether a failure of a wss attempt shows that nobody speaks TLS at that port."""
    return kind in ("refused", "not-tls")


def _no_redirects() -> aiohttp.TraceConfig:
    """A redirect could lead to an address that the rules refuse, so none is followed, neither
    for a document nor (aiohttp would) for an upgrade: it is an HTTP status like any other."""
    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(_refuse_redirect)
    return config


async def _refuse_redirect(
    session: aiohttp.ClientSession,
    context: SimpleNamespace,
    params: aiohttp.TraceRequestRedirectParams,
) -> None:
    params.response.close()
    raise aiohttp.WSServerHandshakeError(
        params.response.request_info, (), status=params.response.status, message="redirect"
    )


def _tor_connector(url: RelayUrl, socks5_url: str) -> ProxyConnector:
    _, host, port, _, _ = parse_proxy_url(socks5_url)
    # Tor gives each pair of SOCKS credentials circuits of its own, so that no relay's traffic
    # is linked with another's. The onion name is the key: a certificate could add nothing.
    return ProxyConnector(
        host=host,
        port=port,
        proxy_type=ProxyType.SOCKS5,
        username=url.host[-62:],
        password="x",
        rdns=True,
        ssl=False,
        force_close=True,
    )


def _proxy_failure(error: ProxyConnectionError | ProxyError) -> str:
    if isinstance(error, ProxyConnectionError):
        return "socks"
    return "refused" if error.error_code == _SOCKS_REFUSED else "onion-unreachable"


def _tls_failure(error: ssl.SSLError) -> tuple[str, str]:
    kind = "not-tls" if error.reason in _NOT_TLS_REASONS else "tls"
    return kind, _one_line(error.reason or error)


def _network_failure(error: OSError) -> str:
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ConnectionRefusedError) or cause.errno == errno.ECONNREFUSED:
        return "refused"
    if isinstance(cause, ConnectionResetError | BrokenPipeError):
        return "reset"
    if cause.errno in _UNREACHABLE:
        return "unreachable"
    return "timeout" if isinstance(cause, TimeoutError | asyncio.TimeoutError) else "network"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
