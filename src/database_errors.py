"""What a database error means: whose fault it is, and whether trying again can help."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from errors import AccessDenied, BigBrotrError, DatabaseError, DatabaseFull, DatabaseUnavailable

# Class 28: role or password; 3D000: no such database; 42501: no permission.
_DENIED = ("28", "3D000", "42501")
# No room on the disk of the data directory or of a tablespace.
_FULL = "53100"
# Class 08: connection lost; 25006: a standby; class 53: too many connections, no memory;
# 57P01 to 57P05: the server goes down or starts.
_UNAVAILABLE = ("08", "25006", "53", "57P0")
# How often a transaction is tried: after a deadlock or a serialization failure; and when a row
# that it refers to was deleted meanwhile, or was never there.
_ATTEMPTS = {"40P01": 8, "40001": 8, "23503": 3}
# Class 22: data exception; 23502 and 23514: NOT NULL and CHECK; class 54: a program limit.
_ABOUT_A_ROW = ("22", "23502", "23514", "54")
# PgBouncer answers a client that it refuses with 08P01 and one of these texts.
_REFUSED_BY_PGBOUNCER = (
    "SASL authentication failed",
    "password authentication failed",
    "no such user",
    "no such database",
    "does not exist",
)


def attempts_worthwhile(error: asyncpg.PostgresError) -> int:
    """How often to try a transaction that ends in this error; 1 when it would only end so again."""
    return _ATTEMPTS.get(str(error.sqlstate), 1)


def is_about_a_row(error: asyncpg.PostgresError) -> bool:
    """Whether some row of the statement has a value that the table cannot hold."""
    return str(error.sqlstate).startswith(_ABOUT_A_ROW)


@contextmanager
def clear_errors(target: str) -> Iterator[None]:
    """Turns what asyncpg raises for an unusable database into AccessDenied, DatabaseFull or
    DatabaseUnavailable that name the `target`. Errors of a statement itself pass unchanged."""
    try:
        yield
    except BigBrotrError:
        raise
    except asyncpg.PostgresError as error:
        meaning = _meaning(error)
        if meaning is None:
            raise
        raise meaning(f"{target}: {_one_line(error)}{_ADVICE[meaning]}") from error
    except asyncpg.InterfaceError as error:
        if "clos" not in str(error):
            raise
        raise DatabaseUnavailable(f"{target}: {_one_line(error)}") from error
    except asyncpg.InternalClientError as error:
        # A server that dies between two messages leaves asyncpg's own state in disorder.
        raise DatabaseUnavailable(f"{target}: connection lost ({_one_line(error)})") from error
    except TimeoutError as error:
        raise DatabaseUnavailable(
            f"{target}: no answer in time; check that it is up and that POSTGRES_DB exists"
        ) from error
    except (ConnectionError, OSError) as error:
        raise DatabaseUnavailable(
            f"{target}: {_one_line(error)}; check POSTGRES_HOST, POSTGRES_PORT and that it is up"
        ) from error


def _meaning(error: asyncpg.PostgresError) -> type[DatabaseError] | None:
    sqlstate = str(error.sqlstate)
    if sqlstate.startswith(_DENIED):
        return AccessDenied
    if sqlstate == "08P01" and any(text in str(error) for text in _REFUSED_BY_PGBOUNCER):
        return AccessDenied
    if sqlstate == _FULL:
        return DatabaseFull
    if sqlstate.startswith(_UNAVAILABLE):
        return DatabaseUnavailable
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_ADVICE: dict[type[DatabaseError], str] = {
    AccessDenied: "; check POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB",
    DatabaseFull: (
        "; the database's disk is full: make room or enlarge it. Nothing committed is lost, and "
        "work goes on from there"
    ),
    DatabaseUnavailable: "",
}
