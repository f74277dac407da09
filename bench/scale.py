"""The plan past one machine, computed from what was measured (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass

BILLION = 1_000_000_000
_DAY = 86_400
_FULL = 0.7  # of a disk that is planned to be full


@dataclass(frozen=True, slots=True)
class Plan:
    """What a billion events take.

    Attributes:
        per_client_core: events a second that a core of a synchronizer takes in.
        per_server_core: events a second that a core of PostgreSQL takes in.
        terabytes: tables and indexes, without copies and write-ahead log.
        terabytes_of_disk: the same with room left on the disk.
        client_cores: cores of synchronizers for a billion events in so many days.
        server_cores: the same for PostgreSQL and PgBouncer.
        days_on_two_cores: how long two cores need for everything.
    """

    per_client_core: float
    per_server_core: float
    terabytes: float
    terabytes_of_disk: float
    client_cores: float
    server_cores: float
    days_on_two_cores: float


def plan(facts: Mapping[str, float], days: float = 1) -> Plan:
    """From µs of client, server and pooler an event (end to end) and bytes an event."""
    client = facts["client_us"] / 1e6
    server = (facts["server_us"] + facts["pooler_us"]) / 1e6
    terabytes = facts["bytes_per_event"] * BILLION / 1e12
    return Plan(
        per_client_core=1 / client,
        per_server_core=1 / server,
        terabytes=terabytes,
        terabytes_of_disk=terabytes / _FULL,
        client_cores=BILLION * client / (days * _DAY),
        server_cores=BILLION * server / (days * _DAY),
        days_on_two_cores=BILLION * (client + server) / 2 / _DAY,
    )
