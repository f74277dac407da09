"""What a check found, as it is kept: results of NIP-66 in nip66, all else in relay_facts."""

import json
from collections.abc import Sequence
from math import log10

import asyncpg
from nostr_tools import RelayMetadata

from nostr.probe import ProbeReport

_EXACT_BELOW = 20  # milliseconds
_STEPS = 24  # for each power of ten
_RECORD = "SELECT record_relay_facts($1, $2, $3::jsonb[])"


async def record_facts(
    conn: asyncpg.Connection, reports: Sequence[tuple[ProbeReport, str]]
) -> None:
    """Records reports, each with its outcome in our words, in the caller's transaction. No
    relay may be twice among the reports."""
    ordered = sorted(reports, key=lambda one: one[0].metadata.relay.url)
    if ordered:
        await conn.fetchval(
            _RECORD,
            [report.metadata.relay.url for report, _ in ordered],
            [report.metadata.generated_at for report, _ in ordered],
            [json.dumps(_document(report, outcome)) for report, outcome in ordered],
        )


def _document(report: ProbeReport, outcome: str) -> dict[str, object]:
    facts, nip66 = report.facts, report.metadata.nip66
    return {
        "outcome": outcome,
        "openable": nip66 is not None and nip66.openable,
        "readable": nip66 is not None and nip66.readable,
        "writable": nip66 is not None and nip66.writable,
        "write_outcome": facts.write_outcome,
        "document_outcome": facts.document_outcome,
        "scheme": facts.scheme,
        "auth_required": facts.auth_required,
        "payment_required": facts.payment_required,
        "pow_difficulty": facts.pow_difficulty,
        "ipv4": facts.link.ipv4,
        "ipv6": facts.link.ipv6,
        "tls_version": facts.link.tls_version,
        "tls_issuer": facts.link.tls_issuer,
        "tls_expires_at": facts.link.tls_expires_at,
    }


def kept_metadata(report: ProbeReport) -> RelayMetadata:
    """The metadata of a report with its round-trip times as `kept_rtt` has them."""
    metadata = report.metadata
    nip66 = metadata.nip66
    if nip66 is None or not nip66.openable:
        return metadata
    rtts = (nip66.rtt_open, nip66.rtt_read, nip66.rtt_write)
    kept = RelayMetadata.Nip66(
        nip66.openable,
        nip66.readable,
        nip66.writable,
        *(None if rtt is None else kept_rtt(rtt) for rtt in rtts),
    )
    return RelayMetadata(metadata.relay, metadata.generated_at, metadata.nip11, kept)


def kept_rtt(milliseconds: int) -> int:
    """A round-trip time to within 5 % and half a millisecond, which is less than it differs from
    one check to the next.

    Exact times would make nearly every result a row of its own, and nip66 would grow with every
    check; so it holds some ten thousand rows for ever.
    """
    if milliseconds < _EXACT_BELOW:
        return milliseconds
    step: float = 10.0 ** (round(log10(milliseconds) * _STEPS) / _STEPS)
    return round(step)
