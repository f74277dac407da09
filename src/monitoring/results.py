"""What a check means for its relay, and how a batch of checks is stored."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

import leases
from bigbrotr import BigBrotr
from metadata_rows import write_metadata
from monitoring.candidates import is_proven
from monitoring.due import ANSWERED_AT
from monitoring.facts import kept_metadata, record_facts
from monitoring.schedule import FIRST_RECHECK_SECONDS, LONGEST_PLAN_SECONDS, rest_after_failure
from nostr.probe import ProbeReport

# Outcomes that say something of our own side, and nothing of the relay.
_NOT_CHECKED = frozenset(("no-tor", "socks", "worker-died", "check-broken"))
# Why an open relay cannot be read. Any other word is the relay's own, and there is no end to them.
_READ_OUTCOMES = frozenset(
    (
        *("ok", "timeout", "disconnected", "closed", "overflow"),
        *("auth-required", "payment-required", "restricted", "blocked", "rate-limited"),
        *("error", "invalid", "unsupported", "mute", "pow"),
    )
)
_OTHER_REFUSAL = "other-refusal"


@dataclass(frozen=True, slots=True)
class Checked:
    """A check that ended. `report` is None when the check itself broke; `outcome` is a word of
    ours."""

    claim: leases.Claim
    report: ProbeReport | None
    outcome: str
    is_candidate: bool

    @classmethod
    def of(cls, claim: leases.Claim, report: ProbeReport, is_candidate: bool) -> "Checked":
        """A check with a report."""
        nip66 = report.metadata.nip66
        own_word = nip66 is not None and nip66.openable and report.outcome not in _READ_OUTCOMES
        return cls(claim, report, _OTHER_REFUSAL if own_word else report.outcome, is_candidate)

    @property
    def result(self) -> ProbeReport | None:
        """The report, if it is about the relay."""
        return None if self.outcome in _NOT_CHECKED else self.report

    @property
    def answered(self) -> bool:
        """Whether the relay answered; of a candidate, more is asked than that it opens."""
        if self.result is None or self.result.metadata.nip66 is None:
            return False
        if self.is_candidate:
            return is_proven(self.result)
        return bool(self.result.metadata.nip66.openable)

    @property
    def stored(self) -> ProbeReport | None:
        """The report, if it is to be stored, which makes a candidate a relay."""
        return self.result if self.answered or not self.is_candidate else None

    @property
    def answered_before(self) -> bool:
        """Whether an earlier check was answered."""
        return ANSWERED_AT in self.claim.learnt


def release_of(checked: Checked, now: int, frequency: float, chance: float) -> leases.Release:
    """How the lease on the relay ends (pure). `frequency` is in seconds between two checks of a
    relay that answers, `chance` is random, from 0.0 to 1.0."""
    claim = checked.claim
    if checked.result is None:
        # Not the relay's fault, but a relay that breaks workers must not do so in a loop.
        # What was dead before stays so.
        pause = math.floor(min(FIRST_RECHECK_SECONDS, frequency))
        return leases.Release(claim.url, checked.outcome, claim.failures > 0, now + pause)
    if checked.answered:
        # Another monitor may have made its plan before this check.
        pause = math.floor(min(LONGEST_PLAN_SECONDS, frequency))
        not_before = checked.result.metadata.generated_at + pause
        return leases.Release(claim.url, checked.outcome, False, not_before, {ANSWERED_AT: now})
    rest = rest_after_failure(
        claim.failures + 1,
        answered_before=checked.answered_before,
        frequency=frequency,
        chance=chance,
    )
    return leases.Release(claim.url, checked.outcome, True, now + rest)


async def store(db: BigBrotr, owner: str, batch: Sequence[Checked], frequency: float) -> int:
    """Writes a batch of checks and ends their leases, in one transaction; returns how many checks
    were new. Raises DatabaseError."""
    now = int(time.time())
    reports = [(checked.stored, checked.outcome) for checked in batch if checked.stored]
    metadata = [kept_metadata(report) for report, _ in reports]
    releases = [release_of(checked, now, frequency, random.random()) for checked in batch]

    async def work(conn: asyncpg.Connection) -> int:
        new = await write_metadata(conn, metadata, now)
        await record_facts(conn, reports)
        await leases.release_all(conn, leases.MONITOR, owner, releases)
        return new

    return await db.run_in_transaction(work)
