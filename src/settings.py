"""Readers of environment variables: from text to a typed value, or a one-line ConfigError.

They know no variable by name; `config` does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from errors import ConfigError

PLACEHOLDER: Final = "CHANGE_ME"

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_LONGEST_SECRET: Final = 4_096


@dataclass(frozen=True, slots=True)
class Settings:
    """The variables whose names start with `prefix`.

    `fallback` is looked at for a variable that is absent or empty here; without one, an empty
    variable is an error wherever a value is needed.
    """

    environ: Mapping[str, str]
    prefix: str = ""
    fallback: "Settings | None" = None

    def name(self, key: str) -> str:
        """The full name of the variable that `key` is read from, for messages."""
        return self._owner(key).prefix + key

    def given(self, key: str) -> bool:
        """Whether the variable has a value."""
        return bool(self._raw(key))

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a `default` it must be given."""
        raw = self._raw(key)
        if raw:
            return raw
        if default is not None and raw is None:
            return default
        problem = "is not set" if raw is None else "is empty"
        advice = f"give it a value, or remove it for {default!r}" if default else "give it a value"
        raise ConfigError(f"{self.name(key)} {problem}: {advice}")

    def integer(self, key: str, default: int) -> int:
        """A whole number, in decimal digits."""
        raw = self.text(key, str(default))
        digits = raw.removeprefix("-")
        # int() alone would accept "1_000" and digits of other scripts.
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
            raise self._wrong(key, raw, "give a whole number")
        return int(raw)

    def decimal(self, key: str, default: float) -> float:
        """A finite number, with or without decimals."""
        raw = self.text(key, f"{default:g}")
        try:
            number = float(raw)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or "_" in raw:
            raise self._wrong(key, raw, "give a number such as 15 or 0.5")
        return number

    def flag(self, key: str, default: bool) -> bool:
        """`true` or `false` (also yes/no, on/off, 1/0)."""
        raw = self.text(key, str(default).lower())
        if raw.lower() in _TRUE:
            return True
        if raw.lower() in _FALSE:
            return False
        raise self._wrong(key, raw, "give true or false")

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of `allowed`, in upper case."""
        raw = self.text(key, default)
        if raw.upper() not in allowed:
            raise self._wrong(key, raw, f"give one of {', '.join(allowed)}")
        return raw.upper()

    def secret(self, key: str) -> str:
        """A secret, from the variable or from the file that `<key>_FILE` names.

        No message ever holds its value. The placeholder of env.example is refused.
        """
        value = self.optional_secret(key)
        if value is None:
            problem = "is empty" if self._raw(key) is not None else "is not set"
            raise ConfigError(
                f"{self.name(key)} {problem}: give the secret, "
                f"or name a file that holds it with {self.name(key)}_FILE"
            )
        return value

    def optional_secret(self, key: str) -> str | None:
        """Like `secret`, but None when neither variable has a value."""
        file_key = f"{key}_FILE"
        name = self.name(key)
        if self.given(file_key):
            if self.given(key):
                raise ConfigError(f"{name} and {name}_FILE are both set: remove one of them")
            name = self.name(file_key)
            value = _read_secret(name, self.text(file_key))
        elif self.given(key):
            value = self.text(key)
        else:
            return None
        if PLACEHOLDER in value.upper():
            raise ConfigError(f"{name} still has the placeholder {PLACEHOLDER}: choose a secret")
        return value

    def _owner(self, key: str) -> "Settings":
        if self.fallback is None or self.environ.get(self.prefix + key, "").strip():
            return self
        return self.fallback._owner(key)

    def _raw(self, key: str) -> str | None:
        owner = self._owner(key)
        value = owner.environ.get(owner.prefix + key)
        return None if value is None else value.strip()

    def _wrong(self, key: str, raw: str, advice: str) -> ConfigError:
        return ConfigError(f"{self.name(key)} is {raw[:100]!r}: {advice}")


def _read_secret(name: str, path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8") as file:
            value = file.read(_LONGEST_SECRET + 1).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"{name}: cannot read {path!r} ({reason}): name a readable file"
        ) from error
    if not value or len(value) > _LONGEST_SECRET or not value.isprintable():
        raise ConfigError(f"{name}: {path!r} does not hold one line with the secret")
    return value
