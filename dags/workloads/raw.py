"""Raw interactions as every engine sees them: one reading, strict, with the schema given, in flat memory.

CSV is UTF-8 with a header, cells parted by commas and quoted as in RFC 4180; columns are taken by name, so that the
files of a folder may order them differently. Query and item are text (or integers in Parquet), never empty. A rating
is a finite number. A timestamp is an integer of 64 bits, or a number without a fraction; columns of dates and times
in Parquet count in the unit in which they are stored, those without a time zone as UTC. Anything else is an error
that names the file, the row (the header of a CSV file is row 1) and the cell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from .context import StepError

KEYS = ("query", "item", "rating", "timestamp")
EVENTS, QUERIES, ITEMS = "events.parquet", "queries.parquet", "items.parquet"
_BLOCK_BYTES = 8 << 20
_BATCH_ROWS = 1 << 18
_SHOWN = 80
_INTEGER = r"^[+-]?[0-9]+$"

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class RawLog:
    """What was imported: rows, distinct queries and items, and the content's checksum."""

    rows: int
    queries: int
    items: int
    checksum: str


def import_log(path: Path, file_format: str, columns: Mapping[str, str | None], seed: int, folder: Path) -> RawLog:
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
        for batch in _batches(path, file_format, columns):
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


def _batches(path: Path, file_format: str, columns: Mapping[str, str | None]) -> Iterator[pa.RecordBatch]:
    """Batches of query, item, rating and timestamp, checked."""
    names_by_key = {key: name for key, name in columns.items() if name is not None}
    read = {"csv": _read_csv, "parquet": _read_parquet}.get(file_format)
    if read is None:
        raise StepError(f"unknown file format {file_format!r}; known: csv, parquet")
    for file in _files(path, file_format):
        try:
            for first_row, cells in read(file, names_by_key):
                yield _checked(file, first_row, cells)
        except (pa.ArrowException, OSError) as error:
            raise StepError(f"cannot read {file}: {error}") from error


def _files(path: Path, file_format: str) -> Sequence[Path]:
    if not path.is_dir():
        if not path.exists():
            raise StepError(f"raw data are missing: {path} does not exist")
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
    if not files:
        raise StepError(f"raw data are missing: folder {path} has no {file_format} files")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _column_positions(file: Path, names: Sequence[str], names_by_key: Mapping[str, str]) -> None:
    missing = [name for name in names_by_key.values() if name not in names]
    if missing:
        raise StepError(f"{file} has no column {', '.join(missing)}; it has {', '.join(names)}")
    doubled = [name for name in names_by_key.values() if list(names).count(name) > 1]
    if doubled:
        raise StepError(f"{file} has more than one column {doubled[0]!r}")


Cells = dict[str, pa.Array]


def _read_csv(file: Path, names_by_key: Mapping[str, str]) -> Iterator[tuple[int, Cells]]:
    broken: list[pyarrow.csv.InvalidRow] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    if file.stat().st_size == 0:
        raise StepError(f"{file} is empty: it has no header")
    with pyarrow.csv.open_csv(
        file,
        pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        # As bytes: what is no UTF-8 is then ours to find and name.
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names_by_key.values(), pa.binary()), strings_can_be_null=False
        ),
    ) as reader:
        _column_positions(file, reader.schema.names, names_by_key)
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


def _read_parquet(file: Path, names_by_key: Mapping[str, str]) -> Iterator[tuple[int, Cells]]:
    with pq.ParquetFile(file) as source:
        _column_positions(file, source.schema_arrow.names, names_by_key)
        row = 1
        for batch in source.iter_batches(_BATCH_ROWS, columns=list(names_by_key.values())):
            yield row, {key: batch.column(batch.schema.names.index(name)) for key, name in names_by_key.items()}
            row += batch.num_rows


def _checked(file: Path, first_row: int, cells: Cells) -> pa.RecordBatch:
    rows = len(next(iter(cells.values())))
    arrays = []
    for key in KEYS:
        if key not in cells:
            arrays.append(pa.array(np.full(rows, np.inf)) if key == "rating" else pa.array(np.zeros(rows, np.int64)))
            continue
        column = cells[key]
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        check = _Cells(file, first_row, key, column)
        arrays.append(check.names() if key in ("query", "item") else getattr(check, f"{key}s")())
    return pa.record_batch(arrays, names=list(KEYS))


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of one column, from `first_row` of `file` on."""

    file: Path
    first_row: int
    key: str
    column: pa.Array

    def names(self) -> pa.Array:
        self._refuse(pc.is_null(self.column), "is empty")
        if pa.types.is_integer(self.column.type):
            return self.column.cast(pa.string())
        return self._text("text or an integer")

    def ratings(self) -> pa.Array:
        self._refuse(pc.is_null(self.column), "is empty")
        if pa.types.is_boolean(self.column.type) or _is_number(self.column.type):
            numbers = self.column.cast(pa.float64(), safe=False)
        else:
            text = self._text("a number")
            try:
                numbers = text.cast(pa.float64())
            except pa.ArrowInvalid:
                self._refuse(pc.invert(_parses(text, pa.float64())), "is not a number")
                raise
        self._refuse(pc.invert(pc.is_finite(numbers)), "is not a finite number")
        return numbers

    def timestamps(self) -> pa.Array:
        self._refuse(pc.is_null(self.column), "is empty")
        kind = self.column.type
        if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
            return self.column.cast(pa.int64())
        if pa.types.is_date32(kind):
            return self.column.cast(pa.int32()).cast(pa.int64())
        if pa.types.is_integer(kind):
            wide = self.column.cast(pa.int64(), safe=False)
            self._refuse(pc.not_equal(wide.cast(kind, safe=False), self.column), "exceeds 64 bits")
            if pa.types.is_uint64(kind):
                self._refuse(pc.less(wide, 0), "exceeds 64 bits")
            return wide
        if _is_number(kind):
            return self._integers(self.column.cast(pa.float64(), safe=False))
        text = self._text("an integer")
        whole = pc.match_substring_regex(text, _INTEGER)
        if pc.all(whole).as_py() is not False:
            plain = pc.replace_substring_regex(text, r"^\+", "")
            try:
                return plain.cast(pa.int64())
            except pa.ArrowInvalid:
                self._refuse(pc.invert(_parses(plain, pa.int64())), "exceeds 64 bits")
                raise
        try:
            numbers = text.cast(pa.float64())
        except pa.ArrowInvalid:
            self._refuse(pc.invert(_parses(text, pa.float64())), "is not an integer")
            raise
        # Whole numbers among others keep their digits, which a double would round.
        exact = pc.if_else(whole, pc.replace_substring_regex(text, r"^\+", ""), "0").cast(pa.int64())
        fractions = self._integers(pc.if_else(whole, 0.0, numbers))
        return pc.if_else(whole, exact, fractions)

    def _integers(self, numbers: pa.Array) -> pa.Array:
        self._refuse(pc.invert(pc.is_finite(numbers)), "is not a finite number")
        self._refuse(
            pc.not_equal(pc.floor(numbers), numbers),
            "has a fraction; store moments as integers of the unit that you need, such as milliseconds",
        )
        self._refuse(pc.greater_equal(pc.abs(numbers), 2.0**53), "exceeds what a floating-point number holds exactly")
        return numbers.cast(pa.int64())

    def _text(self, expected: str) -> pa.Array:
        text = self._decoded(expected)
        self._refuse(pc.equal(pc.binary_length(text), 0), "is empty")
        return text

    def _decoded(self, expected: str) -> pa.Array:
        kind = self.column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return self.column.cast(pa.string())
        if not pa.types.is_binary(kind):
            raise StepError(f"{self.file}: column of {self.key} has the type {kind}, expected {expected}")
        try:
            return self.column.cast(pa.string())
        except pa.ArrowInvalid:
            bad = [not _is_utf8(cell) for cell in self.column.to_pylist()]
            self._refuse(pa.array(bad), "is not UTF-8")
            raise

    def _refuse(self, bad: pa.Array, why: str) -> None:
        """Raises StepError for the first cell that is bad."""
        if pc.any(bad).as_py() is not True:
            return
        place = pc.index(bad, True).as_py()
        cell = self.column[place].as_py()
        text = "" if cell in (None, "", b"") else f" {_shown(cell)}"
        raise StepError(f"{self.file}, row {self.first_row + place}: {self.key}{text} {why}")


def _shown(cell: object) -> str:
    if isinstance(cell, bytes):
        # As Python writes bytes, without its prefix; letters that are UTF-8 stay letters.
        text = cell.decode("utf-8", errors="backslashreplace")
        return repr(text[:_SHOWN]) if _is_utf8(cell) else f"'{text[:_SHOWN]}'"
    return repr(str(cell)[:_SHOWN])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _parses(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Whether each cell can be cast; slow, for finding the one that cannot."""

    def parses(cell: pa.Scalar) -> bool:
        try:
            cell.cast(kind)
        except pa.ArrowInvalid:
            return False
        return True

    return pa.array([parses(cell) for cell in text], pa.bool_())


def _is_utf8(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True
