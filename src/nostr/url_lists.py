"""Lists of relay URLs, one a line: what they hold, what is refused, and what the refusals mean."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from errors import RelayUrlRefused
from nostr.urls import MAX_PATHS_PER_HOST, RelayUrl

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "private-address": "a private, loopback or otherwise reserved address, or a name that "
        "means something inside one network only (localhost, .local, .lan)",
        "bad-host": "no host that the Internet can know: an empty or malformed name, one without a "
        "domain, an address in an odd spelling, or a port that is no number",
        "bad-port": "a port outside 1 to 65535",
        "not-websocket": "it does not begin with wss:// or ws://",
        "second-scheme": "two URLs run together",
        "comma": "a comma, as between two URLs",
        "white-space": "white space inside, also as %20",
        "bad-character": "quotes, brackets or invisible characters, which no URL may hold",
        "bad-percent-encoding": "a % that is not followed by two hex digits",
        "userinfo": "a user name or password before the host",
        "names-a-person": "it holds an npub or nprofile: a view made for one person, of which "
        "there can be any number",
        "not-a-string": "a program wrote [object Object] in the place of a URL",
        "onion-not-v3": "a .onion name that is no version 3 address with a right checksum, so that "
        "it can never be reached",
        "unsupported-network": "a .i2p or .loki name",
        "too-long": "more than 2,048 bytes",
        "too-many-of-host": "more than 128 URLs of one host with a port, path or query",
    }
)
"""What each reason of RelayUrlRefused says of a URL."""


@dataclass(frozen=True, slots=True)
class UrlReport:
    """What a list of relay URLs held: `accepted` in the list's order without repetition, how
    many were refused for which reason, the first few of each, and how many were repetitions."""

    accepted: tuple[RelayUrl, ...]
    refused: Counter[str]
    examples: dict[str, tuple[str, ...]]
    duplicates: int


def scan(
    lines: Iterable[str],
    *,
    allow_private: bool = False,
    max_paths_per_host: int = MAX_PATHS_PER_HOST,
    examples_per_reason: int = 3,
) -> UrlReport:
    """Reads a list with one URL a line; empty lines and what follows a `#` are comments."""
    accepted: dict[str, RelayUrl] = {}
    paths: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    examples: dict[str, tuple[str, ...]] = {}
    duplicates = 0
    for line in lines:
        text = re.sub(r"(?:^|\s)#.*", "", line.lstrip("\ufeff"), flags=re.DOTALL).strip()
        if not text:
            continue
        try:
            url = RelayUrl.parse(text, allow_private=allow_private)
            if url.url in accepted:
                duplicates += 1
                continue
            if not url.is_plain and paths[url.host] >= max_paths_per_host:
                raise RelayUrlRefused("too-many-of-host", text)
        except RelayUrlRefused as error:
            refused[error.reason] += 1
            shown = examples.get(error.reason, ())
            examples[error.reason] = (*shown, text[:200])[:examples_per_reason]
            continue
        paths[url.host] += not url.is_plain
        accepted[url.url] = url
    return UrlReport(tuple(accepted.values()), refused, examples, duplicates)
