"""Stretches of time in which checks of a relay found the same."""

from dataclasses import replace

import pytest
from nostr_tools import RelayMetadata

import leases
from bigbrotr import BigBrotr
from monitoring.results import Checked, store
from nostr.link import LinkFacts
from nostr.probe import ProbeFacts, ProbeReport
from nostr.urls import RelayUrl, to_relay

RELAY = RelayUrl.parse("wss://a.example")
TLS = LinkFacts(True, False, "TLSv1.3", "Example Trust", 1_900_000_000)
FACTS = ProbeFacts("wss", TLS, "ok", "ok", auth_required=False, payment_required=False)
HOUR = 3600


def report(
    at: int,
    *,
    outcome: str = "ok",
    facts: ProbeFacts = FACTS,
    relay: RelayUrl = RELAY,
    rtt: int = 5,
) -> ProbeReport:
    good = outcome == "ok"
    result = RelayMetadata.Nip66(good, good, good, *((rtt, rtt, rtt) if good else ()))
    return ProbeReport(RelayMetadata(to_relay(relay), at, nip66=result), outcome, "", facts)


async def keep(db: BigBrotr, *reports: ProbeReport, is_candidate: bool = False) -> None:
    for one in reports:
        claim = leases.Claim(one.metadata.relay.url, 0, {})
        await store(db, "us", [Checked.of(claim, one, is_candidate)], 8 * HOUR)


async def stretches(db: BigBrotr) -> list[tuple[int, int, int, str]]:
    rows = await db.fetch(
        "SELECT first_checked_at AS first, last_checked_at AS last, checks, outcome "
        "FROM relay_facts ORDER BY relay_url, first_checked_at"
    )
    return [(row["first"], row["last"], row["checks"], row["outcome"]) for row in rows]


async def test_checks_that_find_the_same_are_one_row(db: BigBrotr) -> None:
    await keep(db, *(report(number * HOUR, rtt=number) for number in range(1, 4)))
    assert await stretches(db) == [(HOUR, 3 * HOUR, 3, "ok")]
    row = await db.fetchone("SELECT * FROM relay_facts")
    assert row is not None
    found = {name: row[name] for name in ("scheme", "ipv4", "ipv6", "tls_version", "tls_issuer")}
    assert found == {
        "scheme": "wss",
        "ipv4": True,
        "ipv6": False,
        "tls_version": "TLSv1.3",
        "tls_issuer": "Example Trust",
    }
    assert row["tls_expires_at"] == 1_900_000_000
    assert (row["auth_required"], row["pow_difficulty"]) == (False, None)


async def test_death_and_return_begin_new_rows(db: BigBrotr) -> None:
    gone = ProbeFacts()
    await keep(
        db,
        report(1),
        report(2, outcome="refused", facts=gone),
        report(3, outcome="refused", facts=gone),
        report(4),
    )
    assert await stretches(db) == [(1, 1, 1, "ok"), (2, 3, 2, "refused"), (4, 4, 1, "ok")]


@pytest.mark.parametrize(
    "change",
    [
        {"scheme": "ws"},
        {"write_outcome": "blocked"},
        {"auth_required": True},
        {"auth_required": None},
        {"pow_difficulty": 20},
        {"document_outcome": "timeout"},
        {"link": replace(TLS, tls_expires_at=1_900_000_001)},
        {"link": replace(TLS, ipv6=True)},
        {"link": LinkFacts()},
    ],
)
async def test_any_other_fact_begins_a_new_row(db: BigBrotr, change: dict[str, object]) -> None:
    await keep(db, report(1), report(2, facts=replace(FACTS, **change)))
    assert [checks for _, _, checks, _ in await stretches(db)] == [1, 1]


async def test_the_same_check_twice_and_an_old_one_change_nothing(db: BigBrotr) -> None:
    await keep(db, report(5), report(5), report(4, outcome="refused"), report(6), report(6))
    assert await stretches(db) == [(5, 6, 2, "ok")]


async def test_a_batch_of_relays_is_told_apart(db: BigBrotr) -> None:
    relays = [RelayUrl.parse(f"wss://{name}.example") for name in "abc"]
    claim = {relay: leases.Claim(relay.url, 0, {}) for relay in relays}
    for at in (1, 2):
        batch = [
            Checked.of(
                claim[relay],
                report(at, relay=relay, outcome="dns" if relay is relays[at] else "ok"),
                False,
            )
            for relay in relays
        ]
        await store(db, "us", batch, 8 * HOUR)
    assert await stretches(db) == [
        *((1, 2, 2, "ok"), (1, 1, 1, "dns"), (2, 2, 1, "ok")),
        *((1, 1, 1, "ok"), (2, 2, 1, "dns")),
    ]


async def test_a_candidate_that_does_not_answer_leaves_no_row(db: BigBrotr) -> None:
    await keep(db, report(1, outcome="refused"), is_candidate=True)
    assert await stretches(db) == []
