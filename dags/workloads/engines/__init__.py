"""Engines, which compute the tables of a step. The steps are Ibis expressions, the same for every engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...artifacts import Artifact
from ...storage import StoragePath

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Engine(Protocol):
    """Reads, caches and writes the tables of one step."""

    name: str

    def file(self, path: Path) -> ir.Table:
        """One Parquet file as a table."""

    def table(self, artifact: Artifact, name: str) -> ir.Table:
        """One table of an artifact."""

    def keep(self, table: ir.Table) -> ir.Table:
        """The same table, computed only once, when it is first used."""

    def write(self, table: ir.Table, artifact: Artifact, name: str) -> None:
        """Writes a table into an artifact."""

    def values(self, table: ir.Table) -> list[dict[str, object]]:
        """The rows of a small table."""

    def close(self) -> None:
        """Releases the engine's resources."""


def open_engine(name: str, *, cores: int, memory_gib: int, scratch: Path, exchange: StoragePath | None) -> Engine:
    """The engine `embedded` or `spark`.

    `scratch` is a folder for data that do not fit into memory; `exchange` is one for files that a driver passes to
    executors, or None if they can read `scratch`. Both are removed after the step. Raises ValueError for any other
    name.
    """
    if name == "embedded":
        from .embedded import EmbeddedEngine

        return EmbeddedEngine(cores=cores, memory_gib=memory_gib, scratch=scratch)
    if name == "spark":
        from .spark import SparkEngine

        return SparkEngine(exchange)
    raise ValueError(f"unknown engine {name!r}; known: embedded, spark")
