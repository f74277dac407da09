"""Part "check": receiving and checking an event beside one signature and the libraries."""

from bench.dataset import steady
from bench.figures import Figure, Point, Series
from bench.processes import Ran, run_module
from bench.settings import Amounts
from bench.stage import events_file, relay

# Share of known ids, pages in flight.
NEW, KNOWN = "ours:0:4", "ours:0.6:4"
PEERS = ("signature", "nostr-tools", "nostr-sdk", "nostr-sdk-fetch")
_MICRO = 1_000_000


def measure(amounts: Amounts) -> Point:
    """Every case in turn, as often as there are runs."""
    path = events_file("steady", steady(amounts.check_events))
    cases = (NEW, KNOWN, *PEERS, "beside")
    found: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    steps: list[dict[str, float]] = []
    with relay(path) as running:
        for _ in range(amounts.runs):
            for case in cases:
                found[case].append(_run(case, path, running.port).answer)
            steps.append(_run("steps", path, running.port).answer["steps"])

    def series(name: str, case: str, key: str = "cpu") -> Series:
        return Series(name, tuple(_MICRO * run[key] / run["events"] for run in found[case]))

    limit = series("one signature", "signature")
    new, known = series("new events", NEW), series("60 % known", KNOWN)
    tools, sdk = series("nostr-tools 1.4.0", "nostr-tools"), series("nostr-sdk", "nostr-sdk")
    fetch = series("nostr-sdk's client, fetching", "nostr-sdk-fetch")
    waits = Series("longest", tuple(run["longest_wait"] * 1e3 for run in found["beside"]))
    large = Series(
        f"the page of {amounts.check_events:,} that it is checked beside",
        tuple(run["wall"] * 1e3 for run in found["beside"]),
    )
    shares = {
        name: Series(name, tuple(_MICRO * run[name] / amounts.check_events for run in steps)).value
        for name in steps[0]
    }
    rest = new.value - sum(shares.values())
    unit = "µs CPU/event"
    return Point(
        "check",
        amounts.runs,
        figures=(
            Figure("receive and check a new event", unit, new, limit, 1.3),
            Figure("the same, 60 % already known", unit, known, limit, 0.6),
            Figure("receive and check a new event", unit, new, tools),
            Figure("receive and check a new event", unit, new, sdk),
            Figure("receive and check a new event", unit, new, fetch),
            Figure("longest check of one event beside a large page", "ms", waits, large),
        ),
        facts={
            "signature_without_key_us": series("", "signature", "without_key").value,
            "loop_late_p99_ms": Series(
                "", tuple(run["late_p99"] * 1e3 for run in found[NEW])
            ).value,
            "loop_late_max_ms": Series(
                "", tuple(run["late_max"] * 1e3 for run in found[NEW])
            ).value,
            "check_us": new.value,
            "check_known_us": known.value,
        },
        bars={
            "µs of CPU to receive and check an event": {
                "BigBrotr, new": new.value,
                "BigBrotr, 60 % known": known.value,
                "one signature (limit)": limit.value,
                "nostr-tools, no network": tools.value,
                "nostr-sdk, no network": sdk.value,
                "nostr-sdk's client": fetch.value,
            },
            "µs of CPU by step of the hot path": {
                **dict(sorted(shares.items(), key=lambda item: -item[1])),
                "the rest: socket, frames, loop": max(0.0, rest),
            },
        },
        cpu={
            f"check, {case}": Series(case, tuple(run["cpu"] for run in found[case])).value
            for case in cases
        },
    )


def _run(case: str, path: object, port: int) -> Ran:
    return run_module("bench.check", case, path, port)
