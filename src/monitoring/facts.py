"""What a check found beyond NIP-66's results, as a row of relay_facts."""

import json
from collections.abc import Sequence

import asyncpg

from nostr.probe import ProbeReport

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
