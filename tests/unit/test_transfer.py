"""Files of events: lines, batches, whole files, the words of the refusals."""

import io
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transfer.reading
from components.odd_events import EVENTS, OddEvent, serialized_again
from components.sample_events import sample_event
from errors import FileUnusable, MessageMalformed
from nostr.events import encode_event, parse_event
from transfer.files import reading, split_lines, writing
from transfer.importing import BATCH_BYTES, BATCH_LINES, batches
from transfer.lines import SeenAt, decode_line, encode_line
from transfer.progress import Progress
from transfer.selection import Selection, event_conditions

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROOT = Path(__file__).parents[2]


@given(EVENTS, st.none() | st.lists(st.builds(SeenAt, st.text("a/é:", max_size=9), st.just(5))))
def test_a_line_is_the_event(event: OddEvent, relays: list[SeenAt] | None) -> None:
    parsed = parse_event(decode_line(event.wire)[0])
    line = encode_line(parsed, relays)
    assert line.count(b"\n") == 1
    again, listed = decode_line(line)
    assert parse_event(again) == parsed
    assert listed == [{"url": url, "seen_at": seen_at} for url, seen_at in relays or []]
    assert serialized_again(encode_line(parsed), event.spelling) == event.serialized


def test_an_event_object_with_a_member_named_event_is_not_a_wrapper() -> None:
    event = sample_event()
    line = b'{"event":{},"relays":[1],' + encode_event(event)[1:]
    obj, relays = decode_line(line)
    assert parse_event(obj) == event
    assert relays == []


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b'{"a":NaN}', b"[" * 100_000])
def test_what_is_not_json_is_malformed(line: bytes) -> None:
    with pytest.raises(MessageMalformed):
        decode_line(line)


@given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"x", b"\n")), max_size=12))
def test_lines_do_not_depend_on_the_chunks(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert list(split_lines(iter(chunks))) == list(enumerate(expected, 1))


def test_a_line_that_is_too_long_is_not_held() -> None:
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        yield b"first\n12345678\n123456789\n"
        for _ in range(1_000):
            taken += 1
            yield b"x" * 7
        yield b"\nlast"

    lines = list(split_lines(chunks(), max_bytes=8))
    assert taken == 1_000
    assert lines == [(1, b"first"), (2, b"12345678"), (3, None), (4, None), (5, b"last")]
    assert list(split_lines(iter([b"123456789"]), max_bytes=8)) == [(1, None)]


@given(st.lists(st.integers(0, 40), max_size=60))
def test_batches_of_an_import_are_bounded(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfer.importing.BATCH_LINES", 5)
        patch.setattr("transfer.importing.BATCH_BYTES", 50)
        lines = [(number, b"x" * size) for number, size in enumerate(sizes)]
        found = list(batches(iter(lines)))
    assert [line for batch in found for line in batch] == [line for line in lines if line[1]]
    for batch in found:
        assert len(batch) <= 5
        assert len(batch) == 1 or sum(len(line or b"") for _, line in batch) <= 50


def test_an_import_reads_no_further_than_its_batch() -> None:
    taken = 0

    def lines() -> Iterator[tuple[int, bytes]]:
        nonlocal taken
        for taken in range(1, 10**9):
            yield taken, b"x" * 100

    assert len(next(batches(lines()))) == BATCH_LINES
    assert taken == BATCH_LINES + 1
    assert BATCH_BYTES > BATCH_LINES


async def test_batches_of_an_export_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.reading, "BATCH_EVENTS", 4)
    monkeypatch.setattr(transfer.reading, "BATCH_BYTES", 100)
    sizes = [10, 10, 10, 10, 10, 200, 50, 50, 1, 99, 101, 1]

    async def keys() -> AsyncIterator[transfer.reading._Key]:
        for size in sizes:
            yield transfer.reading._Key(False, 0, str(size), size, False)

    found = [[key.bytes for key in batch] async for batch in transfer.reading._batches(keys())]
    assert found == [[10, 10, 10, 10], [10], [200], [50, 50], [1, 99], [101], [1]]


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, compress: bool) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"older\n")

    def fail() -> None:
        with writing(str(target), compress=compress) as write:
            write(b"half")
            assert len(list(tmp_path.iterdir())) == 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert target.read_bytes() == b"older\n"
    with writing(str(target), compress=compress) as write:
        write(b"one\ntw")
        write(b"o\n")
        assert target.read_bytes() == b"older\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with reading(str(target)) as lines:
        assert list(lines) == [(1, b"one"), (2, b"two")]


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with writing(str(link)) as write:
        write(b"x")
    assert link.is_symlink()
    assert target.read_bytes() == b"x"
    with writing("/dev/null") as write:
        write(b"x")
    assert Path("/dev/null").is_char_device()


def test_a_full_disk_is_named() -> None:
    with pytest.raises(FileUnusable, match="/dev/full: No space left"):
        with writing("/dev/full") as write:
            write(b"x")


def test_zstd_files_one_after_another_are_one(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(zstd.compress(b"one\ntw") + zstd.compress(b"o\n" * 500_000))
    with reading(str(path)) as lines:
        found = list(lines)
    assert found[:2] == [(1, b"one"), (2, b"two")]
    assert len(found) == 500_001


@pytest.mark.parametrize("cut", [5, 20, -1])
def test_a_zstd_file_that_is_cut_off_is_an_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "in.zst"
    path.write_bytes(zstd.compress(bytes(range(256)) * 50 + b"\n")[:cut])
    with pytest.raises(FileUnusable, match="not a whole zstd file"), reading(str(path)) as lines:
        list(lines)


@pytest.mark.parametrize("content", [b"", b"\x28", b"\x28\xb5\n", b"a", b"abc"])
def test_short_files_are_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in"
    path.write_bytes(content)
    with reading(str(path)) as lines:
        assert b"".join(line or b"" for _, line in lines) == content.strip()


def test_values_of_a_filter_are_parameters() -> None:
    hostile = "'; DROP TABLE events; --"
    conditions = event_conditions(Selection({"#t": [hostile], "ids": ["0" * 64]}))
    assert hostile not in conditions.where
    assert conditions.parameters == (["0" * 64], [f"t:{hostile}"])


def test_progress_is_told_now_and_then_and_at_the_end() -> None:
    stream, times = io.StringIO(), iter([0.0, 1.0, 3.0, 4.0, 5.0])
    progress = Progress("export", stream, lambda: next(times))
    for done in (10, 3_000, 4_000):
        progress.show(done, "x")
    progress.show(5_000, "x", last=True)
    assert stream.getvalue().splitlines() == [
        "export: 3,000 events, x, 1,000 events/s",
        "export: done: 5,000 events, x, 1,000 events/s",
    ]


def test_reasons_of_the_import_are_explained() -> None:
    code = (ROOT / "src/transfer/importing.py").read_text()
    reasons = set(re.findall(r'(?:EventRefused\(|_Refusal\(\w+(?:\.\w+)*, )"([a-z-]+)"', code))
    reasons |= {f"relay-{reason}" for reason in re.findall(r'reasons\.append\("([a-z-]+)"', code)}
    assert {"malformed-line", "line-too-long", "wrong-signature", "relay-malformed"} == reasons
    page = (ROOT / "docs/export.md").read_text()
    assert reasons <= set(re.findall(r"`([a-z-]+)`", page))
