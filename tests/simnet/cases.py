"""One simulated relay as a line of text, and what could be taken away from it (pure).

    SEED=136/3 faults=hint-lying-finish,notice-for-closed events=0-40,80-120 cap=20

is relay 3 of random network 136 with only these faults, only these of its events (by their
place in its list, ends excluded), and a cap of its own. `make simnet REPLAY='...'` runs it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

_SEED = re.compile(r"SEED=(\d+)/(\d+)").fullmatch
_ROUND_CAPS = (20, 40, 100)
NO_FAULT = "none"

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """Where a relay was drawn, and what is left of it.

    Attributes:
        origin: "SEED=<network>/<relay>" or "FAULT=<name>".
        faults: names, in the order in which they are applied.
        events: places in its list of events; None: all of them.
        cap: the most events a page, instead of what the faults say; None: that.
    """

    origin: str
    faults: tuple[str, ...]
    events: Spans | None = None
    cap: int | None = None

    @property
    def network(self) -> tuple[int, int] | None:
        """The numbers of the random network and of the relay in it."""
        found = _SEED(self.origin)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def text(self) -> str:
        words = [self.origin, f"faults={','.join(self.faults) or NO_FAULT}"]
        if self.events is not None:
            words.append("events=" + ",".join(f"{start}-{end}" for start, end in self.events))
        if self.cap is not None:
            words.append(f"cap={self.cap}")
        return " ".join(words)


def parse_case(text: str) -> Case:
    """The case that `text` is of. Raises ValueError."""
    try:
        origin, *words = text.split()
        said = dict(word.split("=", 1) for word in words)
        faults = said.pop("faults", NO_FAULT)
        events, cap = said.pop("events", None), said.pop("cap", None)
        case = Case(
            origin,
            () if faults == NO_FAULT else tuple(faults.split(",")),
            None if events is None else tuple(_span(span) for span in events.split(",") if span),
            None if cap is None else int(cap),
        )
    except ValueError:
        raise ValueError(f"not a case: {text!r}") from None
    if said or not origin.startswith(("SEED=", "FAULT=")):
        raise ValueError(f"not a case: {text!r}")
    return case


def simpler(case: Case, count: int) -> Iterator[Case]:
    """Cases with a little less of everything, the boldest first.

    Args:
        count: how many events the case has.
    """
    for fault in case.faults:
        if len(case.faults) > 1:
            yield replace(case, faults=tuple(name for name in case.faults if name != fault))
    spans = case.events if case.events is not None else ((0, count),)
    size = sum(end - start for start, end in spans)
    for parts in (2, 4, 8):
        if size >= parts:
            for number in range(parts):
                cut = (size * number // parts, size * (number + 1) // parts)
                yield replace(case, events=_without(spans, *cut))
    for cap in _ROUND_CAPS:
        if case.cap is None:
            yield replace(case, cap=cap)


def weight(case: Case, count: int) -> tuple[int, int, bool]:
    """How much there is to read in a case: faults weigh more than events."""
    size = count if case.events is None else sum(end - start for start, end in case.events)
    return len(case.faults), size, case.cap is None


def _span(text: str) -> tuple[int, int]:
    start, end = text.split("-")
    return int(start), int(end)


def _without(spans: Spans, start: int, end: int) -> Spans:
    """The spans without what is from `start` to `end` of all that they hold."""
    left, passed = [], 0
    for first, last in spans:
        a = min(last, max(first, first + start - passed))
        b = min(last, max(first, first + end - passed))
        left += [span for span in ((first, a), (b, last)) if span[0] < span[1]]
        passed += last - first
    return tuple(left)
