"""Checking events: every right one passes unaltered, every wrong one is refused by name."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from errors import EventRefused, MessageMalformed
from nostr.events import (
    decode_json,
    encode_event,
    parse_event,
    storage_obstacle,
    verify_signatures,
)
from nostr.json_text import JsonNumber, decode_exactly, encode_json
from nostr.keys import public_key, sign_challenge, sign_event
from nostr.messages import EventMessage, decode_any_message, decode_message
from nostr.plain_events import plain_event

KEY = PrivateKey.from_int(7)
PUBKEY = KEY.public_key.format()[1:].hex()
CREATED_AT = 1_700_000_000
SHARED_CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


def signed_over(serialization: str | bytes, **members: Any) -> dict[str, Any]:
    """An event whose id is the digest of the given text, whatever that text is."""
    text = serialization.encode() if isinstance(serialization, str) else serialization
    digest = sha256(text).digest()
    return {
        "id": digest.hex(),
        "pubkey": PUBKEY,
        "created_at": CREATED_AT,
        "kind": 1,
        "tags": [],
        "content": "",
        **members,
        "sig": KEY.sign_schnorr(digest).hex(),
    }


def good_event(**members: Any) -> dict[str, Any]:
    fields = {"created_at": CREATED_AT, "kind": 1, "tags": [], "content": "hello", **members}
    text = orjson.dumps(
        [0, PUBKEY, fields["created_at"], fields["kind"], fields["tags"], fields["content"]]
    )
    return signed_over(text, **fields)


def reason_of(obj: object) -> str:
    with pytest.raises(EventRefused) as refused:
        parse_event(obj)
    return refused.value.reason


def received(wire: bytes) -> object:
    """The event object of an EVENT message with this text."""
    return decode_message(frame_of(wire)).event


def frame_of(wire: bytes) -> bytes:
    return b'["EVENT","s",' + wire + b"]"


def test_a_right_event_passes_and_its_signature_verifies():
    event = parse_event(good_event(tags=[["t", "nostr"], []]))
    assert event.content == "hello"
    assert event.tags == [["t", "nostr"], []]
    assert verify_signatures([event]) == [True]


def test_extra_members_do_not_matter():
    assert parse_event(good_event() | {"relays": ["x"], "_": None}).kind == 1


@pytest.mark.parametrize(
    "change",
    [
        *({"created_at": value} for value in (True, 1.0, "1", None, -1, [])),
        *({"kind": value} for value in (True, 1.0, "1", -1, 65_536, 2**70, None)),
        *({"tags": value} for value in (None, {}, "t", [None], ["t"], [("t",)], [{}])),
        *({"content": value} for value in (None, 1, ["x"])),
        *({"pubkey": value} for value in (None, PUBKEY[:-1], PUBKEY + "0", PUBKEY.upper(), "")),
        *({"sig": value} for value in (None, "0" * 127, "0" * 129, "g" * 128, "A" * 128)),
        *({"id": value} for value in (None, "", 5, "0" * 63, "A" * 64, "0" * 63 + "\n")),
    ],
)
def test_a_wrong_form_is_malformed(change: dict[str, Any]):
    assert reason_of(good_event() | change) == "malformed"


@pytest.mark.parametrize("obj", [None, [], "x", 1, {}, {"id": "0" * 64}])
def test_what_is_no_event_is_malformed(obj: object):
    assert reason_of(obj) == "malformed"


@pytest.mark.parametrize("member", ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"])
def test_a_missing_member_is_malformed(member: str):
    event = good_event()
    del event[member]
    assert reason_of(event) == "malformed"


@pytest.mark.parametrize(
    "change",
    [{"content": "hello "}, {"kind": 2}, {"tags": [[]]}, {"created_at": 0}, {"id": "0" * 64}],
)
def test_any_change_makes_the_id_wrong(change: dict[str, Any]):
    assert reason_of(good_event() | change) == "wrong-id"


def test_the_limits_of_the_numbers_are_inside():
    assert parse_event(good_event(kind=0, created_at=0)).kind == 0
    assert parse_event(good_event(kind=65_535)).kind == 65_535


def test_an_answer_to_a_challenge_is_never_an_event_to_keep():
    assert reason_of(sign_challenge("1" * 64, "wss://relay.example.com", "c")) == "auth-event"


def test_a_wrong_signature_or_key_is_found():
    event = parse_event(good_event())
    other = parse_event(good_event(content="other"))
    no_point = "f" * 64
    assert verify_signatures(
        [event, event._replace(sig=other.sig), event._replace(pubkey=no_point), other]
    ) == [True, False, False, True]


def spell(text: str, escaped: str) -> str:
    """JSON text of a string with these characters as \\u00xx (or \\n and the like)."""
    short = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    for character in text:
        if character in escaped or character in short:
            code = short.get(character, f"\\u{ord(character):04x}")
            plain = plain.replace(character, code)
    return f'"{plain}"'


CONTROLS = "".join(map(chr, range(32)))


@pytest.mark.parametrize(
    "content",
    [
        *("\0", "a\x01b", "\x7f", "\x1f\x7f", '\b\f\n\r\t"\\/', "\x0b\x0e\x1b"),
        *("\u2028\u2029", "\x80\x9f", "é€😀", CONTROLS + "\x7f\u2028", "\\u0001", "\\u0001\x01"),
    ],
)
@pytest.mark.parametrize("escaped", ["", CONTROLS, CONTROLS + "\x7f", "\x7f"])
def test_every_spelling_of_control_characters_counts(content: str, escaped: str):
    text = (
        f'[0,"{PUBKEY}",{CREATED_AT},1,[["x",{spell(content, escaped)}]],{spell(content, escaped)}]'
    )
    event = signed_over(text, tags=[["x", content]], content=content)
    assert parse_event(event).content == content
    assert parse_event(decode_json(json.dumps(event).encode())).tags == [["x", content]]


def test_a_literal_escape_is_not_the_character():
    """The library's unescaping accepts altered events; this must not."""
    event = good_event(content="line\nbreak")
    assert reason_of(event | {"content": "line\\nbreak"}) == "wrong-id"


@pytest.mark.parametrize("content", ["\ud800", "a\udfffb", "\ude00\ud83d", "\x01\ud800"])
def test_lone_surrogates_count_as_javascript_spells_them(content: str):
    text = json.dumps(content)
    event = signed_over(f'[0,"{PUBKEY}",{CREATED_AT},1,[],{text}]', content=content)
    wire = json.dumps(event).encode()
    parsed = parse_event(received(wire))
    assert parsed.content == content
    assert storage_obstacle(parsed) == "lone-surrogate"
    assert parse_event(received(encode_event(parsed))) == parsed


@pytest.mark.parametrize(
    ("values", "obstacle"),
    [
        ('["e","x",null,"root"]', None),
        ('["e",true,1,-5]', None),
        ('["n",9223372036854775807]', None),
        ('["n",18446744073709551615]', "number"),
        ('["n",18446744073709551616]', "number"),
        ('["n",-9223372036854775809]', "number"),
        ('["n",' + "9" * 6_000 + "]", "number"),
        ('["n",1.0]', "number"),
        ('["n",1.10]', "number"),
        ('["n",1e400]', "number"),
        ('["n",1E+2]', "number"),
        ('["n",-0]', "number"),
        ('["x",["y"]]', "nested-tag"),
        ('["x",{"b":1,"a":[1.50]}]', "nested-tag"),
        ('["x","\\u0000"]', "nul"),
        ('["x","\\ud800",1.0]', "number"),
    ],
)
def test_values_that_are_no_strings_are_kept_to_the_last_digit(values: str, obstacle: str | None):
    text = f'[0,"{PUBKEY}",{CREATED_AT},1,[{values}],""]'
    head = json.dumps(signed_over(text))
    wire = head.replace('"tags": []', f'"tags": [{values}]').encode()
    event = parse_event(received(wire))
    assert storage_obstacle(event) == obstacle
    assert encode_event(event).decode().count(f'"tags":[{values}]') == 1
    assert parse_event(received(encode_event(event))) == event


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        ({}, None),
        ({"content": "\\u0000 is not a NUL"}, None),
        ({"content": "é€😀\x01\x7f"}, None),
        ({"tags": [["x", "y" * 100_000]]}, None),
        ({"content": "a\0b"}, "nul"),
        ({"tags": [["a"], ["x\0"]]}, "nul"),
        ({"created_at": 2**63 - 1}, None),
        ({"created_at": 2**63}, "number-out-of-range"),
    ],
)
def test_what_the_columns_cannot_hold_is_named(change: dict[str, Any], obstacle: str | None):
    assert storage_obstacle(parse_event(good_event(**change))) == obstacle


def test_numbers_of_ten_thousands_of_digits_and_deep_nesting_are_no_error_of_ours():
    depth = 5_000
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    assert reason_of(good_event() | {"tags": [["x", deep]]}) == "malformed"
    for frame in (b"[" * depth + b"]" * depth, b'{"a":' * depth, b"[" * 500_000):
        with pytest.raises(MessageMalformed):
            decode_json(frame)
    assert decode_exactly(b"1" * 20_000) == float("inf")


@pytest.mark.parametrize(
    "frame",
    [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b'"\xed\xa0\x80"', b"\xef\xbb\xbf[]", b"[1,]"],
)
def test_what_is_no_json_is_malformed(frame: bytes):
    with pytest.raises(MessageMalformed):
        decode_json(frame)


def test_a_number_as_it_was_written_survives():
    (number,) = decode_exactly(b"[1.10]")
    assert isinstance(number, JsonNumber)
    assert number.text == "1.10"
    assert number == 1.1


TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\0\x01\x1f\x7f\u2028"\\'),
    max_size=20,
)


@given(st.lists(st.lists(TEXT, max_size=3), max_size=3), TEXT)
def test_any_event_comes_back_the_same(tags: list[list[str]], content: str):
    event = parse_event(good_event(tags=tags, content=content))
    assert parse_event(received(encode_event(event))) == event
    has_nul = "\0" in content or any("\0" in value for tag in tags for value in tag)
    assert storage_obstacle(event) == ("nul" if has_nul else None)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=10,
    ),
    st.sampled_from(["id", "pubkey", "created_at", "kind", "tags", "content", "sig"]),
)
def test_no_value_raises_anything_but_our_error(value: object, member: str):
    good = good_event()
    for obj in (value, good | {member: value}):
        try:
            event = parse_event(obj)
        except EventRefused:
            continue
        assert event._replace(sig=good["sig"]) == parse_event(good)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NEARLY_RIGHT = st.sampled_from(
    [
        *(PUBKEY.upper(), PUBKEY[:-1] + "\n", PUBKEY[:-1] + "é", "f" * 128, "a b" + "f" * 125),
        *(" " * 64, b"\0", list(PUBKEY), True, 1.0, -1, 22_242, 65_536, 2**63 - 1, 2**63, 2**64),
        *(["ab"], [{"a": "b"}], [["a"], ("b",)], [["\ud800"]], "\udfff", "\0", "\\u0000", "\x7f"),
    ]
)


@given(
    st.lists(st.lists(TEXT, max_size=3), max_size=3),
    TEXT,
    st.sampled_from(["", *good_event()]),
    JSON | NEARLY_RIGHT,
    st.booleans(),
)
def test_the_short_way_says_what_the_long_one_says(
    tags: list[list[str]], content: str, member: str, value: object, signed: bool
):
    change = {member: value} if member else {}
    given_members = {"tags": tags, "content": content}
    try:
        obj = good_event(**given_members | change) if signed else good_event(**given_members)
        frame = frame_of(encode_json(obj | change))
    except (TypeError, MessageMalformed):  # nothing that can be written
        return
    hold_to_one_verdict(frame)


@given(st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=3), TEXT)
def test_the_short_way_says_so_of_altered_text_too(changes: list[tuple[int, bytes]], content: str):
    frame = frame_of(orjson.dumps(good_event(tags=[["t", content]], content=content)))
    for position, text in changes:
        frame = frame[:position] + text + frame[position + len(text) :]
    hold_to_one_verdict(frame)


def hold_to_one_verdict(frame: bytes) -> None:
    plain = plain_event(frame)
    if plain is None:
        return
    message = decode_any_message(frame)
    assert type(message) is EventMessage
    event = parse_event(message.event)
    assert plain == (message.subscription, event)
    assert list(map(type, plain[1])) == list(map(type, event))
    assert storage_obstacle(event) is None


@pytest.mark.parametrize("member", [*good_event()])
def test_the_short_way_misses_no_member(member: str):
    event = good_event(tags=[["t", "nostr"], []], content="é\n\\")
    assert plain_event(frame_of(orjson.dumps(event))) == ("s", parse_event(event))
    del event[member]
    assert plain_event(frame_of(orjson.dumps(event))) is None


@pytest.mark.parametrize("odd", ["-0", "1.0", "1e0", "true", "null", '"1"'])
def test_the_short_way_takes_no_number_for_another(odd: str):
    text = orjson.dumps(good_event()).replace(b'"kind":1', b'"kind":' + odd.encode())
    hold_to_one_verdict(frame_of(text))
    assert plain_event(frame_of(text)) is None


def test_a_message_holds_what_the_event_alone_would_be():
    event = good_event(tags=[["t", "nostr"]])
    assert received(orjson.dumps(event)) == parse_event(event)
    odd = good_event(content="\0")
    assert received(orjson.dumps(odd)) == odd


def test_an_event_that_we_write_is_right():
    event = parse_event(sign_event("5" * 64, 20_166, [["relay", "x"]], "é\n\x01", CREATED_AT))
    assert event.pubkey == public_key("5" * 64)
    assert verify_signatures([event]) == [True]


def test_every_event_of_the_corpus_passes_and_comes_back():
    for path in sorted(SHARED_CORPUS.glob("events__*.jsonl")):
        events = [parse_event(received(line)) for line in path.read_bytes().splitlines()]
        assert all(verify_signatures(events))
        for event in events:
            assert storage_obstacle(event) is None
            assert parse_event(received(encode_event(event))) == event


def test_every_invalid_event_of_the_corpus_is_refused():
    path = SHARED_CORPUS / "invalid_events.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        if entry["reason"] == "bad-sig":
            assert verify_signatures([parse_event(entry["event"])]) == [False]
        else:
            assert reason_of(entry["event"]) in ("wrong-id", "malformed")
