"""`make simnet`: the simulated network, and the table of what the archive made of it."""

import asyncio
import os
import sys
import time

from components.databases import start_cluster
from simnet.bed import Batch, batches_of, run_batches
from simnet.faults import FAULTS
from simnet.networks import Plan, alone, big, by_fault, network, well_behaved
from simnet.report import failures, table, totals

_BATCH = 40
_AT_ONCE = 3
_BIG = 20_000
_ECONOMY = 60_000


def main() -> int:
    """Run what the environment asks for; 0 only if nothing was missed, altered or claimed."""
    chosen = {name: os.environ.get(name, "") for name in ("SEEDS", "SEED", "FAULT", "ECONOMY")}
    batches = _batches(**{name.lower(): value for name, value in chosen.items()})
    relays = sum(len(batch.plans) for batch in batches)
    print(f"{relays} relays in {len(batches)} batches", flush=True)
    started = time.monotonic()
    cluster = start_cluster()
    try:
        verdicts = asyncio.run(run_batches(cluster, batches, _AT_ONCE, _tell))
    finally:
        cluster.stop()
    if len(batches) == 1 and relays < 10:
        print(*batches[0].output, sep="\n")
    print("", table(verdicts), sep="\n")
    for verdict in verdicts:
        if verdict.plan.seed == "BIG":
            print(
                f"{verdict.plan.label}: {verdict.requests} requests, "
                f"{verdict.sent / max(1, verdict.archived):.4f} received for one kept"
            )
    broken, all_ = failures(verdicts), totals(verdicts)
    print("", *broken, "", sep="\n")
    print(
        f"missed = {all_.missed}, altered = {all_.altered}, false proofs = {all_.false_proofs}, "
        f"relays with a problem = {all_.problems}; {time.monotonic() - started:.0f} s"
    )
    return 0 if all_.clean else 1


def _batches(seeds: str, seed: str, fault: str, economy: str) -> list[Batch]:
    if seed:
        return [Batch(network(int(seed)))]
    if fault:
        return [Batch([by_fault(name) for name in fault.split(",")])]
    if economy:
        return [Batch([big(_ECONOMY)])]
    plans: list[Plan] = [well_behaved(), *(alone(fault) for fault in FAULTS if not fault.slow)]
    plans += [plan for seed in range(int(seeds or 20)) for plan in network(seed)]
    slow = [alone(fault) for fault in FAULTS if fault.slow]
    return [Batch([big(_BIG), *slow], first_host=5_000), *batches_of(plans, _BATCH)]


def _tell(batch: Batch) -> None:
    bad = sum(bool(verdict.problems) for verdict in batch.verdicts if not verdict.shifty)
    print(
        f"{len(batch.plans):4} relays  {len(batch.output):2} cycles  {batch.seconds:5.0f} s"
        + (f"  {bad} with a problem" if bad else ""),
        *(f"    took many cycles: {plan}" for plan in batch.patient),
        *(f"    {line}" for line in failures(batch.verdicts)),
        sep="\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
