"""Log lines: one record is one line on standard output, whatever text a relay puts into it.

A message is an emoji, a space and `fields("event_name", key=value, ...)`.
"""

import logging
import re
import sys
from typing import Final

_BARE_VALUE: Final = re.compile(r"""[^\s"'=\\]+""")
_LONGEST_VALUE: Final = 500
_SHORT_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def setup_logging(service_name: str, level: str = "INFO") -> None:
    """Send the log of this process to standard output in the format of the specification.

    May be called again: the later call wins. `level` is a name of the logging module.
    """
    handler = logging.StreamHandler(sys.stdout)
    # A "%" in the name must not be taken for a format field.
    name = service_name.replace("%", "%%")
    handler.setFormatter(_OneLineFormatter(f"%(asctime)s - {name} - %(levelname)s - %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Its pool warns, with a traceback, each time it cannot reconnect in the background; that the
    # database is lost is what the statement in need of a connection says, once.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)


def fields(event: str, **values: object) -> str:
    """`event key=value ...`: values with white space, quotes or `=` are quoted, characters that
    would break or disguise a line are escaped, and long values are cut."""
    return " ".join((event, *(f"{key}={_value(value)}" for key, value in values.items())))


def _value(value: object) -> str:
    text = str(round(value, 6)) if isinstance(value, float) else str(value)
    if len(text) > _LONGEST_VALUE:
        text = text[:_LONGEST_VALUE] + "…"
    if text.isprintable() and _BARE_VALUE.fullmatch(text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escape(quoted)}"'


def _escape(text: str) -> str:
    """`text` with every character that is not printable (line breaks of all kinds, terminal
    escapes, bidirectional overrides, lone surrogates) written as an escape sequence."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in _JOINERS
        else _SHORT_ESCAPES.get(character) or _code(character)
        for character in text
    )


# Parts of emoji, harmless in a log line.
_JOINERS: Final = "\ufe0f\u200d"


def _code(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _OneLineFormatter(logging.Formatter):
    """Escapes the message; a traceback follows on lines that cannot pass for records."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = _escape(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        first, *traceback = super().format(record).splitlines()
        return "\n".join((first, *(f"    | {_escape(line)}" for line in traceback)))
