"""Candidates: checked like relays, and relays only from their first real answer on."""

import asyncio
import time
from collections.abc import Iterable

import pytest
from nostr_tools import RelayMetadata

import leases
from bigbrotr import BigBrotr
from functions import RelayFailureTracker
from monitoring.candidates import candidates_due, is_proven
from monitoring.rounds import CheckRound, Limits
from nostr.probe import ProbeReport
from nostr.urls import RelayUrl, to_relay

ONION = "wss://oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"


def report(
    relay: RelayUrl, outcome: str, *, opens: bool = True, nips: Iterable[int] = ()
) -> ProbeReport:
    result = RelayMetadata.Nip66(
        openable=opens,
        readable=outcome == "ok",
        writable=False,
        rtt_open=5 if opens else None,
        rtt_read=7 if outcome == "ok" else None,
    )
    document = RelayMetadata.Nip11(name="x", supported_nips=list(nips)) if nips else None
    metadata = RelayMetadata(to_relay(relay), int(time.time()), document, result)
    return ProbeReport(metadata, outcome, "")


@pytest.mark.parametrize(
    ("outcome", "opens", "nips", "proven"),
    [
        ("ok", True, (), True),
        ("auth-required", True, (), True),
        ("closed", True, (), True),
        ("timeout", True, (), False),
        ("disconnected", True, (), False),
        ("timeout", True, (1, 11), True),
        ("refused", False, (), False),
        ("http-status", False, (1, 11), False),
        ("dns", False, (), False),
    ],
)
def test_what_proves_a_relay(outcome: str, opens: bool, nips: tuple[int, ...], proven: bool):
    relay = RelayUrl.parse("wss://a.example")
    assert is_proven(report(relay, outcome, opens=opens, nips=nips)) is proven


async def name(db: BigBrotr, *urls: str) -> list[RelayUrl]:
    relays = [RelayUrl.parse(url) for url in urls]
    await db.execute(
        "INSERT INTO relay_candidates SELECT url, network, 'somebody', 7 "
        "FROM unnest($1::text[], $2::text[]) AS given (url, network)",
        [relay.url for relay in relays],
        [relay.network for relay in relays],
    )
    await db.execute(
        "INSERT INTO relay_sources SELECT url, 'event', '10002', 7, 7, 1 FROM relay_candidates"
    )
    return relays


async def check(db: BigBrotr, relays: list[RelayUrl], outcome: str, **how: bool) -> CheckRound:
    async def answer(relay: RelayUrl) -> ProbeReport:
        return report(relay, outcome, **how)  # type: ignore[arg-type]

    this = CheckRound(
        db,
        answer,
        owner="us",
        limits=Limits(capacity=4, chunk_size=10, per_host=4, tor=4),
        frequency=8 * 3600,
        tracker=RelayFailureTracker(),
        candidates={relay.url for relay in relays},
    )
    await this.run(relays, asyncio.Event())
    return this


async def urls(db: BigBrotr, table: str) -> list[str]:
    return [row["url"] for row in await db.fetch(f"SELECT url FROM {table} ORDER BY url")]


async def count(db: BigBrotr, table: str) -> int:
    row = await db.fetchone(f"SELECT count(*) FROM {table}")
    assert row is not None
    return int(row[0])


async def test_a_candidate_becomes_a_relay_by_its_first_answer(db: BigBrotr) -> None:
    relays = await name(db, "wss://a.example")
    done = await check(db, relays, "ok")
    assert (done.counts["candidates"], done.counts["proven"]) == (1, 1)
    assert await urls(db, "relays") == ["wss://a.example"]
    assert await urls(db, "relay_candidates") == []
    assert await count(db, "relay_metadata") == 1
    assert await count(db, "relay_sources") == 1, "where it was named is kept"
    row = await db.fetchone("SELECT failures, learnt::text FROM relay_tasks")
    assert row is not None
    assert row["failures"] == 0
    assert "answered_at" in row["learnt"]


@pytest.mark.parametrize(
    ("outcome", "opens"), [("refused", False), ("dns", False), ("timeout", True)]
)
async def test_a_candidate_without_an_answer_stays_one_and_rests(
    db: BigBrotr, outcome: str, opens: bool
) -> None:
    relays = await name(db, "wss://a.example")
    done = await check(db, relays, outcome, opens=opens)
    assert (done.counts["candidates"], done.counts["proven"]) == (1, 0)
    assert done.outcomes == {outcome: 1}
    assert await urls(db, "relays") == []
    assert await count(db, "relay_metadata") == 0
    row = await db.fetchone("SELECT failures, not_before, last_outcome FROM relay_tasks")
    assert row is not None
    assert (row["failures"], row["last_outcome"]) == (1, outcome)
    assert row["not_before"] > time.time() + 5 * 3600
    assert await candidates_due(db, tor=True) == []


async def test_candidates_are_taken_one_of_each_host_first_and_never_too_many(
    db: BigBrotr,
) -> None:
    await name(
        db,
        *(f"wss://spam.example/{n}" for n in range(50)),
        *("wss://tried.example", "wss://fresh.example", "wss://[2606:4700::1111]:7", ONION),
    )
    await db.execute(
        "INSERT INTO relay_tasks (purpose, relay_url, failures, updated_at) "
        "VALUES ('monitor', 'wss://tried.example', 3, 1)"
    )
    due = await candidates_due(db, tor=False, limit=5)
    assert due == [
        *("wss://[2606:4700::1111]:7", "wss://fresh.example", "wss://spam.example/0"),
        *("wss://tried.example", "wss://spam.example/1"),
    ]
    assert ONION in await candidates_due(db, tor=True)


async def test_a_candidate_that_another_monitor_has_is_not_due(db: BigBrotr) -> None:
    relays = await name(db, "wss://a.example", "wss://b.example")
    claims = await leases.claim(
        db, leases.MONITOR, [relays[0].url], "them", limit=1, lease_seconds=60
    )
    assert len(claims) == 1
    assert await candidates_due(db, tor=True) == ["wss://b.example"]


async def test_a_relay_that_comes_from_elsewhere_is_no_candidate_any_more(db: BigBrotr) -> None:
    relays = await name(db, "wss://a.example", "wss://b.example")
    await db.insert_relay(to_relay(relays[0]), 9)
    assert await urls(db, "relay_candidates") == ["wss://b.example"]
    assert await count(db, "relay_sources") == 2
    await db.insert_relay(to_relay(relays[0]), 10)
    assert await urls(db, "relay_candidates") == ["wss://b.example"]


@pytest.mark.parametrize("table", ["relays", "relay_candidates"])
async def test_what_is_known_of_a_url_goes_with_it(db: BigBrotr, table: str) -> None:
    relays = await name(db, "wss://a.example", "wss://b.example", "wss://c.example")
    await db.insert_relay(to_relay(relays[0]), 9)
    for relay in relays:
        await leases.claim(db, leases.MONITOR, [relay.url], "us", limit=1, lease_seconds=60)
    await db.execute(f"DELETE FROM {table} WHERE url IN ('wss://a.example', 'wss://b.example')")
    gone = {"relays": "wss://a.example", "relay_candidates": "wss://b.example"}[table]
    left = sorted({relay.url for relay in relays} - {gone})
    for rows in ("relay_tasks", "relay_sources"):
        found = await db.fetch(f"SELECT relay_url FROM {rows} ORDER BY 1")
        assert [row["relay_url"] for row in found] == left
