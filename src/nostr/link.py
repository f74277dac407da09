"""What an open connection shows of the host behind it: addresses and certificate."""

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

_MAX_ISSUER_LENGTH = 200


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """`ipv4` and `ipv6` say whether the relay's name leads to such addresses; None where only Tor
    knows. The certificate's facts are None without TLS; `tls_expires_at` is in Unix seconds."""

    ipv4: bool | None = None
    ipv6: bool | None = None
    tls_version: str | None = None
    tls_issuer: str | None = None
    tls_expires_at: int | None = None


def link_facts(addresses: Iterable[str], tls: ssl.SSLObject | None) -> LinkFacts:
    """The facts of a connection: the addresses that the name led to, none if Tor resolved it, and
    the TLS layer, if there is one."""
    versions = {ip_address(address.partition("%")[0]).version for address in addresses}
    certificate: Mapping[str, Any] = (tls.getpeercert() if tls else None) or {}
    expires = certificate.get("notAfter")
    return LinkFacts(
        ipv4=4 in versions if versions else None,
        ipv6=6 in versions if versions else None,
        tls_version=tls.version() if tls else None,
        tls_issuer=_issuer(certificate),
        tls_expires_at=int(ssl.cert_time_to_seconds(expires)) if expires else None,
    )


def _issuer(certificate: Mapping[str, Any]) -> str | None:
    """The organization that issued a certificate, else the issuer's common name."""
    parts = {name: value for rdn in certificate.get("issuer", ()) for name, value in rdn}
    name = str(parts.get("organizationName") or parts.get("commonName") or "")
    return "".join(filter(str.isprintable, name))[:_MAX_ISSUER_LENGTH] or None
