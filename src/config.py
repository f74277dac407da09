"""The settings of every service, read once from the environment into frozen values.

The loaders raise ConfigError, one line that names the variable, and warn of what is odd but
possible. Every secret can also be given as a file, by the variable `<NAME>_FILE`.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypedDict

import constants
from config_types import (
    DatabaseConfig,
    FinderConfig,
    InitializerConfig,
    KeypairConfig,
    MonitorConfig,
    RolePasswords,
    ServiceConfig,
    SynchronizerConfig,
    ToolConfig,
    TorConfig,
)
from config_values import (
    DEFAULT_NIP66_RELAYS,
    read_aggregators,
    read_event_filter,
    read_keypair,
    read_priority_relays,
    read_relay_urls,
)
from constants import LOG_WARNING
from errors import ConfigError
from logging_config import fields
from nostr.urls import RelayUrl
from settings import Settings

__all__ = [
    "DatabaseConfig",
    "FinderConfig",
    "InitializerConfig",
    "KeypairConfig",
    "MonitorConfig",
    "RolePasswords",
    "ServiceConfig",
    "SynchronizerConfig",
    "ToolConfig",
    "TorConfig",
    "load_finder_config",
    "load_initializer_config",
    "load_monitor_config",
    "load_priority_synchronizer_config",
    "load_synchronizer_config",
    "load_tool_config",
]

_MOST_POW_BITS: Final = 24
# The year 5138; as milliseconds, 1973.
_MILLISECONDS_FROM: Final = 100_000_000_000
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

logger = logging.getLogger(__name__)


def load_monitor_config(environ: Mapping[str, str] = os.environ) -> MonitorConfig:
    """The monitor's settings; raises ConfigError."""
    own = Settings(environ, "MONITOR_")
    common = _service(environ, own)
    return MonitorConfig(
        **common,
        frequency_hour=_positive(own, "FREQUENCY_HOUR", 8),
        num_cores=_cores(own),
        chunk_size=_count(own, "CHUNK_SIZE", 50),
        requests_per_core=_count(own, "REQUESTS_PER_CORE", 10),
        checks_per_host=_count(own, "CHECKS_PER_HOST", 4),
        tor_checks=_count(own, "TOR_CHECKS", 10),
        max_pow_difficulty=_pow_difficulty(own),
        publish_relays=_publish_relays(own, common),
        request_timeout=_positive(own, "REQUEST_TIMEOUT", 20),
    )


def load_synchronizer_config(environ: Mapping[str, str] = os.environ) -> SynchronizerConfig:
    """The synchronizer's settings; raises ConfigError."""
    return _synchronizer(environ, Settings(environ, "SYNCHRONIZER_"))


def load_priority_synchronizer_config(
    environ: Mapping[str, str] = os.environ,
) -> SynchronizerConfig:
    """The same for the priority synchronizer: each `PRIORITY_SYNCHRONIZER_*` that has a value
    overrides its `SYNCHRONIZER_*`. Raises ConfigError."""
    shared = Settings(environ, "SYNCHRONIZER_")
    return _synchronizer(environ, Settings(environ, "PRIORITY_SYNCHRONIZER_", shared))


def load_finder_config(environ: Mapping[str, str] = os.environ) -> FinderConfig:
    """The finder's settings; raises ConfigError."""
    own = Settings(environ, "FINDER_")
    common = _service(environ, own)
    return FinderConfig(
        **common,
        frequency_hour=_positive(own, "FREQUENCY_HOUR", 8),
        request_timeout=_positive(own, "REQUEST_TIMEOUT", 20),
        aggregator_urls=read_aggregators(own),
        nip66_relays=read_relay_urls(
            own,
            "FINDER_NIP66_RELAYS",
            DEFAULT_NIP66_RELAYS,
            allow_private=common["allow_private_relays"],
        ),
    )


def load_initializer_config(environ: Mapping[str, str] = os.environ) -> InitializerConfig:
    """The initializer's settings; raises ConfigError."""
    common = Settings(environ)
    database = _database(common)
    return InitializerConfig(
        database=database,
        owner=_owner(common, database),
        role_passwords=RolePasswords(
            writer=_role_password(common, "POSTGRES_WRITER_PASSWORD"),
            reader=_role_password(common, "POSTGRES_READER_PASSWORD"),
            pgbouncer_auth=_role_password(common, "PGBOUNCER_AUTH_PASSWORD"),
        ),
        seed_relays_path=Path(common.text("SEED_RELAYS_PATH", "seed_relays.txt")),
        allow_private_relays=common.flag("ALLOW_PRIVATE_RELAYS", False),
        log_level=common.choice("LOG_LEVEL", "INFO", LOG_LEVELS),
    )


def load_tool_config(environ: Mapping[str, str] = os.environ) -> ToolConfig:
    """The settings of export and import, which are among the initializer's; raises ConfigError."""
    common = Settings(environ)
    return ToolConfig(
        database=_database(common),
        allow_private_relays=common.flag("ALLOW_PRIVATE_RELAYS", False),
    )


class _Common(TypedDict):
    database: DatabaseConfig
    tor: TorConfig | None
    keypair: KeypairConfig | None
    health_check_port: int
    log_level: str
    allow_private_relays: bool
    loop_interval_minutes: float


def _service(environ: Mapping[str, str], own: Settings) -> _Common:
    common = Settings(environ)
    return {
        "database": _database(common, own),
        "tor": _tor(common),
        "keypair": read_keypair(common),
        "health_check_port": _health_check_port(common),
        "log_level": common.choice("LOG_LEVEL", "INFO", LOG_LEVELS),
        "allow_private_relays": common.flag("ALLOW_PRIVATE_RELAYS", False),
        "loop_interval_minutes": _positive(own, "LOOP_INTERVAL_MINUTES", 15),
    }


def _synchronizer(environ: Mapping[str, str], own: Settings) -> SynchronizerConfig:
    start = _unix_seconds(own, "START_TIMESTAMP", 0)
    stop = _unix_seconds(own, "STOP_TIMESTAMP", -1)
    if stop != -1 and stop < start:
        raise ConfigError(
            f"{own.name('STOP_TIMESTAMP')} is {stop}: give -1, or a time not before "
            f"{own.name('START_TIMESTAMP')} ({start})"
        )
    return SynchronizerConfig(
        **_service(environ, own),
        num_cores=_cores(own),
        requests_per_core=_count(own, "REQUESTS_PER_CORE", 10),
        request_timeout=_positive(own, "REQUEST_TIMEOUT", 20),
        start_timestamp=start,
        stop_timestamp=stop,
        lag_seconds=_not_negative(own, "LAG_SECONDS", constants.SECONDS_PER_DAY),
        event_filter=read_event_filter(own),
        priority_relays_path=read_priority_relays(own),
        relay_metadata_threshold_hours=_count(own, "RELAY_METADATA_THRESHOLD_HOURS", 12),
        batch_size=_count(own, "BATCH_SIZE", 500),
        reverify_days=_not_negative(own, "REVERIFY_DAYS", 14),
    )


def _database(common: Settings, own: Settings | None = None) -> DatabaseConfig:
    # The initializer has no variables of its own for the pool.
    own = own or Settings({})
    minimum = _count(own, "DB_MIN_POOL", constants.DB_POOL_MIN_SIZE_PER_WORKER)
    maximum = _count(own, "DB_MAX_POOL", constants.DB_POOL_MAX_SIZE_PER_WORKER)
    if minimum > maximum:
        raise ConfigError(
            f"{own.name('DB_MIN_POOL')} is {minimum}: give at most "
            f"{own.name('DB_MAX_POOL')} ({maximum})"
        )
    return DatabaseConfig(
        host=common.text("POSTGRES_HOST"),
        port=_port(common, "POSTGRES_PORT", 6432),
        user=common.text("POSTGRES_USER"),
        password=common.secret("POSTGRES_PASSWORD"),
        dbname=common.text("POSTGRES_DB", "bigbrotr"),
        min_pool=minimum,
        max_pool=maximum,
        command_timeout=_positive(own, "DB_COMMAND_TIMEOUT", constants.DB_COMMAND_TIMEOUT),
    )


def _owner(common: Settings, database: DatabaseConfig) -> DatabaseConfig | None:
    password = common.optional_secret("POSTGRES_OWNER_PASSWORD")
    if password is None:
        if common.given("POSTGRES_OWNER_USER"):
            raise ConfigError(
                "POSTGRES_OWNER_USER is set without POSTGRES_OWNER_PASSWORD: give both, or none"
            )
        return None
    return DatabaseConfig(
        host=common.text("POSTGRES_DIRECT_HOST", database.host),
        port=_port(common, "POSTGRES_DIRECT_PORT", 5432),
        user=common.text("POSTGRES_OWNER_USER", "admin"),
        password=password,
        dbname=database.dbname,
    )


def _tor(common: Settings) -> TorConfig | None:
    if not common.given("TORPROXY_HOST"):
        return None
    return TorConfig(common.text("TORPROXY_HOST"), _port(common, "TORPROXY_PORT", 9050))


def _cores(own: Settings) -> int:
    wanted = _count(own, "NUM_CORES", 2)
    available = _available_cores()
    if wanted > available:
        name = own.name("NUM_CORES")
        logger.warning(
            f"{LOG_WARNING} "
            f"{fields('more_workers_than_cores', variable=name, workers=wanted, cores=available)}"
        )
    return wanted


def _role_password(common: Settings, key: str) -> str | None:
    """None leaves the role as it is; a variable that is there but empty is an oversight."""
    password = common.optional_secret(key)
    return common.secret(key) if password is None and key in common.environ else password


def _available_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _health_check_port(common: Settings) -> int:
    port = common.integer("HEALTH_CHECK_PORT", constants.HEALTH_CHECK_PORT)
    return _validate_port(port, "HEALTH_CHECK_PORT") if port else 0


def _port(settings: Settings, key: str, default: int) -> int:
    return _validate_port(settings.integer(key, default), settings.name(key))


def _count(settings: Settings, key: str, default: int) -> int:
    value = settings.integer(key, default)
    _validate_positive(value, settings.name(key))
    return value


def _positive(settings: Settings, key: str, default: float) -> float:
    value = settings.decimal(key, default)
    _validate_positive(value, settings.name(key))
    return value


def _not_negative(settings: Settings, key: str, default: int) -> int:
    value = settings.integer(key, default)
    if value < 0:
        raise ConfigError(f"{settings.name(key)} is {value}: give 0 or more")
    return value


def _unix_seconds(settings: Settings, key: str, default: int) -> int:
    value = settings.integer(key, default)
    if not min(default, 0) <= value < _MILLISECONDS_FROM:
        looks = ", not milliseconds" if value > 0 else ""
        raise ConfigError(f"{settings.name(key)} is {value}: give a time in Unix seconds{looks}")
    return value


def _publish_relays(own: Settings, common: _Common) -> tuple[RelayUrl, ...]:
    name = own.name("PUBLISH_RELAYS")
    relays = read_relay_urls(own, name, (), allow_private=common["allow_private_relays"])
    if relays and common["keypair"] is None:
        raise ConfigError(f"{name} is set without SECRET_KEY, which signs: set it too")
    return relays


def _pow_difficulty(own: Settings) -> int:
    bits = _not_negative(own, "MAX_POW_DIFFICULTY", 18)
    if bits > _MOST_POW_BITS:
        raise ConfigError(
            f"{own.name('MAX_POW_DIFFICULTY')} is {bits}: give at most {_MOST_POW_BITS}; each bit "
            "doubles the work, and 24 keep a core busy for some 20 seconds"
        )
    return bits


def _validate_port(port: int, name: str) -> int:
    if not 1 <= port <= 65_535:
        raise ConfigError(f"{name} is {port}: give a port from 1 to 65535")
    return port


def _validate_positive(value: float, name: str) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value:g}: give a number above 0")
