"""The sqlite databases of the stack, created or migrated safely: an interrupted migration loses nothing.

A killed migration can leave tables behind that make every later one fail. The database is therefore copied before
another version changes it, and a file marks the migration as in progress. If that file exists at the next start, the
copy is restored, or the database is created from scratch when there was none.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from replayctl.local.disk import write_private


def is_current(database: Path, version: str) -> bool:
    """Whether this version has created the database or completed its migration."""
    try:
        return database.is_file() and _version_file(database).read_text(encoding="utf-8") == version
    except (OSError, UnicodeDecodeError):
        return False


def begin_migration(database: Path, version: str) -> None:
    """Call before this version opens the database; undoes an interrupted migration. Raises OSError for a full disk."""
    if is_current(database, version):
        return
    if _progress_file(database).exists():
        _discard(database)
        if _copy(database).exists():
            _copy(database).replace(database)
    if database.exists():
        _save(database)
    write_private(_progress_file(database), version)


def end_migration(database: Path, version: str) -> None:
    """Call after the program has started with the database. Raises OSError for a full disk."""
    if is_current(database, version) and not _progress_file(database).exists():
        return
    write_private(_version_file(database), version)
    _progress_file(database).unlink(missing_ok=True)
    _copy(database).unlink(missing_ok=True)


def _save(database: Path) -> None:
    """Copies the database, including its write-ahead log."""
    temporary = database.with_name(f".{database.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(temporary)) as target:
            source.backup(target)
        temporary.replace(_copy(database))
    except sqlite3.Error as error:
        raise OSError(None, f"sqlite: {error}", str(database)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _discard(database: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _version_file(database: Path) -> Path:
    return database.with_name("database-version")


def _progress_file(database: Path) -> Path:
    return database.with_name("database-migrating")


def _copy(database: Path) -> Path:
    return database.with_name(f"{database.name}.before-migration")
