"""The log format, and that no text can forge or break a line."""

import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import constants
from logging_config import fields, setup_logging

RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - ([A-Z_]+) - ([A-Z]+) - (.*)")


@pytest.fixture(autouse=True)
def _restore_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level


def test_the_format_of_the_specification(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("MONITOR")
    logging.getLogger("some.module").info("✅ cycle_done relays=3")
    logging.getLogger("some.module").debug("not at this level")
    match = RECORD.fullmatch(capsys.readouterr().out.rstrip("\n"))
    assert match is not None
    assert match.groups() == ("MONITOR", "INFO", "✅ cycle_done relays=3")


def test_libraries_are_quiet_and_levels_settable(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("X", "DEBUG")
    logging.getLogger("aiohttp.access").info("noise")
    logging.getLogger("asyncio").debug("noise")
    logging.getLogger("mine").debug("detail")
    assert [line[-6:] for line in capsys.readouterr().out.splitlines()] == ["detail"]


def test_a_second_call_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("FIRST")
    setup_logging("SECOND")
    logging.getLogger("x").warning("once")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert " - SECOND - " in lines[0]


def test_a_name_with_a_percent_sign(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("100%(x)s")
    logging.getLogger("x").warning("fine")
    assert " - 100%(x)s - WARNING - fine" in capsys.readouterr().out


def test_fields() -> None:
    text = fields("event_name", url="wss://a.example", count=3, text="two words", rate=0.5)
    assert text == 'event_name url=wss://a.example count=3 text="two words" rate=0.5'
    assert fields("x") == "x"
    assert fields("x", empty="", none=None) == 'x empty="" none=None'
    assert fields("x", quote='say "hi"', back="a\\b") == r'x quote="say \"hi\"" back="a\\b"'
    assert fields("x", lines="a\nb\r\tc") == r'x lines="a\nb\r\tc"'
    assert fields("x", forged="a b=c") == 'x forged="a b=c"'
    assert fields("x", terminal="\x1b[2J", bidi="\u202eabc") == (
        r'x terminal="\u001b[2J" bidi="\u202eabc"'
    )
    assert fields("x", error=ValueError("no\nway")) == r'x error="no\nway"'


def test_long_values_are_cut() -> None:
    assert len(fields("x", notice="a" * 1_000_000)) < 600


@given(st.text(alphabet=st.characters(codec=None, exclude_categories=())))
def test_any_text_stays_one_quoted_value_on_one_line(text: str) -> None:
    line = fields("x", value=text)
    assert len(line.splitlines()) == 1
    # Of what cannot be printed, only the joiners of emoji stay.
    assert line.replace("\ufe0f", "").replace("\u200d", "").isprintable()
    assert re.fullmatch(r'x value=([^\s"=]+|"(?:[^"\\]|\\.)*")', line)
    line.encode()


def test_messages_with_line_breaks_stay_one_record(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("MONITOR")
    forged = "2025-01-03 12:34:56,789 - MONITOR - INFO - all is well"
    for separator in ("\n", "\r\n", "\u2028", "\x85", "\x0b"):
        logging.getLogger("x").error(f"❌ notice {separator}{forged}")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(" - ERROR - ❌ notice \\" in line for line in lines)


def test_tracebacks_cannot_pass_for_records(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("MONITOR")
    try:
        raise ValueError("bad\n2025-01-03 12:34:56,789 - MONITOR - INFO - all is well\x1b[2J")
    except ValueError:
        logging.getLogger("x").exception("❌ boom")
    first, *rest = capsys.readouterr().out.splitlines()
    assert RECORD.fullmatch(first)
    assert rest
    assert all(line.startswith("    | ") for line in rest)
    assert "\x1b" not in "".join(rest)


def test_each_emoji_survives(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("MONITOR")
    for emoji in constants.LOG_EMOJIS:
        logging.getLogger("x").info(f"{emoji} event")
    assert [line.split(" - ")[-1] for line in capsys.readouterr().out.splitlines()] == [
        f"{emoji} event" for emoji in constants.LOG_EMOJIS
    ]
