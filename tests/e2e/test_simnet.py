"""A small run of the simulated network: every fault alone, and a few random networks.

`make simnet SEEDS=200` is the large one. What fails here is brought back by the text in
brackets: `make simnet REPLAY='SEED=7/2 faults=cap-20,repeats'`, which also shrinks it.
"""

from components.databases import Cluster
from simnet.bed import batches_of, run_batches
from simnet.cases import parse_case
from simnet.faults import FAULTS
from simnet.known import KNOWN
from simnet.networks import alone, network, plan_of, well_behaved
from simnet.report import failures, table, totals

SEEDS = 8


async def test_nothing_is_missed_altered_or_claimed_falsely(cluster: Cluster) -> None:
    plans = [well_behaved(), well_behaved(cap=50)]
    plans += [plan_of(parse_case(text)) for text in KNOWN]
    plans += [alone(fault) for fault in FAULTS if not fault.slow]
    plans += [plan for seed in range(SEEDS) for plan in network(seed)]
    verdicts = await run_batches(cluster, batches_of(plans, len(plans) // 2 + 1), at_once=2)
    assert len(verdicts) == len(plans)
    report = "\n".join([table(verdicts), "", *failures(verdicts)])
    assert totals(verdicts).clean, report
    readable = [verdict for verdict in verdicts if not verdict.plan.reading]
    assert sum(verdict.archived for verdict in readable) > 20_000, report
