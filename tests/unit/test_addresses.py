"""Which addresses are public, and that no other passes DNS."""

import socket
from ipaddress import ip_address

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from errors import AddressRefused
from nostr.addresses import GuardedResolver, is_public


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "57.128.200.193", "100.63.255.255", "100.128.0.0", "172.32.0.1"),
        *("192.167.255.255", "223.255.255.255", "2606:4700::1111", "2a00:1450::1"),
        *("::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"),
    ],
)
def test_public(address: str):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
        *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192"),
        *("192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1"),
        *("ff02::1", "2001::1", "2001:db8::1", "3fff::1", "100::1", "64:ff9b:1::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1"),
        *("", "localhost", "127.1", "1.1.1.1.1", "0x1", "1.1.1.1/8"),
    ],
)
def test_not_public(address: str):
    assert not is_public(address)


@given(st.ip_addresses())
def test_whatever_is_public_is_global_for_python_too(address: object):
    if is_public(str(address)):
        parsed = ip_address(str(address))
        inside = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
        judged = inside or parsed
        assert judged.is_global or str(parsed).startswith("64:ff9b::")
        assert not judged.is_multicast


class Answers(AbstractResolver):
    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: int = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=answer, port=port, family=socket.AF_INET, proto=0, flags=0
            )
            for answer in self.hosts
        ]

    async def close(self) -> None:
        self.closed = True


async def test_private_answers_are_dropped():
    guarded = GuardedResolver(resolver=Answers("10.0.0.1", "1.1.1.1", "::1"))
    answers = await guarded.resolve("relay.example.com", 443)
    assert [answer["host"] for answer in answers] == ["1.1.1.1"]


async def test_a_name_with_private_answers_alone_is_refused():
    inner = Answers("10.0.0.1", "::1")
    guarded = GuardedResolver(resolver=inner)
    with pytest.raises(AddressRefused, match=r"relay\.example\.com leads to 10\.0\.0\.1"):
        await guarded.resolve("relay.example.com", 443)
    await guarded.close()
    assert inner.closed


async def test_private_answers_pass_where_they_are_allowed():
    guarded = GuardedResolver(allow_private=True, resolver=Answers("10.0.0.1"))
    assert len(await guarded.resolve("relay.example.com", 443)) == 1
