"""Part "history": bytes that a check of a relay takes, with what it refers to and all indexes."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import asyncpg
from nostr_tools import RelayMetadata

from bench.figures import Figure, Point, Series
from bench.settings import Amounts
from bench.stage import server
from bench.writing import connect_to
from bigbrotr import BigBrotr
from metadata_rows import write_metadata
from monitoring.facts import kept_metadata, record_facts
from nostr.link import LinkFacts
from nostr.probe import ProbeFacts, ProbeReport
from nostr.urls import RelayUrl, to_relay

_RELAYS, _CHECKS_A_YEAR = 10_000, 3 * 365
_START, _PAUSE, _BATCH = 1_700_000_000, 8 * 3_600, 1_000
_ALIVE = 0.3
_CHANGE = 1 / 60  # of a living relay: another document or certificate every twenty days
_FAILURE = 1 / 50  # a living relay does not answer
_SIZES = """
    SELECT relname AS name, pg_total_relation_size(oid) AS bytes FROM pg_class
    WHERE relname IN ('relay_metadata', 'nip11', 'nip66', 'relay_facts')
"""


@dataclass(slots=True)
class _Living:
    """A relay that answers: its own round-trip times in ms, and which document it serves."""

    rtts: tuple[float, float]
    edition: int = 0


@dataclass(frozen=True, slots=True)
class Grown:
    """Bytes by table after half of the checks and after all of them."""

    half: dict[str, int]
    full: dict[str, int]

    def per_check(self, checks: int) -> dict[str, float]:
        """Bytes for each further check, `checks` after the half (pure)."""
        return {name: (self.full[name] - self.half[name]) / checks for name in self.full}


def measure(amounts: Amounts) -> Point:
    """The archive's own way beside one that keeps round-trip times exactly."""
    rounds, relays = amounts.history_rounds, amounts.history_relays
    with server() as cluster:
        ours, exact = (
            asyncio.run(_grow(connect_to(cluster.create_database()), relays, rounds, exactly))
            for exactly in (False, True)
        )
    checks = relays * (rounds - rounds // 2)
    kept, beside = (sum(grown.per_check(checks).values()) for grown in (ours, exact))
    fixed = sum(ours.half.values()) / relays - kept * (rounds // 2)
    year = (kept * _CHECKS_A_YEAR + fixed) * _RELAYS
    return Point(
        "history",
        1,
        figures=(
            Figure(
                "a check of a relay on disk",
                "bytes",
                Series("ours", (kept,)),
                Series("RTT kept exactly", (beside,)),
            ),
        ),
        facts={
            "GB_for_10000_relays_3_checks_a_day_1_year": year / 1e9,
            "GB_the_same_with_exact_RTT": (beside * _CHECKS_A_YEAR + fixed) * _RELAYS / 1e9,
            **{f"bytes_per_check_in_{name}": size for name, size in ours.per_check(checks).items()},
        },
        notes=(
            f"{relays:,} relays, {rounds} checks of each, 30 % of them alive; a living one answers "
            "49 checks of 50, 15 % faster or slower each time, and changes its document or "
            "certificate every 20 days. Sizes with indexes; per check: the growth in the second "
            "half. The year is reckoned from that, not filled.",
        ),
    )


async def _grow(connected: BigBrotr, relays: int, rounds: int, exactly: bool) -> Grown:
    chance = Random(5)
    urls = [RelayUrl.parse(f"wss://relay-{number}.example.com") for number in range(relays)]
    living = {url: _Living(_rtts(chance)) for url in urls[: round(relays * _ALIVE)]}
    sizes: list[dict[str, int]] = []
    async with connected as db:
        for number in range(rounds):
            reports = list(_reports(urls, living, _START + number * _PAUSE, chance))
            for start in range(0, relays, _BATCH):
                await _write(db, reports[start : start + _BATCH], exactly)
            if number + 1 in (rounds // 2, rounds):
                sizes.append({row["name"]: row["bytes"] for row in await db.fetch(_SIZES)})
    return Grown(*sizes)


async def _write(db: BigBrotr, reports: Sequence[ProbeReport], exactly: bool) -> None:
    async def work(conn: asyncpg.Connection) -> None:
        kept = [report.metadata if exactly else kept_metadata(report) for report in reports]
        await write_metadata(conn, kept, _START)
        await record_facts(conn, [(report, report.outcome) for report in reports])

    await db.run_in_transaction(work)


def _reports(
    urls: Sequence[RelayUrl], living: dict[RelayUrl, _Living], now: int, chance: Random
) -> Iterator[ProbeReport]:
    for url in urls:
        relay = living.get(url)
        if relay is None or chance.random() < _FAILURE:
            metadata = RelayMetadata(to_relay(url), now, nip66=RelayMetadata.Nip66())
            yield ProbeReport(metadata, "refused" if relay is None else "timeout", "")
            continue
        relay.edition += chance.random() < _CHANGE
        opened, read = (round(rtt * chance.lognormvariate(0, 0.15)) + 1 for rtt in relay.rtts)
        result = RelayMetadata.Nip66(True, True, False, opened, read, None)
        document = RelayMetadata.Nip11(
            name=url.host,
            description="A relay of the benchmark, with a sentence or two of its policy. " * 3,
            software="https://example.com/relay",
            version=f"1.{relay.edition}",
            supported_nips=[1, 2, 4, 9, 11, 28, 40, 45, 50, 70, 77],
            limitation={"max_limit": 500, "auth_required": False, "payment_required": False},
        )
        link = LinkFacts(True, False, "TLSv1.3", "Example Trust", _START + relay.edition)
        yield ProbeReport(
            RelayMetadata(to_relay(url), now, document, result),
            "ok",
            "",
            ProbeFacts("wss", link, "ok", "", auth_required=False),
        )


def _rtts(chance: Random) -> tuple[float, float]:
    return chance.lognormvariate(6, 0.6), chance.lognormvariate(5, 0.6)
