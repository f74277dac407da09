"""The table at the end of a run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from simnet.drafts import Reading
from simnet.faults import BY_NAME
from simnet.networks import BIG
from simnet.truth import Verdict

_HEAD = (
    "fault",
    "relays",
    "events held",
    "archived",
    "missed",
    "altered",
    "false proofs",
    "requests",
    "overfetch",
)
_ORDER = ("none", *BY_NAME)


@dataclass(frozen=True)
class Totals:
    """What the exit code depends on."""

    missed: int
    altered: int
    false_proofs: int
    problems: int

    @property
    def clean(self) -> bool:
        return not (self.missed or self.altered or self.false_proofs or self.problems)


def totals(verdicts: Iterable[Verdict]) -> Totals:
    counted = list(verdicts)
    return Totals(
        sum(verdict.missed for verdict in counted),
        sum(verdict.altered for verdict in counted),
        sum(verdict.false_proofs for verdict in counted),
        sum(bool(verdict.problems) for verdict in counted),
    )


def table(verdicts: Sequence[Verdict]) -> str:
    """One line a fault, then the random networks, then all."""
    by_label = sorted(verdicts, key=lambda v: (_rank(v), v.plan.label))
    rows = [
        _row(label, list(group)) for label, group in groupby(by_label, key=lambda v: v.plan.label)
    ]
    lines = [_HEAD, *rows, _row("all", verdicts)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    texts = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    texts.insert(1, "-" * len(texts[0]))
    texts.insert(-1, "-" * len(texts[0]))
    return "\n".join(texts + _notes(verdicts))


def figures(verdicts: Sequence[Verdict]) -> list[str]:
    """The figures of the relays that are there for what a page costs, with their limits."""
    lines = []
    for verdict in verdicts:
        if verdict.plan.case.origin != BIG:
            continue
        pages = -(-verdict.held // 500)
        received = verdict.sent / max(1, verdict.archived)
        lines += [
            f"{verdict.held:,} events at cap 500: {verdict.requests} REQs (limit {1.1 * pages:.0f}"
            f"), {received:.4f} received for one kept (limit 1.02)",
            f"the same again, unchanged: {verdict.requests_again} messages, {verdict.sent_again} "
            "events received (limit 1 %)",
        ]
    return lines


def failures(verdicts: Iterable[Verdict]) -> list[str]:
    """What must not be, each relay with what brings it back."""
    lines = []
    for verdict in verdicts:
        if verdict.problems:
            lines.append(verdict.plan.describe())
            lines += [f"    {problem}" for problem in verdict.problems[:6]]
    return lines


def _row(label: str, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    archived = sum(verdict.archived for verdict in verdicts)
    sent = sum(verdict.sent for verdict in verdicts)
    proofs = sum(verdict.false_proofs for verdict in verdicts)
    cut = sum(verdict.cut for verdict in verdicts)
    return (
        label,
        f"{len(verdicts):,}",
        f"{sum(verdict.held for verdict in verdicts):,}",
        f"{archived:,}",
        f"{sum(verdict.missed for verdict in verdicts):,}",
        f"{sum(verdict.altered for verdict in verdicts):,}",
        f"{proofs:,}" + (f" +{cut:,}*" if cut else ""),
        f"{sum(verdict.requests for verdict in verdicts):,}",
        f"{sent / archived:.2f}" if archived else "-",
    )


def _notes(verdicts: Sequence[Verdict]) -> list[str]:
    late = sum(verdict.late for verdict in verdicts)
    declared = sum(verdict.declared for verdict in verdicts)
    lying = sum(Reading.LYING in verdict.plan.reading for verdict in verdicts)
    notes = [
        "",
        f"Held: valid events in the seconds wanted. {declared:,} that no client could prove are",
        "declared in sync_gaps or by the outcome. Overfetch: events received for one archived;",
        "relays of one batch share events.",
    ]
    readable = [v for v in verdicts if not v.plan.reading and v.archived]
    costly = sorted(readable, key=lambda v: v.sent / v.archived, reverse=True)[:3]
    notes += [f"Costly: {v.sent / v.archived:.1f} for one, {v.plan.describe()}" for v in costly]
    if limited := [verdict for verdict in verdicts if verdict.times_limited]:
        most = max(limited, key=lambda verdict: verdict.times_limited)
        notes.append(
            f"{len(limited):,} relays said rate-limited, {sum(v.times_limited for v in limited):,} "
            f"times; most often, {most.times_limited:,} times, [{most.plan.case.text}]"
        )
    if late:
        notes.append(
            f"{late:,} events appeared in seconds that had been read: for re-verification."
        )
    if lying:
        notes.append(f'{lying:,} relays say "finish" and lie: what they withheld is not counted.')
    if shifty := [verdict for verdict in verdicts if Reading.SHIFTY in verdict.plan.reading]:
        cut = sum(verdict.cut for verdict in shifty)
        notes.append(
            f"* {len(shifty):,} relays draw a new cap for each page; {cut:,} of their "
            f"{sum(v.held for v in shifty):,} events were cut off and never sent, and no page "
            "showed it."
        )
    return notes


def _rank(verdict: Verdict) -> int:
    label = verdict.plan.label
    return _ORDER.index(label) if label in _ORDER else len(_ORDER)
