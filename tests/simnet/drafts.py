"""What a fault is, and the relay in the making that faults change.

A relay without any mark below is READABLE: it can be read to the end, and 100 % is demanded.
The marks add up:

    UNREADABLE   nothing is demanded but an honest account (an outcome, a gap).
    LYING        the relay says "finish" (NIP-67: nothing was left out) and left events out. What it
                 withheld under that word is not demanded; all that it did send is.
    SHIFTY       the cap of a page varies at random from page to page. A second in which a page was
                 cut can lack events, and nothing shows it: they are counted, but apart.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any

from simnet.events import Event


class Reading(Flag):
    READABLE = 0
    UNREADABLE = auto()
    LYING = auto()
    SHIFTY = auto()


@dataclass
class Draft:
    """A relay in the making. `knobs` are HostileRelay's; `outcomes` those that are true of it."""

    events: list[Event]
    knobs: dict[str, Any] = field(default_factory=dict)
    reading: Reading = Reading.READABLE
    outcomes: set[str] = field(default_factory=set)

    def mark(self, reading: Reading, *outcomes: str) -> None:
        self.reading |= reading
        self.outcomes.update(outcomes)

    def tell(self, **limitation: object) -> None:
        """NIP-11 limits, which the monitor has read before."""
        told = self.knobs.setdefault("nip11", {"name": "told", "limitation": {}})
        told["limitation"].update(limitation)

    def lower_cap(self, most: int) -> None:
        self.knobs["cap"] = min(most, self.knobs.get("cap", most))


Change = Callable[[Draft, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """`apply` changes a draft. Faults of one `group` exclude each other. `slow` ones take a
    minute of patience and are tried alone only."""

    name: str
    group: str
    apply: Change
    slow: bool = False
