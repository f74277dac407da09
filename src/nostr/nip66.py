"""NIP-66: a monitor's announcement (kind 10166) and what it found of a relay (kind 30166). Pure.

Tags say what was measured, and what the relay claims where nothing was measured; the content is
the relay's own document (NIP-11), its claims in full.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from nostr_tools.core.relay_metadata import RelayMetadata

from nostr.probe import ProbeFacts, ProbeReport
from nostr.urls import RelayUrl, from_relay

ANNOUNCEMENT = 10_166
DISCOVERY = 30_166

_MAX_CONTENT_BYTES = 32 * 1024
_MAX_NIPS = 200
_MAX_TOPICS = 20
_is_nip = re.compile(r"[0-9A-Fa-f]{1,4}").fullmatch
_is_topic = re.compile(r"[^\W_][\w -]{0,49}").fullmatch
# Why writing fails on a relay that does not take events from everybody.
_RESTRICTED = frozenset({"restricted", "blocked", "payment-required", "auth-required"})


class Draft(NamedTuple):
    """An event that only wants a signature; `created_at` is in Unix seconds."""

    kind: int
    tags: list[list[str]]
    content: str
    created_at: int

    @property
    def address(self) -> str:
        """What a later event with the same replaces (NIP-01)."""
        return next((tag[1] for tag in self.tags if tag[0] == "d"), "")


def announcement(*, frequency: int, timeout_ms: int, now: int) -> Draft:
    """The monitor's announcement: it checks every `frequency` seconds."""
    timed = ("open", "read", "write", "nip11")
    checks = (*timed, "auth", "dns", "ssl")
    tags = [["frequency", str(frequency)]]
    # The order of the NIP's text; its example has the two values the other way around.
    tags += [["timeout", str(timeout_ms), test] for test in timed]
    tags += [["c", check] for check in checks]
    return Draft(ANNOUNCEMENT, tags, "", now)


def discovery(report: ProbeReport) -> Draft:
    """What a check found of a relay that it could open."""
    url, nip11 = from_relay(report.metadata.relay), report.metadata.nip11
    tags = [["d", published_url(url, report.facts.scheme)], ["n", url.network]]
    tags += _round_trips(report.metadata.nip66)
    tags += [["R", key if required else f"!{key}"] for key, required in _requirements(report)]
    if nip11 is not None:
        tags += [["N", nip] for nip in _nips(nip11.supported_nips)]
        tags += [["t", topic] for topic in _topics((nip11.extra_fields or {}).get("tags"))]
    return Draft(DISCOVERY, tags, _document(nip11), report.metadata.generated_at)


def published_url(url: RelayUrl, scheme: str) -> str:
    """The URL as others know it: normalized by RFC 3986, section 6, which has a slash at the
    root, with the scheme that was seen to work ("wss" or "ws")."""
    return url.websocket(scheme or "wss") + ("" if url.path else "/")


def _round_trips(nip66: RelayMetadata.Nip66 | None) -> list[list[str]]:
    if nip66 is None:
        return []
    measured = {"open": nip66.rtt_open, "read": nip66.rtt_read, "write": nip66.rtt_write}
    return [[f"rtt-{test}", str(rtt)] for test, rtt in measured.items() if rtt is not None]


def _requirements(report: ProbeReport) -> Iterator[tuple[str, bool]]:
    """Each of NIP-66's requirements of which something is known."""
    facts, nip11 = report.facts, report.metadata.nip11
    claims = (nip11.limitation if nip11 else None) or {}
    measured = {
        "auth": facts.auth_required,
        "payment": facts.payment_required,
        "writes": _restricts_writing(facts),
        "pow": _asks_for_work(facts),
    }
    claimed = {
        "auth": _claim(claims, "auth_required"),
        "payment": _claim(claims, "payment_required"),
        "writes": _claim(claims, "restricted_writes"),
        "pow": _claimed_work(claims.get("min_pow_difficulty")),
    }
    for key, fact in measured.items():
        required = claimed[key] if fact is None else fact
        if required is not None:
            yield key, required


def _restricts_writing(facts: ProbeFacts) -> bool | None:
    if facts.write_outcome == "ok":
        return False
    return True if facts.write_outcome in _RESTRICTED else None


def _asks_for_work(facts: ProbeFacts) -> bool | None:
    if facts.pow_difficulty is not None or facts.write_outcome == "pow":
        return True
    return False if facts.write_outcome == "ok" else None


def _claim(claims: dict[str, Any], name: str) -> bool | None:
    claim = claims.get(name)
    return claim if type(claim) is bool else None


def _claimed_work(bits: object) -> bool | None:
    return bits > 0 if type(bits) is int else None


def _nips(supported: list[int | str] | None) -> list[str]:
    named = dict.fromkeys(str(nip) for nip in supported or ())
    return [nip for nip in named if _is_nip(nip)][:_MAX_NIPS]


def _topics(claimed: object) -> list[str]:
    named = dict.fromkeys(claimed) if type(claimed) is list and _all_texts(claimed) else {}
    return [topic for topic in named if _is_topic(topic)][:_MAX_TOPICS]


def _all_texts(values: list[Any]) -> bool:
    return all(type(value) is str for value in values)


def _document(nip11: RelayMetadata.Nip11 | None) -> str:
    """The document as it was served, as far as it was understood; "" if it is too large."""
    if nip11 is None:
        return ""
    known = {
        name: value
        for name, value in nip11.to_dict().items()
        if value is not None and name != "extra_fields"
    }
    text = json.dumps(
        {**known, **(nip11.extra_fields or {})}, ensure_ascii=False, separators=(",", ":")
    )
    return text if len(text.encode()) <= _MAX_CONTENT_BYTES else ""
