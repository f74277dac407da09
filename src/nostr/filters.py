"""Filters of NIP-01: checking one that a person wrote, naming it, and matching events."""

import re
from collections.abc import Callable, Mapping
from functools import reduce
from hashlib import sha256
from math import inf
from typing import Any

import orjson

from errors import FilterInvalid
from nostr.events import MAX_KIND, SignedEvent

_WINDOW_KEYS = frozenset({"since", "until", "limit"})
_NUMBER_KEYS = _WINDOW_KEYS
_HEX_KEYS = frozenset({"ids", "authors", "#e", "#p"})
_TAG_KEY = re.compile("#[a-zA-Z]").fullmatch
_HEX_64 = re.compile("[0-9a-f]{64}").fullmatch

Matcher = Callable[[SignedEvent], bool]


def clean_filter(raw: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The NIP-01 keys of a filter, lists without repetition, and the names of dropped keys.

    Raises FilterInvalid where a kept value is of the wrong type or form, or a list is empty
    (relays disagree on what an empty list means).
    """
    if not isinstance(raw, Mapping):
        raise FilterInvalid(f"a filter must be a JSON object, not {type(raw).__name__}")
    kept: dict[str, Any] = {}
    dropped: list[str] = []
    for key, value in raw.items():
        if key in _NUMBER_KEYS:
            kept[key] = _natural_number(key, value)
        elif key == "kinds":
            kept[key] = _list_of(key, value, _is_kind, f"kinds from 0 to {MAX_KIND}")
        elif key in _HEX_KEYS:
            kept[key] = _list_of(key, value, _is_hex_64, "strings of 64 lower-case hex digits")
        elif isinstance(key, str) and _TAG_KEY(key):
            kept[key] = _list_of(key, value, _is_string, "strings")
        else:
            dropped.append(str(key))
    return kept, tuple(dropped)


def filter_hash(flt: Mapping[str, Any]) -> str:
    """SHA-256 (hex) that names what a filter selects, whatever its window, order or limit."""
    selection = {key: sorted(set(value)) for key, value in flt.items() if key not in _WINDOW_KEYS}
    return sha256(orjson.dumps(selection, option=orjson.OPT_SORT_KEYS)).hexdigest()


def matches(event: SignedEvent, flt: Mapping[str, Any]) -> bool:
    """Whether a cleaned filter selects the event (`limit` selects nothing)."""
    return matcher(flt)(event)


def matcher(flt: Mapping[str, Any]) -> Matcher:
    """A function that tells whether the filter selects an event, for many events."""
    tests = [_TESTS[key](value) for key, value in flt.items() if key in _TESTS]
    if "since" in flt or "until" in flt:
        tests.append(_time_test(flt.get("since", 0), flt.get("until", inf)))
    tests += [_tag_test(key[1:], value) for key, value in flt.items() if _TAG_KEY(key)]
    return reduce(_both, tests) if tests else _anything


def _anything(event: SignedEvent) -> bool:
    return True


def _both(one: Matcher, other: Matcher) -> Matcher:
    return lambda event: one(event) and other(event)


def _id_test(ids: list[str]) -> Matcher:
    wanted = frozenset(ids)
    return lambda event: event.id in wanted


def _author_test(authors: list[str]) -> Matcher:
    wanted = frozenset(authors)
    return lambda event: event.pubkey in wanted


def _kind_test(kinds: list[int]) -> Matcher:
    wanted = frozenset(kinds)
    return lambda event: event.kind in wanted


def _time_test(since: int, until: float) -> Matcher:
    return lambda event: since <= event.created_at <= until


def _tag_test(letter: str, values: list[str]) -> Matcher:
    wanted = frozenset(values)

    def has_tag(event: SignedEvent) -> bool:
        return any(
            len(tag) > 1 and tag[0] == letter and type(tag[1]) is str and tag[1] in wanted
            for tag in event.tags
        )

    return has_tag


_TESTS: dict[str, Callable[[Any], Matcher]] = {
    "ids": _id_test,
    "authors": _author_test,
    "kinds": _kind_test,
}


def _natural_number(key: str, value: object) -> int:
    if type(value) is not int or value < 0:
        raise FilterInvalid(f"filter key {key!r} must be an integer >= 0, got {repr(value)[:100]}")
    return value


def _list_of(key: str, value: object, is_right: Callable[[object], bool], what: str) -> list[Any]:
    if not isinstance(value, list) or not value or not all(map(is_right, value)):
        raise FilterInvalid(
            f"filter key {key!r} must be a non-empty list of {what}, got {repr(value)[:100]}"
        )
    return list(dict.fromkeys(value))


def _is_kind(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_KIND


def _is_hex_64(value: object) -> bool:
    return type(value) is str and _HEX_64(value) is not None


def _is_string(value: object) -> bool:
    return type(value) is str
