"""The ledger of proofs: which seconds of a relay are archived, which could not be proven.

Per relay and per filter, `sync_coverage.covered` is the set of seconds proven (DESIGN
section 3). The functions that take a connection run inside the transaction that writes the
events, so that no second is ever covered without its events.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson
from asyncpg import Range

from bigbrotr import BigBrotr
from sync.verification import VerificationState
from sync.windows import Window, merge

# A second that could not be split is tried again after a day, then ever more rarely.
_GAP_RETRY_SECONDS = 86_400
_GAP_RETRY_MOST = 30
_LATELY_SECONDS = 3_600
# Gaps for which asking again soon is pointless; refusals by the relay are not among them.
UNPROVABLE = ("saturated", "overflow", "refused-events")

_NOW = "floor(extract(epoch FROM now()))::bigint"


def _held(row: str) -> str:
    """SQL: the coverage of a row that counts. No second is proven before it is over: what a clock
    that was ahead, or a hand, put beyond the row's last change or beyond the present does not."""
    return f"{row}.covered * int8multirange(int8range(NULL, least({row}.updated_at, {_NOW})))"


@dataclass(frozen=True, slots=True)
class Gap:
    """Seconds that could not be proven, and why."""

    window: Window
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a session adds to the ledger.

    Attributes:
        target: the seconds that the session is after.
        proven: seconds whose events are archived by now.
        void: seconds proven before, which a relay has since shown to be worth nothing; what
            `proven` has of them counts all the same.
        gaps: seconds that could not be proven.
        refusals: what the relay refuses now, instead of what it refused at the end of its last
            session; None: no news of that.
    """

    relay_url: str
    filter_hash: str
    target: Window
    proven: Sequence[Window] = ()
    void: Sequence[Window] = ()
    gaps: Sequence[Gap] = ()
    refusals: Sequence[Gap] | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.relay_url, self.filter_hash


async def register_filter(db: BigBrotr, filter_hash: str, flt: Mapping[str, Any]) -> None:
    """Remember what a filter's hash stands for, for people who read the ledger."""
    await db.execute(
        """
        INSERT INTO sync_filters (filter_hash, filter) VALUES ($1, $2::text::jsonb)
        ON CONFLICT (filter_hash) DO NOTHING
        """,
        filter_hash,
        orjson.dumps(dict(flt), option=orjson.OPT_SORT_KEYS).decode(),
    )


async def remaining(
    db: BigBrotr, relay_url: str, filter_hash: str, target: Window, now: int | None = None
) -> list[Window]:
    """The seconds of the target still to be asked for, newest first.

    Seconds known to be unprovable are left out until their next try is due.
    """
    rows = await db.fetch(
        f"""
        SELECT lower(rest) AS since, upper(rest) - 1 AS until
        FROM unnest(
            int8multirange($3::int8range)
            - coalesce(
                (SELECT {_held("sync_coverage")} FROM sync_coverage
                 WHERE relay_url = $1 AND filter_hash = $2),
                '{{}}')
            - coalesce(
                (SELECT range_agg(gap) FROM sync_gaps
                 WHERE relay_url = $1 AND filter_hash = $2 AND reason = ANY($4::text[])
                   AND last_tried_at <= $5::bigint + $6::bigint
                   AND last_tried_at > $5::bigint - $6::bigint * least(attempts, $7::int)),
                '{{}}')
        ) AS rest
        ORDER BY 1 DESC
        """,
        relay_url,
        filter_hash,
        _range(target),
        list(UNPROVABLE),
        int(time.time()) if now is None else now,
        _GAP_RETRY_SECONDS,
        _GAP_RETRY_MOST,
    )
    return [Window(row["since"], row["until"]) for row in rows]


async def kept_from(db: BigBrotr) -> int:
    """The first second whose events are not all removed by retention: none before is wanted."""
    row = await db.fetchone("SELECT removed_before FROM retention WHERE kind IS NULL")
    return row["removed_before"] if row else 0


async def first_unproven(
    db: BigBrotr, relay_url: str, filter_hash: str, target: Window
) -> int | None:
    """The first second of the target that is not proven; None if all of it is."""
    row = await db.fetchone(
        f"""
        SELECT lower(int8multirange($3::int8range) - coalesce(
            (SELECT {_held("sync_coverage")} FROM sync_coverage
             WHERE relay_url = $1 AND filter_hash = $2),
            '{{}}')) AS since
        """,
        relay_url,
        filter_hash,
        _range(target),
    )
    return None if row is None else row["since"]


async def record(connection: asyncpg.Connection, entries: Sequence[Entry]) -> None:
    """Add proven seconds that are over, drop the gaps that they close, and record new ones.

    Entries must come in the order of relay and filter: writers of the same relays then wait for
    each other's row of the first table, and never deadlock.
    """
    await connection.executemany(
        f"""
        INSERT INTO sync_coverage AS ledger (relay_url, filter_hash, covered, target, updated_at)
        SELECT $1, $2, {_held("proven")}, $5, proven.updated_at
        FROM (SELECT coalesce(range_agg(r), '{{}}') AS covered, {_NOW} AS updated_at
              FROM unnest($3::int8range[]) AS r) AS proven
        ON CONFLICT (relay_url, filter_hash) DO UPDATE
        SET covered = {_held("ledger")}
                - coalesce((SELECT range_agg(r) FROM unnest($4::int8range[]) AS r), '{{}}')
                + excluded.covered,
            target = coalesce(range_merge(ledger.target, excluded.target), excluded.target),
            updated_at = excluded.updated_at
        """,
        [
            (*entry.key, _ranges(entry.proven), _ranges(entry.void), _range(entry.target))
            for entry in entries
        ],
    )
    await _execute_all(
        connection,
        """
        DELETE FROM sync_gaps
        WHERE relay_url = $1 AND filter_hash = $2
          AND gap <@ (SELECT covered FROM sync_coverage
                      WHERE relay_url = $1 AND filter_hash = $2)
        """,
        [entry.key for entry in entries if entry.proven],
    )
    await _execute_all(
        connection,
        """
        DELETE FROM sync_gaps
        WHERE relay_url = $1 AND filter_hash = $2 AND reason <> ALL($3::text[])
        """,
        [(*entry.key, UNPROVABLE) for entry in entries if entry.refusals is not None],
    )
    await _execute_all(
        connection,
        """
        INSERT INTO sync_gaps AS known
            (relay_url, filter_hash, gap, reason, detail, first_seen_at, last_tried_at, attempts)
        VALUES ($1, $2, $3, $4, $5, $6, $6, 1)
        ON CONFLICT (relay_url, filter_hash, gap, reason) DO UPDATE
        SET detail = excluded.detail,
            last_tried_at = excluded.last_tried_at,
            attempts = known.attempts + 1
        """,
        [
            (*entry.key, _range(gap.window), gap.reason, gap.detail, int(time.time()))
            for entry in entries
            for gap in (*entry.gaps, *(entry.refusals or ()))
        ],
    )


async def verification_state(
    db: BigBrotr, relay_url: str, filter_hash: str
) -> VerificationState | None:
    """How far re-verification has come; None before the first complete proof."""
    row = await db.fetchone(
        """
        SELECT verified_at, rounds FROM sync_coverage
        WHERE relay_url = $1 AND filter_hash = $2 AND verified_at IS NOT NULL
        """,
        relay_url,
        filter_hash,
    )
    return None if row is None else VerificationState(row["verified_at"], row["rounds"])


async def record_verification(
    db: BigBrotr, relay_url: str, filter_hash: str, state: VerificationState
) -> None:
    """Record a round of re-verification, or that the clock to the first one starts."""
    await db.execute(
        """
        UPDATE sync_coverage SET verified_at = $3, rounds = $4
        WHERE relay_url = $1 AND filter_hash = $2
        """,
        relay_url,
        filter_hash,
        state.verified_at,
        state.rounds,
    )


async def seen_lately(db: BigBrotr, relay_url: str, window: Window) -> bool:
    """Whether the archive has seen an event of these seconds at the relay within the last hour,
    too short a time for a relay to have dropped them all. Replaceable, ephemeral and addressable
    events do not count: relays keep the latest of a kind, or none (NIP-01)."""
    row = await db.fetchone(
        """
        SELECT FROM events_relays
        JOIN events ON events.id = events_relays.event_id
        WHERE relay_url = $1 AND seen_at >= $2 AND created_at BETWEEN $3 AND $4
            AND kind NOT IN (0, 3) AND kind NOT BETWEEN 10000 AND 39999
        LIMIT 1
        """,
        relay_url,
        int(time.time()) - _LATELY_SECONDS,
        window.since,
        window.until,
    )
    return row is not None


async def progress(db: BigBrotr, filter_hash: str, most: int = 20) -> dict[str, object]:
    """How far the relays of a filter are, for people: a summary, and those farthest behind."""
    summary = await db.fetchone(
        """
        SELECT count(*) AS relays,
               count(*) FILTER (WHERE proven_percent = 100) AS complete,
               count(*) FILTER (WHERE gaps > 0) AS with_gaps
        FROM sync_progress WHERE filter_hash = $1
        """,
        filter_hash,
    )
    behind = await db.fetch(
        """
        SELECT relay_url, proven_percent::float8 AS proven_percent, gaps, gap_seconds,
               target_from, target_until, verified_at, last_outcome, learnt::text AS learnt
        FROM sync_progress
        WHERE filter_hash = $1 AND (proven_percent < 100 OR gaps > 0)
        ORDER BY proven_percent, relay_url LIMIT $2
        """,
        filter_hash,
        most,
    )
    return {
        **(dict(summary) if summary else {}),
        "behind": [{**dict(row), "learnt": orjson.loads(row["learnt"] or "{}")} for row in behind],
    }


async def has_gaps(db: BigBrotr, relay_url: str, filter_hash: str) -> bool:
    """Whether seconds of this relay are recorded as not provable."""
    row = await db.fetchone(
        "SELECT FROM sync_gaps WHERE relay_url = $1 AND filter_hash = $2 LIMIT 1",
        relay_url,
        filter_hash,
    )
    return row is not None


def _range(window: Window) -> Range:
    return Range(window.since, window.until + 1)


def _ranges(windows: Sequence[Window]) -> list[Range]:
    return [_range(window) for window in merge(windows)]


async def _execute_all(
    connection: asyncpg.Connection, statement: str, rows: Sequence[tuple[object, ...]]
) -> None:
    if rows:
        await connection.executemany(statement, rows)
