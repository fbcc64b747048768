"""An artifact's tables read and written in this process, by pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ..artifacts import Artifact


def rows(artifact: Artifact, name: str) -> int:
    """How many rows a table has, from the footers of its files."""
    return sum(int(pq.read_metadata(part).num_rows) for part in artifact.parts(name))


def read(artifact: Artifact, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole table, or some of its columns, with the rows of its files one after the other."""
    files = artifact.parts(name)
    return pa.concat_tables([pq.ParquetFile(part).read(list(columns) if columns else None) for part in files])


def batches(artifact: Artifact, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A table a piece at a time."""
    for part in artifact.parts(name):
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(1 << 18, columns=list(columns) if columns else None)


def write(artifact: Artifact, name: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> int:
    """Writes a table piece by piece as one file; returns its rows."""
    folder = artifact.path / name
    folder.mkdir()
    count = 0
    with pq.ParquetWriter(folder / "part-00000.parquet", schema, compression="zstd") as writer:
        for piece in pieces:
            writer.write_table(piece)
            count += piece.num_rows
    return count
