"""Which files of init/ are left to apply, and which databases are refused."""

from pathlib import Path

import pytest

from errors import SchemaMismatch
from migrate import Migration, pending_migrations, read_migrations, server_problem

FILES = tuple(
    Migration(number, name, "SELECT 1", f"{number:064x}")
    for number, name in enumerate(("one", "two", "three"), start=1)
)


def test_nothing_applied_leaves_all() -> None:
    assert pending_migrations(FILES, {}) == FILES


def test_applied_files_are_left_out_also_when_only_psql_has_seen_them() -> None:
    applied = {1: FILES[0].checksum, 2: None}
    assert pending_migrations(FILES, applied) == FILES[2:]


def test_a_newer_database_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match=r"version 4, this code knows 3.*newer BigBrotr"):
        pending_migrations(FILES, {4: None})


def test_a_changed_file_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match=r"init/002_two\.sql is not the file"):
        pending_migrations(FILES, {1: FILES[0].checksum, 2: "f" * 64})


@pytest.mark.parametrize(
    "names", [[], ["001_a.sql", "001_b.sql"], ["002_a.sql"], ["1_a.sql"], ["001_A.sql"]]
)
def test_files_must_be_numbered(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(SchemaMismatch):
        read_migrations(tmp_path)


def test_a_number_may_be_left_out(tmp_path: Path) -> None:
    """Files are written side by side, and a later one may be ready first."""
    for name in ("001_a.sql", "003_b.sql"):
        (tmp_path / name).write_text("SELECT 1;")
    one, three = read_migrations(tmp_path)
    assert (one.version, three.version) == (1, 3)
    assert pending_migrations((one, three), {3: None}) == (one,)
    with pytest.raises(SchemaMismatch, match="version 4, this code knows 3"):
        pending_migrations((one, three), {4: None})


def test_files_record_themselves() -> None:
    for migration in read_migrations():
        assert f"({migration.version}, '{migration.name}')" in migration.sql


@pytest.mark.parametrize(
    ("version", "encoding", "problem"),
    [
        (150_000, "UTF8", None),
        (180_004, "UTF8", None),
        (140_011, "UTF8", "PostgreSQL 14 is too old: use 15 or newer"),
        (150_018, "SQL_ASCII", "its encoding is SQL_ASCII: create it with ENCODING 'UTF8'"),
    ],
)
def test_servers(version: int, encoding: str, problem: str | None) -> None:
    assert server_problem(version, encoding) == problem
