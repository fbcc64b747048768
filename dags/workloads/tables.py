"""Reads and writes an artifact's tables in this process, with pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ..artifacts import Artifact

PART = "part-00000.parquet"


def rows(artifact: Artifact, name: str) -> int:
    """The number of rows of a table, from the footers of its files."""
    count = 0
    for part in artifact.parts(name):
        with part.open() as file:
            count += int(pq.read_metadata(file).num_rows)
    return count


def read(artifact: Artifact, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A complete table, or some of its columns, with the rows of its files one after the other."""
    pieces = []
    for part in artifact.parts(name):
        with part.open() as file:
            pieces.append(pq.ParquetFile(file).read(list(columns) if columns else None))
    return pa.concat_tables(pieces)


def batches(artifact: Artifact, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A table, one piece at a time."""
    for part in artifact.parts(name):
        with part.open() as file, pq.ParquetFile(file) as rows_of_part:
            yield from rows_of_part.iter_batches(1 << 18, columns=list(columns) if columns else None)


def write(artifact: Artifact, name: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> int:
    """Writes a table piece by piece to one file; returns its number of rows."""
    count = 0
    with (
        (artifact.make_table(name) / PART).local_file() as path,
        pq.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        for piece in pieces:
            writer.write_table(piece)
            count += piece.num_rows
    return count
