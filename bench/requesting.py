"""Part "requests": how many requests a relay's events take, and how often they are sent."""

import asyncio

from bench.archiving import Runs, archive
from bench.dataset import START, growing
from bench.figures import Figure, Point, Series
from bench.peers import stream_with_bigbrotr
from bench.settings import Amounts
from bench.stage import CAP, events_file, relay, server

_SECONDS_PER_EVENT = 60
_GOAL_EVENTS = 60_000  # the goal is for these; the last empty requests weigh more in fewer


def measure(amounts: Amounts) -> Point:
    """One relay, archived once: counts need no median."""
    number = amounts.request_events
    until = START + number * _SECONDS_PER_EVENT
    path = events_file("growing", growing(number, number * _SECONDS_PER_EVENT))
    with relay(path) as running:
        url = f"ws://127.0.0.1:{running.port}"
        with server() as cluster:
            archive(cluster, [running], [url], until, number, Runs())
        ours = asyncio.run(running.counts())
        found = stream_with_bigbrotr([url], START, until, CAP, amounts.peer_seconds)
        both = asyncio.run(running.counts())
    peer = {name: both[name] - ours[name] for name in ours}
    least = -(-number // CAP)
    per = 1_000 / found["events"]
    return Point(
        "requests",
        1,
        figures=(
            Figure(
                f"requests for {number:,} events, cap {CAP}",
                "",
                Series("ours", (ours["requests"],)),
                Series("limit", (least,)),
                1.1 if number >= _GOAL_EVENTS else None,
            ),
            Figure(
                "events sent for the events kept",
                "",
                Series("ours", (ours["events"],)),
                Series("limit", (number,)),
                1.02,
            ),
            Figure(
                "requests for 1,000 events kept",
                "",
                Series("ours", (1_000 * ours["requests"] / number,)),
                Series("BigBrotr 6.6.9", (peer["requests"] * per,)),
            ),
            Figure(
                "events sent for 1,000 kept",
                "",
                Series("ours", (1_000 * ours["events"] / number,)),
                Series("BigBrotr 6.6.9", (peer["events"] * per,)),
            ),
        ),
        notes=(
            f"BigBrotr 6.6.9 kept {found['events']:,} events in the time that it was given; its "
            "counts are for those.",
        ),
    )
