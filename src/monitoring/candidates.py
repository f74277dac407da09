"""Candidates: relay URLs that were named and have not answered yet; what counts as an answer."""

import time

import leases
from bigbrotr import BigBrotr
from nostr.probe import ProbeReport

MAX_PER_CYCLE = 500
"""Candidates checked in one cycle: most are dead, and the relays' next checks must not wait."""

# One of each host comes before a second one of any, and who failed least comes first.
_DUE = r"""
    SELECT url
    FROM (
        SELECT candidates.url, coalesce(tasks.failures, 0) AS failures, candidates.found_at,
               row_number() OVER (
                   PARTITION BY substring(candidates.url FROM '^wss?://(\[[^\]]*\]|[^/:?]*)')
                   ORDER BY coalesce(tasks.failures, 0), candidates.found_at, candidates.url
               ) AS place
        FROM relay_candidates AS candidates
        LEFT JOIN relay_tasks AS tasks
            ON tasks.purpose = $1 AND tasks.relay_url = candidates.url
        WHERE coalesce(tasks.not_before, 0) <= $2
          AND coalesce(tasks.lease_expires_at, 0) <= $2
          AND NOT EXISTS (SELECT FROM relays WHERE relays.url = candidates.url)
          AND (candidates.network <> 'tor' OR $4)
    ) AS due
    ORDER BY place, failures, found_at, url
    LIMIT $3
"""

_NO_ANSWER = frozenset(("timeout", "disconnected"))


async def candidates_due(db: BigBrotr, *, tor: bool, limit: int = MAX_PER_CYCLE) -> list[str]:
    """The URLs of candidates to check now, at most `limit`, those never checked first; onion
    ones only where `tor` can be reached."""
    now = int(time.time())
    return [row["url"] for row in await db.fetch(_DUE, leases.MONITOR, now, limit, tor)]


def is_proven(report: ProbeReport) -> bool:
    """Whether a check shows that a Nostr relay is there: it took a WebSocket, and it answered the
    REQ, were it with a refusal, or it describes itself in a document that names NIPs."""
    result, document = report.metadata.nip66, report.metadata.nip11
    if result is None or not result.openable:
        return False
    return report.outcome not in _NO_ANSWER or bool(document and document.supported_nips)
