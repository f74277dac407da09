"""Relay URLs: one canonical form for every spelling, and why a URL is refused.

The canonical form is `wss://host[:port][/path][?query]` (as nostr-tools has it, whatever the
scheme found): scheme and host in lower case, IDNA names in punycode, no root dot, default port,
fragment or root slash; percent-encoding and dot segments as in RFC 3986, section 6. Other paths
keep their trailing slash, and a query is kept, since either may select another relay.
"""

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote, unquote

import idna
from nostr_tools.core.relay import Relay
from nostr_tools.exceptions import RelayValidationError

from errors import RelayUrlRefused
from nostr.addresses import is_public
from nostr.onion import is_onion_v3

MAX_URL_BYTES = 2_048
MAX_PATHS_PER_HOST = 128
"""URLs of one host that are not plain; spam lists name 20,000."""

_DEFAULT_PORTS = {"wss": 443, "ws": 80}
_PRIVATE_TOP_LEVELS = frozenset(
    {"localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "arpa"}
)
_OTHER_NETWORKS = frozenset({"i2p", "loki"})
_URL = re.compile(
    r"(?P<scheme>wss?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?",
    re.IGNORECASE,
)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?").fullmatch
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*").fullmatch
_WHITE_SPACE = re.compile(r"\s")
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff\ud800-\udfff]")
_NOT_IN_URLS = re.compile(r'["<>\\^`{|}]')
_PERSON = re.compile(r"n(?:pub|profile)1[02-9ac-hj-np-z]{8,}", re.IGNORECASE)
_ESCAPE_OR_FOREIGN = re.compile(r"%(?P<hex>[0-9a-fA-F]{2})?|[^\x21-\x7e]")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True, slots=True, order=True)
class RelayUrl:
    """A relay's URL in canonical form. `port` is None for the scheme's default, `path` is "" or
    starts with "/" (a query belongs to it), and an IPv6 `host` has no brackets."""

    url: str
    host: str = field(compare=False)
    port: int | None = field(compare=False)
    path: str = field(compare=False)

    @classmethod
    def parse(cls, text: str, *, allow_private: bool = False) -> "RelayUrl":
        """The canonical URL; raises RelayUrlRefused. Private and loopback addresses and names
        are refused unless allowed."""
        try:
            return _parse(text, allow_private)
        except _Refused as refused:
            raise RelayUrlRefused(str(refused), text) from None

    @property
    def network(self) -> str:
        """ "tor" for a name that ends in .onion, whatever its path, else "clearnet"."""
        return "tor" if self.host.endswith(".onion") else "clearnet"

    @property
    def is_plain(self) -> bool:
        """Whether it is its host's URL without a port, path or query."""
        return self.port is None and not self.path

    def websocket(self, scheme: str) -> str:
        """The URL to open: scheme is "wss" or "ws"."""
        return f"{scheme}{self.url.removeprefix('wss')}"

    def http(self, scheme: str) -> str:
        """The URL of the NIP-11 document: scheme is "https" or "http"."""
        return self.websocket(scheme)

    def __str__(self) -> str:
        return self.url


class CanonicalRelay(Relay):
    """A nostr-tools Relay that holds our canonical URL and network. The library's own check
    cuts paths that hold a dot, refuses new top-level domains and takes an .onion name with a
    path for clearnet; code that has a Relay must not lose the relay through that."""

    def __post_init__(self) -> None:
        url = self._parsed()
        self.url = url.url
        self.network = self.network or url.network
        self.validate()

    def validate(self) -> None:
        url = self._parsed()
        if self.url != url.url or self.network != url.network:
            raise RelayValidationError(f"{self.url!r} ({self.network}) is not {url.url!r}")

    def _parsed(self) -> RelayUrl:
        try:
            return RelayUrl.parse(self.url, allow_private=True)
        except RelayUrlRefused as refused:
            raise RelayValidationError(str(refused)) from None


def to_relay(url: RelayUrl) -> Relay:
    """The nostr-tools Relay of a URL."""
    return CanonicalRelay(url.url)


def from_relay(relay: Relay) -> RelayUrl:
    """The URL of a nostr-tools Relay; raises RelayUrlRefused. Whoever made the Relay decided on
    private addresses already, so they pass."""
    return RelayUrl.parse(relay.url, allow_private=True)


class _Refused(Exception):
    """The reason why a part of a URL is refused."""


def _parse(text: str, allow_private: bool) -> RelayUrl:
    stripped = text.strip()
    _check_text(stripped)
    match = _URL.fullmatch(stripped)
    if match is None:
        raise _Refused("not-websocket")
    if "@" in match["authority"]:
        raise _Refused("userinfo")
    authority = _AUTHORITY.fullmatch(match["authority"])
    if authority is None:
        raise _Refused("bad-host")
    host = _host(authority["host"], allow_private)
    port = _port(authority["port"], match["scheme"].lower())
    path = _path(match["path"], match["query"])
    shown = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    url = f"wss://{shown}{path}"
    if len(url) > MAX_URL_BYTES:
        raise _Refused("too-long")
    return RelayUrl(url, host, port, path)


def _check_text(text: str) -> None:
    """Refuses what cannot be a relay's URL whatever its parts are."""
    if len(text) > MAX_URL_BYTES:
        raise _Refused("too-long")
    if _NOT_IN_URLS.search(text):
        raise _Refused("bad-character")
    plain = unquote(text, errors="replace")
    if _WHITE_SPACE.search(plain):
        raise _Refused("not-a-string" if "object object" in plain.lower() else "white-space")
    if _INVISIBLE.search(plain):
        raise _Refused("bad-character")
    if "," in plain:
        raise _Refused("comma")
    if plain.count("://") > 1:
        raise _Refused("second-scheme")
    if _PERSON.search(plain):
        raise _Refused("names-a-person")


def _host(text: str, allow_private: bool) -> str:
    if text.startswith("["):
        return _public_address(_ipv6(text[1:-1]), allow_private)
    name = _ascii_name(text)
    labels = name.split(".")
    if _NUMERIC_LABEL(labels[-1]):  # never a name: getaddrinfo reads "127.1" as an address
        return _public_address(_ipv4(name), allow_private)
    if len(name) > 253 or not all(map(_LABEL, labels)):
        raise _Refused("bad-host")
    if labels[-1] == "onion":
        if len(labels) < 2 or not is_onion_v3(labels[-2]):
            raise _Refused("onion-not-v3")
    elif labels[-1] in _OTHER_NETWORKS:
        raise _Refused("unsupported-network")
    elif not allow_private:
        if labels[-1] in _PRIVATE_TOP_LEVELS:
            raise _Refused("private-address")
        if len(labels) < 2:
            raise _Refused("bad-host")
    return name


def _ascii_name(text: str) -> str:
    if text.isascii():
        return text.lower().removesuffix(".")
    try:
        return idna.encode(text, uts46=True).decode().removesuffix(".")
    except idna.IDNAError:
        raise _Refused("bad-host") from None


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise _Refused("bad-host") from None


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise _Refused("bad-host") from None
    if address.scope_id is not None:
        raise _Refused("private-address")
    return str(address.ipv4_mapped or address)


def _public_address(address: str, allow_private: bool) -> str:
    if not allow_private and not is_public(address):
        raise _Refused("private-address")
    return address


def _port(text: str | None, scheme: str) -> int | None:
    """The port, None where it is a default: ours (443), or the one of the scheme found."""
    if not text:
        return None
    port = int(text[:8])
    if not 0 < port < 65_536:
        raise _Refused("bad-port")
    return None if port in (_DEFAULT_PORTS["wss"], _DEFAULT_PORTS[scheme]) else port


def _path(path: str, query: str | None) -> str:
    path = _without_dot_segments(_ESCAPE_OR_FOREIGN.sub(_normal_escape, path))
    if query:
        return (path or "/") + "?" + _ESCAPE_OR_FOREIGN.sub(_normal_escape, query)
    return "" if path.strip("/") == "" else path


def _normal_escape(match: re.Match[str]) -> str:
    """RFC 3986, 6.2.2: escapes in upper case, none for unreserved characters."""
    if match[0] == "%":
        raise _Refused("bad-percent-encoding")
    if match["hex"] is None:
        return quote(match[0], safe="")
    character = chr(int(match["hex"], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _without_dot_segments(path: str) -> str:
    """RFC 3986, 5.2.4, for a path that is empty or starts with a slash."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "".join("/" + segment for segment in kept)
