"""Making a failure readable: the same failure with fewer faults and events."""

import re
from collections.abc import Callable, Sequence

from components.databases import Cluster
from simnet.bed import Batch, run_batch
from simnet.cases import Case, simpler, weight
from simnet.networks import BIG, plan_of
from simnet.truth import Verdict

# A failure may need luck: it is given so many chances before it counts as gone.
_CHANCES = 3
_MOST_ROUNDS = 25

Failure = Callable[[Verdict], bool]


def kind_of(verdict: Verdict) -> Failure:
    """What is wrong with a relay: whether another one is wrong in the same way."""
    for name in ("altered", "false_proofs", "missed"):
        if getattr(verdict, name):
            return lambda other: bool(getattr(other, name))
    said = _without_numbers(verdict)
    return lambda other: bool(said & _without_numbers(other))


def _without_numbers(verdict: Verdict) -> set[str]:
    return {re.sub("[0-9]+", "#", problem) for problem in verdict.problems}


async def shrink_failures(
    cluster: Cluster,
    batches: Sequence[Batch],
    most: int,
    tell: Callable[[str], None],
) -> None:
    """Tell of the first failures of the batches what brings each back, with little around it."""
    failed = [
        (verdict, batch.service)
        for batch in batches
        for verdict in batch.verdicts
        if verdict.problems and verdict.plan.case.origin != BIG
    ]
    for verdict, service in failed[:most]:
        case = verdict.plan.case
        tell(f"\nShrinking {case.text}")
        smallest = await shrink(cluster, case, kind_of(verdict), service, tell)
        if smallest is None:
            tell("    It does not fail by itself: run its whole network again with SEED=.")
        else:
            tell(f"make simnet REPLAY='{smallest.text}'")


async def shrink(
    cluster: Cluster,
    case: Case,
    failure: Failure,
    service: str,
    tell: Callable[[str], None] = lambda text: None,
) -> Case | None:
    """The smallest case found that fails in this way; None if it does not fail by itself.

    All the simpler cases of a round are tried in one batch, as relays beside each other.
    """
    if not await _failing(cluster, [case] * _CHANCES, failure, service):
        return None
    for _ in range(_MOST_ROUNDS):
        count = len(plan_of(case).events)
        tell(f"    {len(case.faults)} faults, {count} events: {case.text}")
        failing = await _failing(cluster, list(simpler(case, count)), failure, service)
        if not failing:
            break
        case = min(failing, key=lambda found: weight(found, len(plan_of(found).events)))
    return case


async def _failing(
    cluster: Cluster, cases: Sequence[Case], failure: Failure, service: str
) -> list[Case]:
    batch = await run_batch(cluster, Batch([plan_of(case) for case in cases], service=service))
    return [case for case, verdict in zip(cases, batch.verdicts, strict=True) if failure(verdict)]
