"""Settings that are more than a number or a text: keys, a filter, a list of URLs, a file."""

import json
import logging
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from nostr_tools import to_hex, validate_keypair

from config_types import KeypairConfig
from constants import LOG_WARNING
from errors import ConfigError, RelayUrlRefused
from logging_config import fields
from nostr.filters import clean_filter
from nostr.urls import RelayUrl
from settings import Settings

DEFAULT_AGGREGATOR_URLS: Final = (
    "https://api.nostr.watch/v1/online",
    "https://api.nostr.watch/v2/relays?format=simple&limit=200",
)
DEFAULT_NIP66_RELAYS: Final = ("wss://relay.nostr.watch",)

# The synchronizer sets these itself, from its windows.
_WINDOW_KEYS: Final = ("since", "until", "limit")

logger = logging.getLogger(__name__)


def read_keypair(common: Settings) -> KeypairConfig | None:
    """SECRET_KEY and PUBLIC_KEY, checked to belong together; None when neither is given."""
    secret = common.optional_secret("SECRET_KEY")
    if secret is None and not common.given("PUBLIC_KEY"):
        return None
    if secret is None or not common.given("PUBLIC_KEY"):
        missing = "SECRET_KEY" if secret is None else "PUBLIC_KEY"
        raise ConfigError(f"{missing} is missing: give SECRET_KEY and PUBLIC_KEY, or neither")
    secret, public = _hex_key(secret), _hex_key(common.text("PUBLIC_KEY"))
    if not validate_keypair(secret, public):
        raise ConfigError(
            "PUBLIC_KEY is not the public key of SECRET_KEY: give a pair, "
            "each as 64 hex digits or as nsec and npub"
        )
    return KeypairConfig(secret, public)


def _hex_key(key: str) -> str:
    """A key in hex; a malformed one becomes "", which fails the check of the pair."""
    if not key.lower().startswith(("nsec1", "npub1")):
        return key.lower()
    try:
        return to_hex(key.lower()).lower()
    except Exception:  # the library raises bare exceptions, with the key in their text
        return ""


def read_event_filter(own: Settings) -> dict[str, Any]:
    """A NIP-01 filter without a window; other keys are dropped with a warning."""
    name = own.name("EVENT_FILTER")
    try:
        raw = json.loads(own.text("EVENT_FILTER", "{}"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON ({error}): give a NIP-01 filter, or {{}}") from error
    if type(raw) is not dict:
        raise ConfigError(f"{name} is not a JSON object: give a NIP-01 filter, or {{}}")
    try:
        cleaned, unknown = clean_filter(raw)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    dropped = (*unknown, *(key for key in _WINDOW_KEYS if key in cleaned))
    if dropped:
        logger.warning(
            f"{LOG_WARNING} {fields('filter_keys_ignored', variable=name, keys=','.join(dropped))}"
        )
    flt = {key: value for key, value in cleaned.items() if key not in _WINDOW_KEYS}
    for key in flt:
        if not all(map(_is_storable, flt[key])):
            raise ConfigError(
                f"{name}: filter key {key!r} has a value with NUL or half a surrogate pair, which "
                "the archive cannot hold: leave it out"
            )
    return flt


def _is_storable(value: object) -> bool:
    """Whether jsonb can hold a number or text."""
    text = str(value)
    return "\0" not in text and text == text.encode(errors="ignore").decode()


def read_priority_relays(own: Settings) -> Path:
    """The path of the priority list; an absent file is created, empty but for a comment."""
    path = Path(own.text("PRIORITY_RELAYS_PATH", "priority_relays.txt"))
    try:
        with path.open("x") as created:
            created.write("# Relays of the priority synchronizer, one URL a line.\n")
        outcome = "created_empty"
    except FileExistsError:
        return path
    except OSError as error:
        outcome = f"cannot be created: {error.strerror}"
    variable = own.name("PRIORITY_RELAYS_PATH")
    logger.warning(
        f"{LOG_WARNING} "
        f"{fields('priority_list_missing', variable=variable, path=path, outcome=outcome)}"
    )
    return path


def read_aggregators(own: Settings) -> tuple[str, ...]:
    """HTTP URLs, separated by commas or white space; here an empty variable is a value."""
    raw = own.environ.get("FINDER_AGGREGATOR_URLS")
    if raw is None:
        return DEFAULT_AGGREGATOR_URLS
    urls = tuple(raw.replace(",", " ").split())
    for url in urls:
        if not _is_http_url(url):
            raise ConfigError(
                f"FINDER_AGGREGATOR_URLS holds {url[:100]!r}: give http(s) URLs "
                "separated by commas, or nothing for no aggregator"
            )
    return urls


def read_relay_urls(
    own: Settings, variable: str, default: tuple[str, ...], *, allow_private: bool
) -> tuple[RelayUrl, ...]:
    """Relay URLs, separated by commas or white space, each once; an empty variable is a value."""
    raw = own.environ.get(variable)
    texts = default if raw is None else raw.replace(",", " ").split()
    urls: dict[RelayUrl, None] = {}
    for text in texts:
        try:
            urls[RelayUrl.parse(text, allow_private=allow_private)] = None
        except RelayUrlRefused as refused:
            raise ConfigError(
                f"{variable} holds {text[:100]!r} ({refused.reason}): give wss:// URLs "
                "separated by commas, or nothing for none"
            ) from None
    return tuple(urls)


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
