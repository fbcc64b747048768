"""A migration that is interrupted is undone by the next start; a finished one stays."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from replayctl.local import databases


def fill(database: Path, *tables: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for table in tables:
            connection.execute(f"create table {table} (a)")
        connection.commit()


def tables(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {name for (name,) in connection.execute("select name from sqlite_master")}


def test_a_first_migration_that_is_cut_begins_again_with_nothing(tmp_path: Path) -> None:
    database = tmp_path / "some.db"
    databases.begin_migration(database, "v1")
    fill(database, "_alembic_tmp_jobs")
    databases.begin_migration(database, "v1")
    assert not database.exists()
    fill(database, "jobs")
    databases.end_migration(database, "v1")
    assert databases.is_current(database, "v1")
    databases.begin_migration(database, "v1")
    assert tables(database) == {"jobs"}


@pytest.mark.parametrize("cuts", [0, 1, 2])
def test_a_later_migration_that_is_cut_loses_nothing(tmp_path: Path, cuts: int) -> None:
    database = tmp_path / "some.db"
    fill(database, "experiments")
    for _ in range(cuts + 1):
        databases.begin_migration(database, "v2")
        assert tables(database) == {"experiments"}
        fill(database, "half")
    databases.end_migration(database, "v2")
    assert tables(database) == {"experiments", "half"}
    assert {path.name for path in tmp_path.iterdir()} == {"some.db", "database-version"}


def test_a_file_that_is_not_a_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "some.db").write_text("not a database, but long enough to be read as a page of one" * 40)
    with pytest.raises(OSError, match="not a database"):
        databases.begin_migration(tmp_path / "some.db", "v1")
