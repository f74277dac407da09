"""The demo's verdict and what it prints: pure functions of what was counted."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from standalone.demo_archive import CheckedRelay, NamedRelay, Progress, ReadBack

_CYCLE = re.compile(r" cycle_done (.*)$")
_REFUSED = re.compile(r" urls_refused (.*)$")
_REASON = re.compile(r"([a-z0-9-]+)=(\d+)(?=\s|$)")
_NUMBER = re.compile(r"(\w+)=(\d+)(?=\s|$)")


@dataclass(frozen=True, slots=True)
class RelayResult:
    """One relay: the ids it holds are its own word, what is archived is the database's."""

    name: str
    software: str
    held: int
    archived: int
    proven_percent: float
    seconds: float

    @property
    def missing(self) -> int:
        """Events that it holds and that are not archived from it."""
        return self.held - self.archived

    @property
    def events_per_second(self) -> float:
        """Over the `seconds` in which its events came in."""
        return self.archived / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sum: different events held by any relay, and those archived right from every relay
    that holds them; `wrong` are rows that do not read back as what was signed."""

    held: int
    archived: int
    relays: int
    wrong: int

    @property
    def missing(self) -> int:
        """Events that some relay holds and that are not archived right from it."""
        return self.held - self.archived

    @property
    def passed(self) -> bool:
        """Whether nothing is missing and nothing is wrong."""
        return self.held > 0 and self.missing == 0 and self.wrong == 0

    def line(self) -> str:
        """The last line of the demo."""
        return (
            f"demo: archived {self.archived} of {self.held} events "
            f"from {self.relays} relays, {self.missing} missing"
        )


class ArrivalClock:
    """For how long the events of each relay came in, as far as looking now and then tells."""

    def __init__(self) -> None:
        self._empty_at: dict[str, float] = {}
        self._grew_at: dict[str, float] = {}
        self._archived: dict[str, int] = {}

    def note(self, seconds: float, progress: Progress) -> None:
        """What was seen `seconds` after the start."""
        for url, relay in progress.relays.items():
            if relay.archived == 0:
                self._empty_at[url] = seconds
            elif relay.archived > self._archived.get(url, 0):
                self._archived[url] = relay.archived
                self._grew_at[url] = seconds

    def seconds(self) -> dict[str, float]:
        """By URL; a relay from which nothing came is not in it."""
        return {url: last - self._empty_at.get(url, 0.0) for url, last in self._grew_at.items()}


def judge(held: Mapping[str, Set[str]], result: ReadBack) -> Verdict:
    """The verdict over what each relay holds (ids by URL) and what the archive gave back."""
    everything = set().union(*held.values())
    missing = set().union(*(ids - archived_from(url, result) for url, ids in held.items()))
    return Verdict(len(everything), len(everything) - len(missing), len(held), len(result.wrong))


def archived_from(url: str, result: ReadBack) -> Set[str]:
    """The ids that are archived right, with a sighting at this relay."""
    return result.right & result.sightings.get(url, set())


def progress_line(
    seconds: float, progress: Progress, names: Mapping[str, str], held: Mapping[str, int]
) -> str:
    """One line while the services work; `names` and `held` are by URL."""
    parts = [
        f"{name} {progress.relays[url].archived:,}/{held[url]:,}"
        f" ({progress.relays[url].proven:.0f}% proven)"
        for url, name in names.items()
    ]
    return f"{seconds:6.1f} s  {progress.events:>7,} events   " + "   ".join(parts)


def table(results: Sequence[RelayResult]) -> str:
    """The table per relay."""
    header = ("relay", "software", "held", "archived", "missing", "proven %", "events/s")
    rows = [
        (
            one.name,
            one.software,
            f"{one.held:,}",
            f"{one.archived:,}",
            f"{one.missing:,}",
            f"{one.proven_percent:.2f}",
            f"{one.events_per_second:,.0f}",
        )
        for one in results
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(_row(row, widths) for row in (header, tuple("-" * w for w in widths), *rows))


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [cell.ljust(width) for cell, width in zip(cells[:2], widths, strict=False)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join([*texts, *numbers])


def cycle_totals(log: Iterable[str]) -> tuple[int, dict[str, int]]:
    """How many cycles a service's log reports, and the sums of what they counted."""
    cycles = 0
    totals: dict[str, int] = {}
    for line in log:
        found = _CYCLE.search(line)
        if found is None:
            continue
        cycles += 1
        for name, value in _NUMBER.findall(found[1]):
            totals[name] = totals.get(name, 0) + int(value)
    return cycles, totals


def service_line(name: str, log: Sequence[str]) -> str:
    """What a service did, from its log."""
    cycles, totals = cycle_totals(log)
    seeds = next((line for line in reversed(log) if " seeds_added " in line), None)
    if seeds is not None:
        return f"{name:21} {seeds.partition(' seeds_added ')[2]}"
    counted = " ".join(f"{key}={value}" for key, value in totals.items() if value)
    return f"{name:21} {cycles} cycles: {counted or 'nothing to do'}"


def finder_lines(
    named: Sequence[NamedRelay], names: Mapping[str, str], log: Iterable[str]
) -> Iterator[str]:
    """Which relays were found, where, and what was refused; `names` are by URL."""
    for one in named:
        state = "candidate, no answer" if one.is_candidate else "relay"
        known = names.get(one.url, one.url)
        yield f"{'  found':21} {known}: {state}, named by {', '.join(one.places)}"
    refused: dict[str, int] = {}
    for line in log:
        if found := _REFUSED.search(line):
            for reason, count in _REASON.findall(found[1]):
                refused[reason] = refused.get(reason, 0) + int(count)
    if refused:
        reasons = sorted(refused.items(), key=lambda item: (-item[1], item[0]))
        yield f"{'  refused':21} " + " ".join(f"{reason}={count}" for reason, count in reasons)


def monitor_lines(checked: Sequence[CheckedRelay], names: Mapping[str, str]) -> Iterator[str]:
    """What the latest check of each relay found; `names` are by URL."""
    for one in checked:
        known = names.get(one.url, one.url)
        yield (
            f"{'  checked':21} {known}: {one.checks}x, last read {one.outcome}, "
            f"write {one.write_outcome or 'not tested'}, over {one.scheme or 'nothing'}, "
            f"open {_rtt(one.rtt_open)}, read {_rtt(one.rtt_read)}, "
            f"software {one.software or 'not told'}"
        )


def _rtt(milliseconds: int | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds} ms"


def archive_line(counts: Mapping[str, int], right: int, unknown: int) -> str:
    """What the archive holds beside the verdict."""
    return (
        f"{'archive':21} {right} events read back with their ids right "
        f"({counts['raw']} of them as raw bytes), {unknown} not of the demo, "
        f"{counts['refused']} refused; {counts['relays']} relays known, "
        f"{counts['readable']} readable, {counts['checks']} checks, {counts['gaps']} gaps"
    )
