"""Negentropy V1: two sets come to know their difference, and hostile bytes do no harm."""

from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from errors import MessageMalformed
from negentropy_server import NegentropyServer, fingerprint, varint
from nostr.negentropy import FRAME_BYTES, MAX_MESSAGE_BYTES, Negentropy

V1 = b"\x61"
Item = tuple[int, str]


def item(number: int, second: int = 1_700_000_000) -> Item:
    return second, sha256(str(number).encode()).hexdigest()


def ids(items: set[Item]) -> set[str]:
    return {id_ for _, id_ in items}


def converse(
    ours: set[Item], theirs: set[Item], *, frame_bytes: int = FRAME_BYTES, their_frame: int = 10**9
) -> tuple[Negentropy, list[bytes]]:
    """The client at the end, and the messages that it sent."""
    client = Negentropy(ours, frame_bytes=frame_bytes)
    server = NegentropyServer(theirs, their_frame)
    sent = []
    message: bytes | None = client.initiate()
    while message is not None:
        sent.append(message)
        assert len(sent) < 2_000, "no end"
        message = client.reconcile(server.answer(message))
    return client, sent


# Ids that share long beginnings, so that bounds need many bytes of them.
CLOSE_IDS = st.binary(min_size=1, max_size=2).map(lambda end: (end.rjust(32, b"\0")).hex())
FAR_IDS = st.integers(0, 300).map(lambda number: item(number)[1])
SECONDS = st.sampled_from([0, 1, 2, 127, 128, 2**32, 2**63, 2**64 - 2]) | st.integers(0, 50)
OURS, THEIRS, BOTH = range(3)
# By id, as an id covers its second: the second, and whose the item is.
SETS = st.dictionaries(
    CLOSE_IDS | FAR_IDS,
    st.tuples(SECONDS, st.sampled_from([OURS, THEIRS, BOTH, BOTH, BOTH])),
    max_size=300,
)


@given(SETS, st.sampled_from([4_096, FRAME_BYTES]), st.sampled_from([300, 10**9]))
def test_two_sets_come_to_know_their_difference(
    items: dict[str, tuple[int, int]], frame: int, their_frame: int
) -> None:
    ours = {(second, id_) for id_, (second, whose) in items.items() if whose != THEIRS}
    theirs = {(second, id_) for id_, (second, whose) in items.items() if whose != OURS}
    client, sent = converse(ours, theirs, frame_bytes=frame, their_frame=their_frame)
    assert client.have == ids(ours - theirs)
    assert client.need == ids(theirs - ours)
    assert client.need_count == len(client.need)
    assert all(len(message) <= frame for message in sent)


def test_equal_sets_take_one_message() -> None:
    for count in (0, 1, 31, 32, 1_000):
        items = {item(number, second=number // 7) for number in range(count)}
        client, sent = converse(items, items)
        assert len(sent) == 1
        assert (client.have, client.need) == (frozenset(), frozenset())


def test_large_sets_cost_their_difference() -> None:
    items = [item(number, second=1_600_000_000 + number // 3) for number in range(100_000)]
    ours, theirs = set(items[7:]), set(items[:-5]) - {items[50_000]}
    client, sent = converse(ours, theirs)
    assert client.have == ids(ours - theirs)
    assert client.need == ids(theirs - ours)
    assert len(sent) <= 6
    assert sum(map(len, sent)) < 30_000


@pytest.mark.parametrize("their_frame", [5_000, 10**9])
def test_large_differences_stay_within_the_frame(their_frame: int) -> None:
    items = [item(number, second=number % 1_000) for number in range(20_000)]
    ours, theirs = set(items[:15_000]), set(items[::2])
    client, sent = converse(ours, theirs, frame_bytes=8_000, their_frame=their_frame)
    assert client.have == ids(ours - theirs)
    assert client.need == ids(theirs - ours)
    assert max(map(len, sent)) <= 8_000


def test_messages_are_those_of_the_specification() -> None:
    """A bound at infinity is 0 and no prefix; the list holds ids in order."""
    one, two = (5, "01" * 32), (9, "02" * 32)
    listed = bytes.fromhex("01" * 32 + "02" * 32)
    assert Negentropy([two, one, two]).initiate() == V1 + b"\x00\x00\x02\x02" + listed
    assert Negentropy([]).initiate() == V1 + b"\x00\x00\x02\x00"
    many = [(n // 2, f"{n:064x}") for n in range(32)]
    first = fingerprint([(n // 2, bytes.fromhex(f"{n:064x}")) for n in range(2)])
    # Sixteen parts; the first ends where second 1 begins: 1 + 1 - 0, no prefix needed.
    assert Negentropy(many).initiate().startswith(V1 + b"\x02\x00\x01" + first + b"\x02\x00\x01")


def test_skipped_ranges_become_one_and_the_last_is_left_out() -> None:
    items = [(n, f"{n:064x}") for n in range(320)]
    client = Negentropy(items)
    client.initiate()
    wrong, right = bytes(16), fingerprint([(n, bytes.fromhex(f"{n:064x}")) for n in range(20)])
    answer = V1 + b"\x15\x00\x01" + right + b"\x03\x00\x00" + b"\x06\x00\x01" + wrong
    reply = client.reconcile(answer)
    # 22 seconds are skipped, then come the five whose fingerprint was wrong.
    assert reply is not None
    assert reply.startswith(V1 + b"\x17\x00\x00" + b"\x06\x00\x02\x05")
    assert reply.endswith(b"".join(bytes.fromhex(f"{n:064x}") for n in range(22, 27)))


BEFORE_END = b"\x05\x00"  # the bound "second 4"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x60",
        b"\x62\x00\x00\x00",
        V1 + b"\x05",
        V1 + b"\x05\x00",
        V1 + BEFORE_END + b"\x03",
        V1 + BEFORE_END + b"\x01" + bytes(15),
        V1 + BEFORE_END + b"\x02\x01" + bytes(31),
        V1 + BEFORE_END + b"\x02" + varint(2**63),
        V1 + BEFORE_END + b"\x02" + varint(MAX_MESSAGE_BYTES // 32 + 1),
        V1 + b"\x05\x21" + bytes(33) + b"\x00",
        V1 + b"\xff" * 11,
        V1 + b"\x05\x02\x05\x01\x00" + b"\x01\x01\x05\x00",
        V1 + varint(2**63) + b"\x00\x00" + varint(2**63 + 5) + b"\x00\x00",
        V1 + varint(2**69) + b"\x00\x00",
        V1 + b"\x01\x00\x00" * 60_000,
        V1 + b"\x00" * MAX_MESSAGE_BYTES,
    ],
    ids=lambda answer: answer[:12].hex() or "empty",
)
def test_what_is_no_message_is_refused(answer: bytes) -> None:
    client = Negentropy([item(n) for n in range(100)])
    client.initiate()
    with pytest.raises(MessageMalformed):
        client.reconcile(answer)


@given(st.binary(max_size=300))
@example(b"\x00\x00\x02\x00")
@example(b"\x00\x00\x00\x00\x00\x00")
def test_any_bytes_are_a_message_or_refused(rest: bytes) -> None:
    client = Negentropy([item(n, second=n) for n in range(200)], frame_bytes=4_096)
    client.initiate()
    try:
        reply = client.reconcile(V1 + rest)
    except MessageMalformed:
        return
    assert reply is None or reply.startswith(V1)
    assert reply is None or len(reply) <= 4_096


def test_items_that_are_none_are_refused() -> None:
    for wrong in ((-1, "00" * 32), (2**64 - 1, "00" * 32), (1, "00" * 31), (1, "zz" * 32)):
        with pytest.raises(ValueError, match=r"not an item|hexadecimal"):
            Negentropy([wrong])
    with pytest.raises(ValueError, match="frame_bytes"):
        Negentropy([], frame_bytes=100)
