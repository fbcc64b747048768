"""The embedded engine: DuckDB inside this process."""

from __future__ import annotations

import glob
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import ibis

from ...artifacts import Artifact
from ..tables import PART

if TYPE_CHECKING:
    import ibis.expr.types as ir

# Memory of the process besides DuckDB's buffers.
_DATABASE_SHARE = 0.6


class EmbeddedEngine:
    """Tables in DuckDB with a memory limit; larger data are written to `scratch`."""

    name = "embedded"

    def __init__(self, *, cores: int, memory_gib: float, scratch: Path) -> None:
        self._scratch = scratch
        self._names = (f"replayctl_{number}" for number in itertools.count())
        self._connection = ibis.duckdb.connect(
            threads=cores,
            memory_limit=f"{max(256, int(memory_gib * 1024 * _DATABASE_SHARE))}MB",
            temp_directory=str(scratch),
            # No table depends on the order of its rows, and preserving it costs memory.
            preserve_insertion_order=False,
        )

    def file(self, path: Path) -> ir.Table:
        """One Parquet file as a table."""
        return self._connection.read_parquet([glob.escape(str(path))], table_name=next(self._names))

    def table(self, artifact: Artifact, name: str) -> ir.Table:
        """One table of an artifact; ArtifactError when it has no such table."""
        # DuckDB takes every path for a pattern.
        table = next(self._names)
        parts = enumerate(artifact.parts(name))
        files = [part.local_copy(self._scratch / f"{table}-{number}.parquet") for number, part in parts]
        return self._connection.read_parquet([glob.escape(str(file)) for file in files], table_name=table)

    def keep(self, table: ir.Table) -> ir.Table:
        """The same table, computed now."""
        return self._connection.create_table(next(self._names), table, temp=True)

    def write(self, table: ir.Table, artifact: Artifact, name: str) -> None:
        """Writes a table as one Parquet file."""
        with (artifact.make_table(name) / PART).local_file() as path:
            self._connection.to_parquet(table, str(path), compression="zstd")

    def values(self, table: ir.Table) -> list[dict[str, object]]:
        """The rows of a small table."""
        rows: list[dict[str, object]] = self._connection.to_pyarrow(table).to_pylist()
        return rows

    def close(self) -> None:
        """Closes the database."""
        self._connection.disconnect()
