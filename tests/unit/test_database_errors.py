"""What asyncpg raises, and what it means."""

import asyncpg
import pytest
from asyncpg import exceptions

from database_errors import clear_errors
from errors import AccessDenied, DatabaseFull, DatabaseUnavailable


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (exceptions.DiskFullError("could not extend file"), DatabaseFull),
        (exceptions.TooManyConnectionsError("sorry"), DatabaseUnavailable),
        (exceptions.AdminShutdownError("terminating connection"), DatabaseUnavailable),
        (exceptions.ConnectionDoesNotExistError("connection was closed"), DatabaseUnavailable),
        (exceptions.InvalidPasswordError("password authentication failed"), AccessDenied),
        (exceptions.InvalidCatalogNameError("no such database"), AccessDenied),
        (exceptions.InsufficientPrivilegeError("permission denied"), AccessDenied),
        (asyncpg.InterfaceError("connection is closed"), DatabaseUnavailable),
        (
            asyncpg.InternalClientError("cannot switch to state 12; another operation (2)"),
            DatabaseUnavailable,
        ),
        (ConnectionResetError("reset by peer"), DatabaseUnavailable),
        (TimeoutError(), DatabaseUnavailable),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_an_unusable_database_is_named(error: Exception, meaning: type[Exception]) -> None:
    with pytest.raises(meaning, match=r"^the archive: ") as raised, clear_errors("the archive"):
        raise error
    assert raised.value.__cause__ is error
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        exceptions.UniqueViolationError("duplicate key"),
        exceptions.DeadlockDetectedError("deadlock"),
        asyncpg.InterfaceError("the number of columns is wrong"),
        ValueError("ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_statement_passes_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, clear_errors("the archive"):
        raise error
    assert raised.value is error
