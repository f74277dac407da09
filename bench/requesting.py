"""Part "requests": how many requests a relay's events take, and how often they are sent."""

import asyncio
from statistics import median

from bench.archiving import Runs, archive
from bench.dataset import START, growing
from bench.figures import Figure, Point, Series
from bench.peers import stream_with_bigbrotr
from bench.settings import Amounts
from bench.stage import CAP, events_file, relay, server

_SECONDS_PER_EVENT = 60
_Counts = dict[str, int]
_GOAL_EVENTS = 60_000  # the goal is for these; the last empty requests weigh more in fewer


def measure(amounts: Amounts) -> Point:
    """One relay, archived by both. A request more or less depends on which lane comes first."""
    number = amounts.request_events
    until = START + number * _SECONDS_PER_EVENT
    path = events_file("growing", growing(number, number * _SECONDS_PER_EVENT))
    ours, peer, kept = list[_Counts](), list[_Counts](), list[int]()
    with relay(path) as running, server() as cluster:
        url = f"ws://127.0.0.1:{running.port}"
        for _ in range(amounts.program_runs):
            before = asyncio.run(running.counts())
            archive(cluster, [running], [url], until, number, Runs())
            between = asyncio.run(running.counts())
            found = stream_with_bigbrotr([url], START, until, CAP, amounts.peer_seconds)
            after = asyncio.run(running.counts())
            ours.append({name: between[name] - before[name] for name in between})
            peer.append({name: after[name] - between[name] for name in between})
            kept.append(found["events"])
    least = -(-number // CAP)

    def per_thousand(what: str) -> tuple[Series, Series]:
        return (
            Series("ours", tuple(1_000 * counts[what] / number for counts in ours)),
            Series(
                "BigBrotr 6.6.9",
                tuple(
                    1_000 * counts[what] / events for counts, events in zip(peer, kept, strict=True)
                ),
            ),
        )

    return Point(
        "requests",
        amounts.program_runs,
        figures=(
            Figure(
                f"requests for {number:,} events, cap {CAP}",
                "",
                Series("ours", tuple(counts["requests"] for counts in ours)),
                Series("limit", (least,)),
                1.1 if number >= _GOAL_EVENTS else None,
            ),
            Figure(
                "events sent for the events kept",
                "",
                Series("ours", tuple(counts["events"] for counts in ours)),
                Series("limit", (number,)),
                1.02,
            ),
            Figure(
                "requests for 1,000 events kept",
                "",
                *per_thousand("requests"),
            ),
            Figure(
                "events sent for 1,000 kept",
                "",
                *per_thousand("events"),
            ),
        ),
        notes=(
            f"BigBrotr 6.6.9 kept {median(kept):,} events in the time that it was given; its "
            "counts are for those.",
        ),
    )
