"""Cells of raw interactions, read strictly: an error names file, row, column and cell of an invalid one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from .context import StepError

_SHOWN = 80
_INTEGER = r"^[+-]?[0-9]+$"
# From 1980 to 2100, in seconds since 1970. In another unit, no moment of these years is in this range.
_OUR_TIME_S = (315_532_800, 4_102_444_800)


class _Unit(NamedTuple):
    name: str
    per_second: int


_UNITS = {
    "s": _Unit("seconds", 1),
    "ms": _Unit("milliseconds", 1_000),
    "us": _Unit("microseconds", 1_000_000),
    "ns": _Unit("nanoseconds", 1_000_000_000),
}


@dataclass(frozen=True, slots=True)
class RawCells:
    """The cells of the column `name`, from `first_row` of `file` on; `key` is their role."""

    file: Path
    first_row: int
    key: str
    name: str
    column: pa.Array
    unit: str | None

    def names(self) -> pa.Array:
        """Text, never empty."""
        self._refuse(pc.is_null(self.column), "is empty")
        if pa.types.is_integer(self.column.type):
            return self.column.cast(pa.string())
        return self._text("text or an integer")

    def ratings(self) -> pa.Array:
        """Finite numbers."""
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
        """Integers, of the declared unit."""
        self._refuse(pc.is_null(self.column), "is empty")
        kind = self.column.type
        if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
            return self.column.cast(pa.int64())
        if pa.types.is_date32(kind):
            return self.column.cast(pa.int32()).cast(pa.int64())
        moments = self._moments(kind)
        if self.unit is not None:
            self._check_unit(moments, self.unit)
        return moments

    def _check_unit(self, moments: pa.Array, unit: str) -> None:
        """Raises StepError for timestamps outside our time, which have another unit."""
        wrong = pc.invert(_is_of_our_time(moments, unit))
        if pc.any(wrong).as_py() is not True:
            return
        moment = moments.slice(pc.index(wrong, True).as_py(), 1)
        fitting = next((other for other in _UNITS if pc.all(_is_of_our_time(moment, other)).as_py()), None)
        why = "" if fitting else ", where the numbers only order"
        advice = f"set timestamp_unit={fitting!r} in its DatasetInfo{why}"
        self._refuse(wrong, f"is not a moment between 1980 and 2100 in {_UNITS[unit].name}: {advice}")

    def _moments(self, kind: pa.DataType) -> pa.Array:
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
            self._refuse(pc.invert(_parses(text, pa.float64())), f"is not an integer; {self._expected()}")
            raise
        # Integers among other numbers keep their digits, which a double would round.
        exact = pc.if_else(whole, pc.replace_substring_regex(text, r"^\+", ""), "0").cast(pa.int64())
        fractions = self._integers(pc.if_else(whole, 0.0, numbers))
        return pc.if_else(whole, exact, fractions)

    def _expected(self) -> str:
        """The expected form of a timestamp, and how to convert dates to it with pandas."""
        unit = self.unit or "s"
        example = "" if self.unit is None else f", such as {881250949 * _UNITS[unit].per_second}"
        column = f"log[{self.name!r}]"
        cast = f'.astype("datetime64[{unit}, UTC]").astype("int64")'
        return (
            f"expected {_UNITS[unit].name} since 1970{example}; dates are converted in pandas by "
            f"{column} = pd.to_datetime({column}, utc=True){cast}"
        )

    def _integers(self, numbers: pa.Array) -> pa.Array:
        self._refuse(pc.invert(pc.is_finite(numbers)), "is not a finite number")
        self._refuse(
            pc.not_equal(pc.floor(numbers), numbers),
            f"has a fraction; {self._expected()}",
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
            raise StepError(f"{self.file}, column {self.name!r}: {self.key} has the type {kind}, expected {expected}")
        try:
            return self.column.cast(pa.string())
        except pa.ArrowInvalid:
            bad = [not _is_utf8(cell) for cell in self.column.to_pylist()]
            self._refuse(pa.array(bad), "is not UTF-8")
            raise

    def _refuse(self, bad: pa.Array, why: str) -> None:
        """Raises StepError for the first invalid cell."""
        if pc.any(bad).as_py() is not True:
            return
        place = pc.index(bad, True).as_py()
        cell = self.column[place].as_py()
        subject = "the cell" if cell in (None, "", b"") else f"{self.key} {_shown(cell)}"
        where = f"{self.file}, row {self.first_row + place}, column {self.name!r}"
        raise StepError(f"{where}: {subject} {why}")


def _shown(cell: object) -> str:
    if isinstance(cell, bytes):
        # As Python writes bytes, without the prefix; letters in valid UTF-8 are shown as letters.
        text = cell.decode("utf-8", errors="backslashreplace")
        return repr(text[:_SHOWN]) if _is_utf8(cell) else f"'{text[:_SHOWN]}'"
    return repr(str(cell)[:_SHOWN])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _parses(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Whether each cell can be cast; slow, and only used to find the one that cannot."""

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


def _is_of_our_time(moments: pa.Array, unit: str) -> pa.Array:
    early, late = (second * _UNITS[unit].per_second for second in _OUR_TIME_S)
    return pc.and_(pc.greater_equal(moments, early), pc.less_equal(moments, late))
