"""Messages of relays, read without trust; messages to relays, as NIP-01 has them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import MessageMalformed
from nostr import messages
from nostr.messages import (
    Auth,
    Closed,
    Count,
    Eose,
    EventMessage,
    Message,
    NegError,
    NegMessage,
    Notice,
    Ok,
    Unknown,
    decode_message,
)

SHARED_CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ('["EVENT","s",{"id":"x"}]', EventMessage("s", {"id": "x"})),
        ('["EVENT","s",null,"more"]', EventMessage("s", None)),
        ('["EOSE","s"]', Eose("s", "")),
        ('["EOSE","s",["finish"]]', Eose("s", "finish")),
        ('["EOSE","s",["x","more"]]', Eose("s", "more")),
        ('["EOSE","s",["finish","more"]]', Eose("s", "more")),
        ('["EOSE","s",["other"]]', Eose("s", "")),
        ('["EOSE","s","finish"]', Eose("s", "")),
        ('["EOSE","s",[{"finish":1},null]]', Eose("s", "")),
        (
            '["CLOSED","s","auth-required: sign in"]',
            Closed("s", "auth-required", "auth-required: sign in"),
        ),
        ('["CLOSED","s","ERROR: bad req: x"]', Closed("s", "error", "ERROR: bad req: x")),
        ('["CLOSED","s","we do not like you: bye"]', Closed("s", "", "we do not like you: bye")),
        ('["CLOSED","s","gone"]', Closed("s", "", "gone")),
        ('["CLOSED","s"]', Closed("s", "", "")),
        ('["CLOSED","s",null]', Closed("s", "", "")),
        ('["NOTICE","slow down"]', Notice("slow down")),
        ('["OK","id",true,""]', Ok("id", True, "", "")),
        ('["OK","id",true]', Ok("id", True, "", "")),
        ('["OK","id",false,"pow: 20"]', Ok("id", False, "pow", "pow: 20")),
        ('["AUTH","challenge"]', Auth("challenge")),
        ('["COUNT","s",{"count":5}]', Count("s", 5, False)),
        ('["COUNT","s",{"count":5,"approximate":true,"hll":"00"}]', Count("s", 5, True)),
        ('["NEG-MSG","s","61"]', NegMessage("s", "61")),
        ('["NEG-ERR","s","blocked: too big",5]', NegError("s", "blocked", "blocked: too big", 5)),
        ('["NEG-ERR","s","closed: idle","5"]', NegError("s", "closed", "closed: idle")),
        ('["NEG-ERR","s","closed: idle",-1]', NegError("s", "closed", "closed: idle")),
        ('["NEW","s"]', Unknown("NEW")),
        ('["event","s",{}]', Unknown("event")),
    ],
)
def test_messages_are_read(frame: str, message: Message):
    assert decode_message(frame.encode()) == message


@pytest.mark.parametrize(
    "frame",
    [
        *("", " ", "x", "null", "1", '"EVENT"', "{}", "[]", "[1]", "[null]", "[[]]"),
        *('["EVENT"]', '["EVENT","s"]', '["EVENT",1,{}]', '["EVENT",null,{}]'),
        *('["EOSE"]', '["EOSE",1]', '["CLOSED"]', '["CLOSED",{}]', '["NOTICE"]', '["NOTICE",1]'),
        *('["OK","id"]', '["OK","id","true",""]', '["OK",1,true,""]', '["OK","id",1,""]'),
        *('["AUTH"]', '["AUTH",{}]', '["COUNT","s"]', '["COUNT","s",5]', '["COUNT","s",{}]'),
        *('["COUNT","s",{"count":true}]', '["COUNT","s",{"count":-1}]'),
        *('["COUNT","s",{"count":1.5}]', '["NEG-MSG","s"]', '["NEG-ERR"]'),
        *("[" * 100_000, "9" * 100_000, '["EVENT","s",' + "[" * 2_000 + "]" * 2_000 + "]"),
        '["EVENT","s",{"tags":[[' + '{"a":' * 3_000,
    ],
)
def test_what_is_no_message_is_malformed(frame: str):
    with pytest.raises(MessageMalformed):
        decode_message(frame.encode())


@given(
    st.binary(max_size=40)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map(lambda text: text.encode())
)
def test_any_bytes_are_a_message_or_malformed(frame: bytes):
    try:
        decode_message(frame)
    except MessageMalformed:
        return


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
VERBS = ["EVENT", "EOSE", "CLOSED", "NOTICE", "OK", "AUTH", "COUNT", "NEG-MSG", "NEG-ERR", "X"]


@given(st.sampled_from(VERBS), st.lists(JSON, max_size=4))
def test_any_array_is_a_message_or_malformed(verb: str, rest: list[object]):
    try:
        message = decode_message(json.dumps([verb, *rest]).encode())
    except MessageMalformed:
        return
    assert type(message) in messages.Message.__args__


def test_messages_to_relays():
    event = {"id": "x", "content": "é\n"}
    assert [
        json.loads(frame)
        for frame in (
            messages.encode_req("s", {"kinds": [1]}, {"limit": 0}),
            messages.encode_close("s"),
            messages.encode_event_message(event),
            messages.encode_auth(event),
            messages.encode_count("s", {"kinds": [1]}),
            messages.encode_neg_open("s", {"kinds": [1]}, b"\x61\x00"),
            messages.encode_neg_message("s", b"\x61"),
            messages.encode_neg_close("s"),
        )
    ] == [
        ["REQ", "s", {"kinds": [1]}, {"limit": 0}],
        ["CLOSE", "s"],
        ["EVENT", event],
        ["AUTH", event],
        ["COUNT", "s", {"kinds": [1]}],
        ["NEG-OPEN", "s", {"kinds": [1]}, "6100"],
        ["NEG-MSG", "s", "61"],
        ["NEG-CLOSE", "s"],
    ]


def test_every_recorded_message_is_read():
    for path in SHARED_CORPUS.glob("relay_messages__*.jsonl"):
        read = [decode_message(line) for line in path.read_bytes().splitlines()]
        assert sum(type(message) is EventMessage for message in read) == len(read) - 1
