"""Synchronization sessions: real relays, then every way in which a relay can misbehave.

The truth is always the relay's own list of events. What the ledger claims must be archived;
what is not claimed must be visible as a gap or as an outcome.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bigbrotr import BigBrotr
from components.relays import StartRelay
from components.sessions import archived, gaps, synchronize, true_ids, unproven
from nostr.filters import filter_hash
from scripted_relay import ScriptedRelay, make_event, make_events
from simnet.relay import HostileRelay
from standalone.signing import Author, DemoEvent
from sync import ledger
from sync.facts import Order
from sync.relay_model import RelayModel
from sync.windows import Window

START = 1_700_000_000
KEY = Author("archive").secret_key


def signed(count: int, *, start: int = START, burst: int = 0) -> list[DemoEvent]:
    """Events one a second, and a burst of many kinds in the second after the last."""
    authors = [Author(str(n)) for n in range(5)]
    events = [authors[n % 5].sign(1, start + n, [], f"note {n}") for n in range(count)]
    crowded = start + count
    return events + [
        authors[n % 5].sign(1_000 + n % 8, crowded, [["t", "x"]], f"b{n}") for n in range(burst)
    ]


async def test_local_relay_to_the_last_event(db: BigBrotr, local_relay: StartRelay) -> None:
    relay = await local_relay(signed(1_500, burst=1_200), cap=300)
    target = Window(0, START + 10_000)
    report = await synchronize(db, relay.url, target)
    assert report.outcome == "complete"
    assert await archived(db, relay.url) == relay.accepted
    assert await unproven(db, relay.url, target) == []
    assert report.counts["new"] == len(relay.accepted)


async def test_nostr_relay_with_its_exclusive_until(db: BigBrotr, nostr_relay: StartRelay) -> None:
    relay = await nostr_relay(signed(900, burst=150))
    target = Window(0, START + 900)  # the burst lies in the very last second
    report = await synchronize(db, relay.url, target, page_limit=100)
    assert report.outcome == "complete"
    assert await archived(db, relay.url) == relay.accepted
    assert await unproven(db, relay.url, target) == []
    assert report.model.until_exclusive is True


async def test_what_is_proven_is_not_asked_again(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(120)) as relay:
        target = Window(START, START + 200)
        await synchronize(db, relay.url.url, target)
        asked = len(relay.requests)
        again = await synchronize(db, relay.url.url, target)
        assert len(relay.requests) == asked
        assert again.outcome == "complete"
        assert again.counts["requests"] == 0
        later = make_event(created_at=START + 205)
        relay.events.append(later)
        report = await synchronize(db, relay.url.url, Window(START, START + 210))
        assert report.counts["new"] == 1
        assert all(request["since"] >= START + 199 for request in relay.requests[asked:])


@pytest.mark.parametrize(
    "knobs",
    [
        {"cap": 20},
        {"order": "asc", "cap": 50},
        {"order": "random", "cap": 50},
        {"until_exclusive": True, "cap": 50},
        {"since_exclusive": True, "cap": 50},
        {"since_exclusive": True, "order": "asc", "cap": 50},
        {"hint": "auto", "cap": 50},
        {"repeat": 2},
        {"garbage": ["nonsense", '["EVENT"]', b"\xff\x00", "[" * 5_000]},
        {"extra": [make_event(created_at=1_600_000_000, content="outside")]},
        {"notice": "hello"},
        {"eose": "late", "eose_delay": 0.1},
        {"drop_after": 130, "drop_times": 1, "cap": 100},
        {"closed": "rate-limited: slow down", "closed_times": 1},
        {"closed": "error: try again", "closed_times": 1},
        {"auth": True},
    ],
    ids=str,
)
async def test_readable_relays_are_read_completely(
    db: BigBrotr, knobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.response._RATE_LIMIT_PAUSES_SECONDS", (0.05, 0.05, 0.05))
    async with ScriptedRelay(make_events(400, per_second=2), **knobs) as relay:
        target = Window(START - 100, START + 500)
        report = await synchronize(db, relay.url.url, target, secret_key=KEY)
        assert report.outcome == "complete", report.detail
        assert await unproven(db, relay.url.url, target) == []
        assert true_ids(relay.events) <= await archived(db, relay.url.url)


@pytest.mark.parametrize(
    ("knobs", "outcome"),
    [
        ({"eose": "never"}, "timeout"),
        ({"closed": "restricted: members only"}, "restricted"),
        ({"closed": "blocked: go away"}, "blocked"),
        ({"closed": "no reason at all"}, "closed"),
        ({"closed": "my-own-word: \x00 " + "x" * 9_999}, "closed"),
        ({"auth": "restricted"}, "restricted"),
        ({"drop_after": 0}, "disconnected"),
        ({"oversized": 5 * 1024 * 1024}, "disconnected"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_is_no_answer_proves_nothing(
    db: BigBrotr, knobs: dict[str, Any], outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.response._RECONNECT_PAUSE_SECONDS", 0.05)
    async with ScriptedRelay(make_events(50), **knobs) as relay:
        target = Window(START, START + 100)
        report = await synchronize(db, relay.url.url, target, secret_key=KEY, idle_timeout=0.4)
        assert report.outcome == outcome
        assert report.failed
        assert await unproven(db, relay.url.url, target) == [target]
        refused = outcome not in ("timeout", "disconnected")
        expected = [(outcome, target.since, target.until)] if refused else []
        assert await gaps(db, relay.url.url) == expected
        if outcome == "timeout":
            assert await archived(db, relay.url.url) == true_ids(relay.events)


async def test_a_relay_that_complains_is_asked_more_slowly_from_then_on(
    db: BigBrotr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.response._RATE_LIMIT_PAUSES_SECONDS", (0.05, 0.05, 0.05))
    async with HostileRelay(make_events(600), cap=50, rate=(2, 8)) as relay:
        first = await synchronize(db, relay.url.url, Window(START, START + 300))
        assert first.outcome == "complete"
        assert first.model.interval > 0.0
        refusals = relay.manners.times_limited
        assert refusals > 0
        target = Window(START, START + 700)
        second = await synchronize(db, relay.url.url, target, model=first.model)
        assert second.outcome == "complete"
        assert relay.manners.times_limited - refusals <= 1, "the pace was remembered"
        assert await archived(db, relay.url.url) == true_ids(relay.events)


async def test_what_a_relay_is_sending_when_it_is_left_is_kept(db: BigBrotr) -> None:
    """It refuses one request and answers others, all at the same time."""
    refusing = {"refuse": "blocked: enough", "refuse_every": 9}
    async with HostileRelay(make_events(2_000), cap=40, delay=0.005, **refusing) as relay:
        report = await synchronize(db, relay.url.url, Window(START, START + 2_000))
        assert report.outcome == "blocked"
        assert relay.sent
        assert relay.sent <= await archived(db, relay.url.url)


async def test_a_refusal_is_forgotten_once_the_relay_answers(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(50), closed="restricted: no") as relay:
        target = Window(START, START + 100)
        await synchronize(db, relay.url.url, target)
        relay.closed = None
        report = await synchronize(db, relay.url.url, target)
        assert report.outcome == "complete"
        assert await gaps(db, relay.url.url) == []


async def test_without_a_key_auth_is_an_honest_gap(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(50), auth=True) as relay:
        report = await synchronize(db, relay.url.url, Window(START, START + 100))
        assert report.outcome == "auth-required"
        assert relay.auths == []


async def test_a_second_that_cannot_be_split_is_recorded_and_passed(db: BigBrotr) -> None:
    crowded = make_events(300, start=START + 50, per_second=300)
    async with ScriptedRelay(crowded + make_events(40, author=2), cap=100) as relay:
        target = Window(START, START + 100)
        report = await synchronize(db, relay.url.url, target)
        assert report.outcome == "gaps"
        second = Window(START + 50, START + 50)
        assert await gaps(db, relay.url.url) == [("saturated", START + 50, START + 50)]
        assert await unproven(db, relay.url.url, target) == [second]
        asked = len(relay.requests)
        again = await synchronize(db, relay.url.url, target)
        assert again.outcome == "gaps"
        assert len(relay.requests) == asked, "a saturated second is not asked for each time"


async def test_every_refused_event_is_counted(db: BigBrotr) -> None:
    good = make_event(created_at=START + 1)
    wrong_signature = {**make_event(created_at=START + 2), "sig": "0" * 128}
    wrong_id = {**make_event(created_at=START + 3), "content": "changed"}
    upper = make_event(created_at=START + 4)
    upper["id"] = upper["id"].upper()
    wrong_type = {**make_event(created_at=START + 5), "kind": "1"}
    extra_key = {**make_event(created_at=START + 6), "seen": ["wss://elsewhere"]}
    bad = [wrong_signature, wrong_id, upper, wrong_type]
    async with ScriptedRelay([good, extra_key], extra=bad) as relay:
        report = await synchronize(db, relay.url.url, Window(START, START + 10))
        assert report.outcome == "complete"
        assert await archived(db, relay.url.url) == {good["id"], extra_key["id"]}
        rows = await db.fetch("SELECT reason, events FROM refused_events ORDER BY reason")
        refused = {row["reason"]: row["events"] for row in rows}
        pages = len(relay.requests)
        assert refused["malformed"] == 2 * pages
        assert refused["wrong-id"] == pages
        assert refused["wrong-signature"] == pages


async def test_what_comes_after_eose_is_archived_and_counted(db: BigBrotr) -> None:
    async with HostileRelay(make_events(90, per_second=9), cap=40, eose="middle") as relay:
        target = Window(START, START + 20)
        report = await synchronize(db, relay.url.url, target)
        assert not report.failed
        assert relay.sent <= await archived(db, relay.url.url)
        refused = {row["reason"] for row in await db.fetch("SELECT reason FROM refused_events")}
        # What came late for several pages may be the same.
        assert refused - {"repeated"} == {"after-eose"}


async def test_refused_events_of_the_neighbouring_seconds_hide_nothing(db: BigBrotr) -> None:
    junk = [
        {**make_event(created_at=START + 100 + n % 3, content=f"junk {n}"), "sig": "01" * 64}
        for n in range(51)
    ]
    events = [*make_events(60), *make_events(60, start=START + 200)]
    async with ScriptedRelay([*events, *junk], cap=40, order="asc") as relay:
        target = Window(START - 10, START + 400)
        report = await synchronize(db, relay.url.url, target)
        assert report.outcome == "complete", await gaps(db, relay.url.url)
        assert await unproven(db, relay.url.url, target) == []
        assert true_ids(events) <= await archived(db, relay.url.url)


async def test_what_columns_cannot_hold_is_kept_losslessly(db: BigBrotr) -> None:
    odd = [
        make_event(created_at=START + 1, content="a\x00b"),
        make_event(created_at=START + 2, tags=[["x", "nul \x00 here"]]),
        make_event(created_at=START + 3, tags=[["t", "z" * 100_000]]),
        make_event(created_at=START + 4, kind=3, tags=[["p", f"{n:064x}"] for n in range(2_000)]),
        make_event(created_at=START + 5, content="\x01\x1f\x7f\u2028\U0001f600 ünï"),
    ]
    async with ScriptedRelay(odd) as relay:
        report = await synchronize(db, relay.url.url, Window(START, START + 10))
        assert report.outcome == "complete"
        assert await archived(db, relay.url.url) == true_ids(odd)
        rows = await db.fetch("SELECT id, raw, reason FROM events_raw")
        kept = {row["id"]: json.loads(row["raw"]) for row in rows}
        assert kept.keys() == true_ids(odd[:2])
        for event in odd[:2]:
            assert kept[event["id"]] == event
        assert {row["reason"] for row in rows} == {"nul"}


async def test_another_filter_has_its_own_coverage(db: BigBrotr) -> None:
    events = make_events(30) + make_events(30, kind=7)
    async with ScriptedRelay(events) as relay:
        target = Window(START, START + 100)
        await synchronize(db, relay.url.url, target, flt={"kinds": [7]})
        assert await archived(db, relay.url.url) == true_ids(events[30:])
        assert await unproven(db, relay.url.url, target) == [target]
        await synchronize(db, relay.url.url, target)
        assert await archived(db, relay.url.url) == true_ids(events)


async def test_rows_of_the_ledger_edited_by_hand_do_no_harm(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(100)) as relay:
        target = Window(START, START + 99)
        await synchronize(db, relay.url.url, Window(START, START + 9))
        await db.execute(
            "UPDATE sync_coverage SET covered = covered + int8multirange(int8range($1, $2))",
            START + 90,
            START + 10**9,
        )
        report = await synchronize(db, relay.url.url, target)
        assert report.outcome == "complete"
        wanted = {e["id"] for e in relay.events if e["created_at"] < START + 90}
        assert wanted <= await archived(db, relay.url.url)


async def test_disorder_found_late_takes_the_session_s_proofs_back(db: BigBrotr) -> None:
    """The first pages come in order by chance; what they proved is proven anew."""
    async with ScriptedRelay(make_events(1_000), cap=100) as relay:
        target = Window(START, START + 2_000)

        async def turn_random() -> None:
            while len(relay.requests) < 3:
                await asyncio.sleep(0.001)
            relay.order = "random"

        turning = asyncio.create_task(turn_random())
        report = await synchronize(db, relay.url.url, target)
        await turning
        assert report.model.order is Order.NONE
        assert report.outcome == "complete"
        assert true_ids(relay.events) <= await archived(db, relay.url.url)
        assert await unproven(db, relay.url.url, target) == []


class DisorderedByKind(HostileRelay):
    """Sends newest first, but what is asked for by kind in no order, an older event last."""

    def _choose(self, flt: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        if "kinds" not in flt:
            return super()._choose(flt)
        events = self.matching(flt)
        page = events[: self._page_size(flt) - 1] + events[-1:] if len(events) > 1 else events
        # At first as if it were in order; later kinds show that it is not.
        disordered = 9 in flt["kinds"]
        return (page[::-1] if disordered else page), len(page) == len(events)


async def test_disorder_of_one_kind_voids_what_order_proved_of_others(db: BigBrotr) -> None:
    older = [make_event(created_at=START + 1, kind=kind) for kind in (7, 9)]
    crowd = [
        make_event(created_at=START + 9, kind=kind, content=f"{kind} {n}")
        for kind in (7, 9)
        for n in range(60)
    ]
    async with DisorderedByKind([*older, *crowd], cap=30) as relay:
        await synchronize(db, relay.url.url, Window(START, START + 20))
        missing = true_ids(crowd) - await archived(db, relay.url.url)
        left = await unproven(db, relay.url.url, Window(START, START + 20))
        assert missing
        assert any(window.since <= START + 9 <= window.until for window in left)


async def test_cancelling_commits_what_came(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(2_000), cap=50, delay=0.002) as relay:
        target = Window(START, START + 5_000)
        session = asyncio.create_task(synchronize(db, relay.url.url, target))
        while len(relay.requests) < 12:
            await asyncio.sleep(0.01)
        session.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session
        have = await archived(db, relay.url.url)
        assert have
        left = await unproven(db, relay.url.url, target)
        for event in relay.events:
            if event["id"] not in have:
                assert any(w.since <= event["created_at"] <= w.until for w in left)
        relay.delay = 0.0
        report = await synchronize(db, relay.url.url, target)
        assert report.outcome == "complete"
        assert await archived(db, relay.url.url) == true_ids(relay.events)


async def test_a_proof_is_void_if_its_events_were_deleted_meanwhile(db: BigBrotr) -> None:
    """Retention may delete between the look-up of known ids and the commit."""
    async with ScriptedRelay(make_events(10)) as relay, ScriptedRelay(relay.events) as other:
        target = Window(START, START + 20)
        await synchronize(db, relay.url.url, target)
        real = db.run_in_transaction
        deleted = False

        async def delete_first(work: Any) -> Any:
            nonlocal deleted
            if not deleted:
                deleted = True
                await db.execute("DELETE FROM events WHERE created_at = $1", START + 5)
            return await real(work)

        db.run_in_transaction = delete_first  # type: ignore[method-assign]
        await synchronize(db, other.url.url, target)
        assert await unproven(db, other.url.url, target) != []


async def test_first_unproven_second(db: BigBrotr) -> None:
    async with ScriptedRelay(make_events(10)) as relay:
        url, name = relay.url.url, filter_hash({})
        target = Window(START, START + 100)
        assert await ledger.first_unproven(db, url, name, target) == START
        await synchronize(db, url, Window(START, START + 50))
        assert await ledger.first_unproven(db, url, name, target) == START + 51
        await synchronize(db, url, target)
        assert await ledger.first_unproven(db, url, name, target) is None


CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
FIELDS = ("id", "pubkey", "created_at", "kind", "tags", "content", "sig")


async def read_back(db: BigBrotr) -> dict[str, dict[str, Any]]:
    """Every archived event as relays would have it."""
    rows = await db.fetch(
        "SELECT id, pubkey, created_at, kind, tags::text AS tags, content, sig FROM events"
    )
    events = {row["id"]: {**dict(row), "tags": json.loads(row["tags"])} for row in rows}
    raw = await db.fetch("SELECT id, raw FROM events_raw")
    return events | {row["id"]: json.loads(row["raw"]) for row in raw}


async def test_real_events_come_out_as_they_went_in(db: BigBrotr) -> None:
    """Real signed events and real broken ones where they are at hand, our own everywhere."""
    real = make_events(50) + [
        event
        for file in sorted(CORPUS.glob("events__*.jsonl"))
        for event in map(json.loads, file.read_text().splitlines())
    ]
    broken = [{**real[0], "content": "changed"}] + [
        json.loads(line)["event"]
        for file in CORPUS.glob("invalid_events.jsonl")
        for line in file.read_text().splitlines()
    ]
    async with ScriptedRelay(real) as relay:
        report = await synchronize(db, relay.url.url, Window(0, 2_000_000_000))
        assert report.outcome == "complete"
        assert report.counts["refused"] == 0
        kept = await read_back(db)
        for event in real:
            assert {name: kept[event["id"]][name] for name in FIELDS} == {
                name: event[name] for name in FIELDS
            }
        relay.extra = broken
        target = Window(2_000_000_001, 2_000_000_002)
        report = await synchronize(db, relay.url.url, target, model=RelayModel(lanes=1))
        assert report.counts["refused"] == len(broken) * report.counts["requests"]
        assert (await read_back(db)).keys() == kept.keys()


async def test_one_message_too_large_for_us_costs_its_second_alone(db: BigBrotr) -> None:
    """A frame over our limit ends the connection. What is of other kinds comes, even of its
    second, which cannot be proven."""
    events = [*make_events(200), make_event(created_at=START + 100, kind=7)]
    huge = make_event(created_at=START + 100, content="x" * 5_000_000)
    async with ScriptedRelay([*events, huge], cap=40) as relay:
        target = Window(START, START + 199)
        report = await synchronize(db, relay.url.url, target)
        assert report.outcome == "gaps"
        recorded = await gaps(db, relay.url.url)
        assert recorded == [("overflow", START + 100, START + 100)]
        assert await unproven(db, relay.url.url, target) == [Window(START + 100, START + 100)]
        wanted = {e["id"] for e in events if (e["created_at"], e["kind"]) != (START + 100, 1)}
        assert wanted <= await archived(db, relay.url.url)


@pytest.mark.parametrize("refusal", ["invalid: too many kinds", "notice"])
async def test_a_relay_that_refuses_fine_requests_is_read_otherwise(
    db: BigBrotr, refusal: str
) -> None:
    """Only the second that would have needed them is left as a gap."""
    crowded = [
        make_event(created_at=START + 50, kind=1 + n % 3, content=str(n)) for n in range(120)
    ]
    async with ScriptedRelay([*crowded, *make_events(100, author=2)], cap=100) as relay:

        def too_fine(flt: dict[str, Any]) -> bool:
            return len(flt.get("kinds", [])) > 10

        if refusal == "notice":
            relay.silent_to = too_fine
        else:
            relay.closed_to = too_fine
            relay.closed = refusal
        target = Window(START, START + 100)
        report = await synchronize(db, relay.url.url, target, idle_timeout=0.3)
        assert report.outcome == "gaps"
        assert await gaps(db, relay.url.url) == [("saturated", START + 50, START + 50)]
        assert true_ids(relay.events) == await archived(db, relay.url.url)


async def test_sudden_emptiness_is_not_believed(db: BigBrotr) -> None:
    """An overloaded relay that answers nothing at all is no empty relay."""
    async with ScriptedRelay(make_events(300), cap=50, closed="blocked: enough") as relay:
        relay.closed_to = lambda _: len(relay.requests) > 3
        target = Window(START, START + 400)
        await synchronize(db, relay.url.url, target)
        left = await unproven(db, relay.url.url, target)
        assert left, "the first session was cut short"
        relay.closed = None
        relay.empty_lie = lambda _: True
        # What is asked for next includes a second of which events were archived a moment ago.
        report = await synchronize(db, relay.url.url, target)
        assert report.outcome == "contradiction"
        assert await unproven(db, relay.url.url, target) == left
        relay.empty_lie = None
        report = await synchronize(db, relay.url.url, target)
        assert report.outcome == "complete"
        assert true_ids(relay.events) == await archived(db, relay.url.url)


async def test_a_copy_with_a_wrong_signature_hides_no_event(db: BigBrotr) -> None:
    events = make_events(30)
    wrong = {**events[10], "sig": events[11]["sig"]}
    async with ScriptedRelay([wrong, *events]) as relay:
        target = Window(START - 10, START + 100)
        report = await synchronize(db, relay.url.url, target)
        assert await unproven(db, relay.url.url, target) == []
        assert await archived(db, relay.url.url) == true_ids(events)
    assert report.counts["refused"] == 1


async def test_an_order_that_relies_on_what_was_chosen_is_not_believed(db: BigBrotr) -> None:
    """The newest events, as NIP-01 has it, but the oldest of them first."""

    class Ascending(ScriptedRelay):
        def _choose(self, flt: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
            chosen, complete = super()._choose(flt)
            return chosen[::-1], complete

    async with Ascending(make_events(1_000), cap=50) as relay:
        target = Window(START - 10, START + 2_000)
        await synchronize(db, relay.url.url, target)
        assert await unproven(db, relay.url.url, target) == []
        assert await archived(db, relay.url.url) == true_ids(relay.events)


async def test_what_was_learnt_of_a_bound_proves_nothing(db: BigBrotr) -> None:
    """It took `until` as included, and does no more."""
    crowded, big = START + 1_000, "x" * 1_100_000
    old = [
        make_event(created_at=START - 5_000 + n, kind=kind, content=f"old {n}")
        for n in range(60)
        for kind in range(1, 6)
    ]
    new = [make_event(created_at=crowded, kind=k, content=f"{big}{k}") for k in range(1, 6)]
    async with ScriptedRelay([*old, *new], until_exclusive=True, deflate=False) as relay:
        url, target = relay.url.url, Window(START, crowded)
        await synchronize(db, url, target, model=RelayModel(until_exclusive=False))
        left = await unproven(db, url, target)
        complete = true_ids(new) <= await archived(db, url)
    assert complete or any(window.holds(crowded) for window in left)
