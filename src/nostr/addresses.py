"""Which Internet addresses may be connected to. Relay URLs are untrusted input: without this,
anybody could make the archive call services on its own network."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import AF_UNSPEC, AddressFamily

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver

from errors import AddressRefused

# IANA's special-purpose registries, multicast, and the one public address that is a cloud's
# metadata service.
_REFUSED_V4 = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_UNICAST_V6 = ip_network("2000::/3")
_REFUSED_V6 = tuple(ip_network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_MAPPED_V4 = ip_network("::ffff:0:0/96")
_NAT64 = ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ip_network("2002::/16")


def is_address(host: str) -> bool:
    """Whether a host is written as an IPv4 or IPv6 address, which no resolver is asked about."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address is one of the public Internet. Addresses that carry an
    IPv4 address (mapped, 6to4, NAT64) are judged by it; what is no address is not public."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return _is_public_v4(parsed)
    embedded = _embedded_v4(parsed)
    if embedded is not None:
        return _is_public_v4(embedded)
    return parsed in _GLOBAL_UNICAST_V6 and not any(parsed in net for net in _REFUSED_V6)


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _REFUSED_V4)


def _embedded_v4(address: IPv6Address) -> IPv4Address | None:
    if address in _MAPPED_V4 or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return None


class GuardedResolver(AbstractResolver):
    """DNS for aiohttp that drops answers outside the public Internet, unless allow_private.

    Raises AddressRefused when no answer is left. The lookups use no threads, so that slow name
    servers neither hold up other lookups nor the end of the process.
    """

    def __init__(
        self, *, allow_private: bool = False, resolver: AbstractResolver | None = None
    ) -> None:
        self._allow_private = allow_private
        self._resolver = resolver or AsyncResolver()
        self.answered: tuple[str, ...] = ()
        """The addresses of the last answer that may be used."""

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AF_UNSPEC
    ) -> list[ResolveResult]:
        answers = await self._resolver.resolve(host, port, family)
        allowed = [answer for answer in answers if self._allow_private or is_public(answer["host"])]
        if answers and not allowed:
            raise AddressRefused(f"{host} leads to {answers[0]['host']}, not a public address")
        self.answered = tuple(answer["host"] for answer in allowed)
        return allowed

    async def close(self) -> None:
        await self._resolver.close()
