"""Reading `.env`, by the rules of Docker Compose as far as env.example uses them."""

import re
from collections.abc import Mapping
from pathlib import Path

from errors import ConfigError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def parse(text: str, source: str = ".env") -> dict[str, str]:
    """The variables of a `.env` text: `NAME=value` lines, `#` comments, optional quotes.

    Raises ConfigError that names the line which is none of that.
    """
    variables: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ConfigError(f"{source} line {number} is not NAME=value: correct or remove it")
        variables[found[1]] = _value(found[2])
    return variables


def _value(text: str) -> str:
    for quote in ("'", '"'):
        if text.startswith(quote) and (end := text.find(quote, 1)) > 0:
            return text[1:end]
    # An unquoted value ends at a comment.
    return re.split(r"\s+#|^#", text, maxsplit=1)[0].rstrip()


def read(path: Path) -> Mapping[str, str]:
    """The variables of the file; raises ConfigError when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: run `make env`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse(text, str(path))
