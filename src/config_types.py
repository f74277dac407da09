"""The settings of the services as frozen values; `config` reads them from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import constants
from constants import SECONDS_PER_DAY, SECONDS_PER_HOUR, SECONDS_PER_MINUTE
from nostr.urls import RelayUrl


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """How one process reaches the database. `command_timeout` is in seconds."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    dbname: str
    min_pool: int = constants.DB_POOL_MIN_SIZE_PER_WORKER
    max_pool: int = constants.DB_POOL_MAX_SIZE_PER_WORKER
    command_timeout: float = constants.DB_COMMAND_TIMEOUT


@dataclass(frozen=True, slots=True)
class TorConfig:
    """The SOCKS5 proxy that leads to onion relays."""

    host: str
    port: int

    @property
    def socks5_url(self) -> str:
        """For HTTP clients; `socks5h` would be the same to ours, which resolve remotely."""
        return f"socks5://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class KeypairConfig:
    """The archive's Nostr identity, in hex; it signs write tests and NIP-42 authentication."""

    secret_key: str = field(repr=False)
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What all looping services have. No `tor` means no Tor; `health_check_port` 0, no server."""

    database: DatabaseConfig
    tor: TorConfig | None
    keypair: KeypairConfig | None
    health_check_port: int
    log_level: str
    allow_private_relays: bool
    loop_interval_minutes: float

    @property
    def loop_interval_seconds(self) -> float:
        """The pause between two cycles."""
        return self.loop_interval_minutes * SECONDS_PER_MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorConfig(ServiceConfig):
    """A relay is checked every `frequency_hour` hours; `request_timeout` is in seconds. At once:
    `checks_per_host` relays of one host, `tor_checks` onion relays. `max_pow_difficulty` is in
    bits (NIP-13); what is found is published (NIP-66) to `publish_relays`."""

    frequency_hour: float
    num_cores: int
    chunk_size: int
    requests_per_core: int
    checks_per_host: int
    tor_checks: int
    max_pow_difficulty: int
    publish_relays: tuple[RelayUrl, ...]
    request_timeout: float

    @property
    def frequency_seconds(self) -> int:
        """The age from which a relay's metadata is due for a new check."""
        return max(1, round(self.frequency_hour * SECONDS_PER_HOUR))


@dataclass(frozen=True, slots=True, kw_only=True)
class SynchronizerConfig(ServiceConfig):
    """Timestamps are Unix seconds; `stop_timestamp` -1 means now minus `lag_seconds`."""

    num_cores: int
    requests_per_core: int
    request_timeout: float
    start_timestamp: int
    stop_timestamp: int
    lag_seconds: int
    event_filter: Mapping[str, Any]
    priority_relays_path: Path
    relay_metadata_threshold_hours: int
    batch_size: int
    reverify_days: int

    @property
    def reverify_seconds(self) -> int:
        """The age from which proven seconds are looked at again; 0 means never."""
        return self.reverify_days * SECONDS_PER_DAY

    def last_second(self, now: int) -> int:
        """The last second to archive at the time `now`."""
        return now - self.lag_seconds if self.stop_timestamp == -1 else self.stop_timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class FinderConfig(ServiceConfig):
    """`aggregator_urls` and `nip66_relays` are asked every `frequency_hour` hours."""

    frequency_hour: float
    request_timeout: float
    aggregator_urls: tuple[str, ...]
    nip66_relays: tuple[RelayUrl, ...]

    @property
    def frequency_seconds(self) -> int:
        """The time between two requests to the same aggregator or relay."""
        return max(1, round(self.frequency_hour * SECONDS_PER_HOUR))


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePasswords:
    """Passwords that the initializer gives to the roles of the archive; None leaves one alone."""

    writer: str | None = field(default=None, repr=False)
    reader: str | None = field(default=None, repr=False)
    pgbouncer_auth: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InitializerConfig:
    """`owner` (a direct connection, past PgBouncer) migrates; None only checks the schema."""

    database: DatabaseConfig
    owner: DatabaseConfig | None
    role_passwords: RolePasswords
    seed_relays_path: Path
    allow_private_relays: bool
    log_level: str
    tor: TorConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolConfig:
    """What the programs have that are run by hand: export and import."""

    database: DatabaseConfig
    allow_private_relays: bool
