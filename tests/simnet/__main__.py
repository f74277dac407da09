"""`make simnet`: the simulated network, and the table of what the archive made of it."""

import asyncio
import os
import sys
import time

from components.databases import start_cluster
from simnet.bed import SERVICES, Batch, batches_of, run_batches
from simnet.cases import parse_case
from simnet.faults import FAULTS
from simnet.known import KNOWN
from simnet.networks import Plan, alone, big, by_fault, network, plan_of, well_behaved
from simnet.report import failures, figures, table, totals
from simnet.shrink import shrink_failures

_BATCH = 40
_AT_ONCE = 3
_EVENTS = 60_000
_FEW = 10  # relays; the services' own words are printed as well
_MOST_SHRUNK = 3


def main() -> int:
    """Run what the environment asks for; 0 only if nothing was missed, altered or claimed."""
    batches = _batches()
    relays = sum(len(batch.plans) for batch in batches)
    print(f"{relays} relays in {len(batches)} batches", flush=True)
    started = time.monotonic()
    cluster = start_cluster()
    try:
        verdicts = asyncio.run(run_batches(cluster, batches, _AT_ONCE, _tell))
        if relays < _FEW:
            print(*(line for batch in batches for line in batch.output), sep="\n")
        print("", table(verdicts), "", *figures(verdicts), *failures(verdicts), sep="\n")
        all_ = totals(verdicts)
        print(
            f"\nmissed = {all_.missed}, altered = {all_.altered}, false proofs = "
            f"{all_.false_proofs}, relays with a problem = {all_.problems}; "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        asyncio.run(shrink_failures(cluster, batches, _MOST_SHRUNK, _say))
    finally:
        cluster.stop()
    return 0 if all_.clean else 1


def _batches() -> list[Batch]:
    if seed := _asked("SEED"):
        return [Batch(network(int(seed)), service=SERVICES[int(seed) % len(SERVICES)])]
    if faults := _asked("FAULT"):
        return [Batch([by_fault(name) for name in faults.split(",")])]
    if cases := _asked("REPLAY"):
        return [Batch([plan_of(parse_case(text)) for text in cases.split(";")])]
    if _asked("ECONOMY"):
        return [Batch([big(_EVENTS)])]
    first = int(_asked("FROM") or 0)
    seeds = range(first, first + int(_asked("SEEDS") or 20))
    networks = [plan for seed in seeds for plan in network(seed)]
    if first:
        return batches_of(networks, _BATCH)
    plans: list[Plan] = [well_behaved(), *(plan_of(parse_case(text)) for text in KNOWN)]
    plans += [alone(fault) for fault in FAULTS if not fault.slow]
    slow = [Batch([alone(fault) for fault in FAULTS if fault.slow], first_host=5_000)]
    economy = [Batch([big(_EVENTS)], first_host=5_100)]
    return [*slow, *economy, *batches_of([*plans, *networks], _BATCH)]


def _asked(name: str) -> str:
    return os.environ.get(name, "")


def _say(text: str) -> None:
    print(text, flush=True)


def _tell(batch: Batch) -> None:
    bad = sum(bool(verdict.problems) for verdict in batch.verdicts)
    print(
        f"{len(batch.plans):4} relays  {len(batch.output):2} cycles  {batch.seconds:5.0f} s"
        f"  {batch.service}" + (f"  {bad} with a problem" if bad else ""),
        *(f"    took many cycles: {plan}" for plan in batch.patient),
        *(f"    {line}" for line in failures(batch.verdicts)),
        sep="\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
