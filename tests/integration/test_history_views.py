"""The past of relays: uptime, appearance and death."""

import json
from pathlib import Path

import asyncpg
import pytest

from bigbrotr import BigBrotr
from nostr.urls import RelayUrl, to_relay

HOUR = 3600
ROOT = Path(__file__).parents[2]


async def observe(db: BigBrotr, host: str, *checks: tuple[int, str]) -> str:
    """Checks of a relay: hour and outcome."""
    url = f"wss://{host}.example"
    await db.insert_relay_batch([to_relay(RelayUrl.parse(url))], 1)
    for hour, outcome in checks:
        readable = outcome == "ok"
        opened = readable or outcome in ("auth-required", "restricted")
        await db.execute(
            """
            SELECT record_relay_facts(ARRAY[$1], ARRAY[$2::bigint], ARRAY[jsonb_build_object(
                'outcome', $3::text, 'openable', $4::boolean, 'readable', $5::boolean,
                'writable', FALSE, 'write_outcome', '', 'document_outcome', '', 'scheme', ''
            )])
            """,
            url,
            hour * HOUR,
            outcome,
            opened,
            readable,
        )
    return url


async def row(db: BigBrotr, view: str, url: str) -> asyncpg.Record:
    found = await db.fetchone(f"SELECT * FROM {view} WHERE relay_url = $1", url)
    assert found is not None
    return found


async def test_uptime_is_of_time_not_of_checks(db: BigBrotr) -> None:
    url = await observe(
        db, "a", *((hour, "ok") for hour in (0, 8, 16, 24)), (32, "dns"), (64, "ok"), (72, "ok")
    )
    uptime = await row(db, "relay_uptime", url)
    assert uptime["checks"] == 7
    assert uptime["observed_seconds"] == 72 * HOUR
    # Open from 0 to 32 and from 64 to 72.
    assert float(uptime["open_percent"]) == pytest.approx(100 * 40 / 72, abs=0.01)


async def test_open_is_not_readable(db: BigBrotr) -> None:
    url = await observe(db, "a", (0, "auth-required"), (10, "ok"), (40, "ok"))
    uptime = await row(db, "relay_uptime", url)
    assert (uptime["open_percent"], uptime["readable_percent"]) == (100, 75)


async def test_one_check_is_no_percentage(db: BigBrotr) -> None:
    url = await observe(db, "a", (5, "ok"))
    uptime = await row(db, "relay_uptime", url)
    assert (uptime["checks"], uptime["observed_seconds"], uptime["open_percent"]) == (1, 0, None)


@pytest.mark.parametrize(
    ("checks", "answered", "dead_since", "returns", "last"),
    [
        ([(1, "ok"), (2, "ok")], (1, 2), None, 0, "ok"),
        ([(1, "refused"), (2, "dns")], (None, None), 1, 0, "dns"),
        ([(1, "ok"), (2, "refused"), (3, "dns")], (1, 1), 2, 0, "dns"),
        ([(1, "dns"), (2, "ok")], (2, 2), None, 1, "ok"),
        ([(1, "ok"), (2, "dns"), (3, "ok"), (4, "restricted")], (1, 4), None, 1, "restricted"),
        (
            [(1, "ok"), (2, "dns"), (3, "ok"), (4, "dns"), (5, "ok"), (6, "timeout")],
            *((1, 5), 6, 2, "timeout"),
        ),
    ],
)
async def test_lifetimes(
    db: BigBrotr,
    checks: list[tuple[int, str]],
    answered: tuple[int | None, int | None],
    dead_since: int | None,
    returns: int,
    last: str,
) -> None:
    url = await observe(db, "a", *checks)
    await observe(db, "b", (9, "ok"))
    life = await row(db, "relay_lifetimes", url)

    def hours(name: str) -> int | None:
        return None if life[name] is None else life[name] // HOUR

    assert (hours("first_answered_at"), hours("last_answered_at")) == answered
    assert hours("dead_since") == dead_since
    assert (life["returns"], life["last_outcome"], life["known_since"]) == (returns, last, 1)


def asked(question: str) -> list[str]:
    """The statements that docs/monitor.md prints below a question."""
    page = (ROOT / "docs/monitor.md").read_text()
    block = page.split(question, 1)[1].split("```sql\n", 1)[1].split("```", 1)[0]
    return [statement for statement in block.split(";") if statement.strip()]


async def document(db: BigBrotr, url: str, nip11: dict[str, object]) -> None:
    await db.execute(
        "SELECT insert_relay_metadata($1, 'clearnet', 1, 1700000000, $2::jsonb, $3::jsonb)",
        url,
        json.dumps(nip11),
        json.dumps({"openable": True, "readable": True, "writable": False, "rtt_read": 40}),
    )


async def test_the_printed_questions_are_answered(db: BigBrotr) -> None:
    """On three relays: one good, one that died, one that never answered."""
    month = 31 * 24
    good = await observe(db, "good", (0, "ok"), (3 * month, "ok"))
    died = await observe(db, "died", (0, "ok"), (2 * month, "dns"), (4 * month, "dns"))
    await observe(db, "never", (0, "refused"), (month, "refused"))
    countries: dict[str, object] = {"extra_fields": {"relay_countries": ["IT", "DE"]}}
    await document(db, good, {"software": "s", "supported_nips": [1, 11], **countries})
    await document(db, died, {"software": "s", "supported_nips": "1", "extra_fields": {"a": 1}})

    async def answers(question: str, number: int = 0) -> list[tuple[object, ...]]:
        return [tuple(found) for found in await db.fetch(asked(question)[number])]

    reliable = {found[0]: found[1:3] for found in await answers("How reliable")}
    assert reliable == {good: (100, 100), died: (50, 50), "wss://never.example": (0, 0)}
    assert await answers("The same for the last 30 days") == []
    assert await answers("By software") == [("s", 2, 75)]
    assert sorted(await answers("By the country")) == [("DE", 1, 1), ("IT", 1, 1)]
    assert await answers("By NIP, as claimed") == [("1", 1, 1), ("11", 1, 1)]
    changes = await answers("appeared and died")
    assert [found[1:] for found in changes] == [(2, 0), (0, 1)]
    assert [(found[0], found[2]) for found in await answers("Which died lately")] == [(died, "dns")]
    assert (await answers("Which died lately", 1))[0][1] == 0
    await db.execute(
        "UPDATE relay_facts SET tls_expires_at = 5, scheme = 'ws' WHERE relay_url = $1", good
    )
    assert [found[0] for found in await answers("Whose certificate")] == [good]
    assert await answers("Whose certificate", 1) == [(good,)]
