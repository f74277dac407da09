"""What the archive says of which relays are to be checked now."""

import random
import time

import leases
from bigbrotr import BigBrotr
from config import MonitorConfig
from errors import RelayUrlRefused
from monitoring.candidates import candidates_due
from monitoring.plan import Plan, make_plan
from monitoring.schedule import RECHECKS
from nostr.urls import RelayUrl, from_relay
from relay_loader import relays_due

ANSWERED_AT = "answered_at"
"""Key in relay_tasks.learnt: when the relay last answered (Unix seconds)."""

_RESTING = "SELECT relay_url FROM relay_tasks WHERE purpose = $1 AND not_before > $2"
_TO_ASK_AGAIN = """
    SELECT relay_url
    FROM relay_tasks
    WHERE purpose = $1 AND not_before <= $2 AND failures BETWEEN 1 AND $3 AND learnt ? $4
    ORDER BY not_before
"""


async def plan_checks(db: BigBrotr, config: MonitorConfig, *, tor: bool) -> Plan:
    """The plan for one cycle: relays that are due by the age of their last check, those that
    answered until lately, and candidates; `tor` is whether onion relays can be reached."""
    now = int(time.time())
    due = await relays_due(db, config.frequency_hour, allow_private=config.allow_private_relays)
    resting = await db.fetch(_RESTING, leases.MONITOR, now)
    again = await db.fetch(_TO_ASK_AGAIN, leases.MONITOR, now, RECHECKS, ANSWERED_AT)
    return make_plan(
        [from_relay(relay) for relay in due],
        _wanted([row["relay_url"] for row in again], config),
        {row["relay_url"] for row in resting},
        tor=tor,
        candidates=_wanted(await candidates_due(db, tor=tor), config),
        chance=random.Random(),
    )


def _wanted(urls: list[str], config: MonitorConfig) -> list[RelayUrl]:
    """Those that today's rules and settings let us ask; the others were counted when loaded."""
    relays: list[RelayUrl] = []
    for url in urls:
        try:
            relays.append(RelayUrl.parse(url, allow_private=config.allow_private_relays))
        except RelayUrlRefused:
            continue
    return relays
