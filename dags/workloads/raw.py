"""Raw interactions as every engine sees them: one strict reader with a given schema, in constant memory.

CSV is UTF-8 with a header, cells separated by one delimiter and quoted as in RFC 4180; columns are found by name, so
the files of a folder may order them differently. Query and item are text (or integers in Parquet), never empty. A
rating is a finite number. A timestamp is an integer of 64 bits, or a number without a fraction, in the declared unit;
date and time columns in Parquet have the unit in which they are stored, and are UTC if they have no time zone. Anything
else is an error that names the file, the row (the header of a CSV file is row 1), the column, the cell and the expected
values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ..raw_files import raw_files
from .context import StepError
from .raw_cells import RawCells

KEYS = ("query", "item", "rating", "timestamp")
EVENTS, QUERIES, ITEMS = "events.parquet", "queries.parquet", "items.parquet"
_BLOCK_BYTES = 8 << 20
_BATCH_ROWS = 1 << 18
_SHOWN = 80
# Delimiters of other files.
_DELIMITERS = (",", ";", "\t", "|")

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class RawLog:
    """The result of an import: rows, distinct queries and items, and the content's checksum."""

    rows: int
    queries: int
    items: int
    checksum: str


@dataclass(frozen=True, slots=True)
class LogFormat:
    """The format of the files; `columns` are the names for `KEYS`, None for a column that does not exist.

    Without `timestamp_unit` (`s`, `ms`, `us`, `ns`), timestamps are integers that only define an order.
    """

    file_format: str
    columns: Mapping[str, str | None]
    delimiter: str = ","
    timestamp_unit: str | None = None

    @property
    def names_by_key(self) -> dict[str, str]:
        """The columns that exist."""
        return {key: name for key, name in self.columns.items() if name is not None}


def import_log(path: Path, log_format: LogFormat, seed: int, folder: Path) -> RawLog:
    """Writes events, queries and items into `folder`, for the engine to read.

    Events are query and item (positions in their tables), rating, timestamp, and `shuffle`: 63 bits of a hash over
    seed, query and item. Queries and items are position and name, ordered by the names' UTF-8 bytes. Without a
    rating column every rating is infinite, without timestamps all are 0. The checksum is `<rows>-<16 hex digits>`,
    the sum modulo 2^64 of a hash over each row's four values: equal for any order and file format of the same rows.
    It finds accidents, not forgeries. Raises StepError for anything that cannot be read for certain.
    """
    names = {"query": _Names(), "item": _Names()}
    provisional = folder / "provisional.parquet"
    rows = 0
    total = 0
    with pq.ParquetWriter(provisional, _EVENT_SCHEMA, compression="lz4") as writer:
        for batch in _batches(path, log_format):
            query, item = (names[key].positions(batch.column(key)) for key in ("query", "item"))
            rating = batch.column("rating").to_numpy(zero_copy_only=False) + 0.0
            timestamp = batch.column("timestamp").to_numpy(zero_copy_only=False)
            keys = [names["query"].hashes[query], names["item"].hashes[item]]
            hashes = _row_hashes(*keys, rating.view(np.uint64), timestamp.view(np.uint64))
            total = (total + int(hashes.sum(dtype=np.uint64))) % 2**64
            seeds = np.full(len(query), seed, np.int64).view(np.uint64)
            shuffle = (_row_hashes(seeds, *keys) >> np.uint64(1)).view(np.int64)
            writer.write_table(pa.table([query, item, rating, timestamp, shuffle], schema=_EVENT_SCHEMA))
            rows += len(query)
    order = {key: names[key].write(folder / file) for key, file in (("query", QUERIES), ("item", ITEMS))}
    _renumber(provisional, folder / EVENTS, order)
    provisional.unlink()
    return RawLog(rows, len(order["query"]), len(order["item"]), f"{rows}-{total:016x}")


_EVENT_SCHEMA = pa.schema(
    [
        ("query", pa.int32()),
        ("item", pa.int32()),
        ("rating", pa.float64()),
        ("timestamp", pa.int64()),
        ("shuffle", pa.int64()),
    ]
)


class _Names:
    """Distinct names in the order of their first appearance, with a hash of each."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self.hashes: Hashes = np.empty(0, np.uint64)

    def positions(self, column: pa.Array) -> npt.NDArray[np.int32]:
        encoded = column.dictionary_encode()
        distinct: list[int] = []
        fresh: list[bytes] = []
        for name in encoded.dictionary.to_pylist():
            if name not in self._positions:
                self._positions[name] = len(self._positions)
                fresh.append(hashlib.blake2b(name.encode(), digest_size=8).digest())
            distinct.append(self._positions[name])
        self.hashes = np.concatenate([self.hashes, np.frombuffer(b"".join(fresh), "<u8")])
        return np.asarray(distinct, np.int32)[encoded.indices.to_numpy()]

    def write(self, path: Path) -> npt.NDArray[np.int32]:
        """Writes the table of names; returns the final position of each provisional one."""
        ordered = sorted(self._positions, key=str.encode)
        order = np.empty(len(ordered), np.int32)
        order[[self._positions[name] for name in ordered]] = np.arange(len(ordered), dtype=np.int32)
        positions = pa.array(np.arange(len(ordered), dtype=np.int32))
        pq.write_table(pa.table({"position": positions, "name": pa.array(ordered, pa.string())}), path)
        return order


def _renumber(provisional: Path, events: Path, order: Mapping[str, npt.NDArray[np.int32]]) -> None:
    with pq.ParquetFile(provisional) as source, pq.ParquetWriter(events, _EVENT_SCHEMA, compression="lz4") as writer:
        for batch in source.iter_batches(_BATCH_ROWS):
            renumbered = [order[key][batch.column(key).to_numpy()] for key in ("query", "item")]
            writer.write_table(pa.table([*renumbered, *batch.columns[2:]], schema=_EVENT_SCHEMA))


def _row_hashes(*values: Hashes) -> Hashes:
    """One hash per row over its values: the finalizer of SplitMix64 (Steele, Lea and Flood 2014), chained."""
    mixed = np.full(len(values[0]), 0x9E3779B97F4A7C15, np.uint64)
    for value in values:
        mixed = (mixed ^ value) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def _batches(path: Path, log_format: LogFormat) -> Iterator[pa.RecordBatch]:
    """Batches of query, item, rating and timestamp, checked."""
    read = {"csv": _read_csv, "parquet": _read_parquet}.get(log_format.file_format)
    if read is None:
        raise StepError(f"unknown file format {log_format.file_format!r}; known: csv, parquet")
    for file in _files(path, log_format.file_format):
        try:
            for first_row, cells in read(file, log_format):
                yield _checked(file, first_row, cells, log_format)
        except (pa.ArrowException, OSError) as error:
            raise StepError(f"cannot read {file}: {error}") from error


def _files(path: Path, file_format: str) -> Sequence[Path]:
    files = raw_files(path)
    if files:
        return files
    if path.is_dir():
        raise StepError(f"raw data are missing: folder {path} has no {file_format} files")
    raise StepError(
        f"raw data are missing: {path} does not exist; put the data set's file there, "
        "or set log_path in its DatasetInfo"
    )


def _check_header(file: Path, names: Sequence[str], log_format: LogFormat) -> None:
    expected = log_format.names_by_key.values()
    missing = [name for name in expected if name not in names]
    if missing:
        header = log_format.delimiter.join(names)
        other = next((sign for sign in _DELIMITERS if set(expected) <= set(header.split(sign))), None)
        hint = f"; set delimiter={other!r} in its DatasetInfo" if other else ""
        raise StepError(f"{file} has no column {', '.join(missing)}; it has {', '.join(names)}{hint}")
    doubled = [name for name in expected if list(names).count(name) > 1]
    if doubled:
        raise StepError(f"{file} has more than one column {doubled[0]!r}")


Cells = dict[str, pa.Array]


def _read_csv(file: Path, log_format: LogFormat) -> Iterator[tuple[int, Cells]]:
    names_by_key = log_format.names_by_key
    broken: list[pyarrow.csv.InvalidRow] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    if file.stat().st_size == 0:
        raise StepError(f"{file} is empty: it has no header")
    with pyarrow.csv.open_csv(
        file,
        pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        pyarrow.csv.ParseOptions(delimiter=log_format.delimiter, newlines_in_values=True, invalid_row_handler=note),
        # As bytes, so that invalid UTF-8 is detected and named here.
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names_by_key.values(), pa.binary()), strings_can_be_null=False
        ),
    ) as reader:
        _check_header(file, reader.schema.names, log_format)
        row = 2
        for batch in reader:
            if broken:
                bad = broken[0]
                place = f"row {bad.number}" if bad.number is not None else f"a row after row {row - 1}"
                raise StepError(
                    f"{file}, {place}: it has {bad.actual_columns} cells, expected {bad.expected_columns}: "
                    f"{bad.text[:_SHOWN]!r}"
                )
            yield row, {key: batch.column(reader.schema.names.index(name)) for key, name in names_by_key.items()}
            row += batch.num_rows


def _read_parquet(file: Path, log_format: LogFormat) -> Iterator[tuple[int, Cells]]:
    names_by_key = log_format.names_by_key
    with pq.ParquetFile(file) as source:
        _check_header(file, source.schema_arrow.names, log_format)
        row = 1
        for batch in source.iter_batches(_BATCH_ROWS, columns=list(names_by_key.values())):
            yield row, {key: batch.column(batch.schema.names.index(name)) for key, name in names_by_key.items()}
            row += batch.num_rows


def _checked(file: Path, first_row: int, cells: Cells, log_format: LogFormat) -> pa.RecordBatch:
    rows = len(next(iter(cells.values())))
    arrays = []
    for key in KEYS:
        if key not in cells:
            arrays.append(pa.array(np.full(rows, np.inf)) if key == "rating" else pa.array(np.zeros(rows, np.int64)))
            continue
        column = cells[key]
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        check = RawCells(file, first_row, key, log_format.names_by_key[key], column, log_format.timestamp_unit)
        arrays.append(check.names() if key in ("query", "item") else getattr(check, f"{key}s")())
    return pa.record_batch(arrays, names=list(KEYS))
