"""A small run of the simulated network: every fault alone, and a few random networks.

`make simnet SEEDS=200` is the large one. What fails is shrunk and brought back by
`make simnet REPLAY='SEED=7/2 faults=cap-20,repeats'`.
"""

import pytest

from components.databases import Cluster
from simnet.bed import Batch, batches_of, run_batches
from simnet.cases import parse_case
from simnet.faults import BY_NAME, FAULTS
from simnet.known import KNOWN
from simnet.networks import alone, network, plan_of, well_behaved
from simnet.report import failures, table, totals
from simnet.shrink import shrink_failures

SEEDS = 8
# Relays that the monitor finds readable, some of which tell it limits.
MONITORED = (
    *("cap-small", "cap-below-default", "limits-told", "limits-absurd", "one-subscription"),
    *("few-subscriptions", "oldest-first", "auth-first", "latency", "no-deflate", "eose-late"),
    *("garbage-frames", "wrong-events", "negentropy", "hint-right", "until-exclusive"),
)


async def test_nothing_is_missed_altered_or_claimed_falsely(cluster: Cluster) -> None:
    plans = [well_behaved(), well_behaved(cap=50)]
    plans += [plan_of(parse_case(text)) for text in KNOWN]
    plans += [alone(fault) for fault in FAULTS if not fault.slow]
    plans += [plan for seed in range(SEEDS) for plan in network(seed)]
    batches = batches_of(plans, len(plans) // 2 + 1)
    verdicts = await run_batches(cluster, batches, at_once=2)
    assert len(verdicts) == len(plans)
    report = [table(verdicts), "", *failures(verdicts)]
    if not totals(verdicts).clean:
        await shrink_failures(cluster, batches, 1, report.append)
        pytest.fail("\n".join(report))
    readable = [verdict for verdict in verdicts if not verdict.plan.reading]
    assert sum(verdict.archived for verdict in readable) > 20_000, "\n".join(report)


async def test_from_the_monitor_to_the_last_event(cluster: Cluster) -> None:
    plans = [well_behaved(), *(alone(BY_NAME[name]) for name in MONITORED)]
    batch = Batch(plans, service="synchronizer", monitored=True)
    verdicts = await run_batches(cluster, [batch], at_once=1)
    assert totals(verdicts).clean, "\n".join([*failures(verdicts), *batch.output])
    assert all(verdict.archived >= verdict.held > 400 for verdict in verdicts)
