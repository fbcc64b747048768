"""Raw data are read exactly, or rejected with file, row and cell."""

import datetime
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dags.workloads import raw
from dags.workloads.context import StepError

COLUMNS: dict[str, str | None] = {"query": "user", "item": "item", "rating": "rating", "timestamp": "time"}
HEADER = "user,item,rating,time\n"


def imported(path: Path, tmp_path: Path, file_format: str = "csv", **options: Any) -> list[tuple[Any, ...]]:
    folder = tmp_path / f"imported-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    raw.import_log(path, raw.LogFormat(file_format, COLUMNS, **options), 42, folder)
    names = {
        key: pq.read_table(folder / file).column("name").to_pylist()
        for key, file in (("query", raw.QUERIES), ("item", raw.ITEMS))
    }
    return [
        (names["query"][row["query"]], names["item"][row["item"]], row["rating"], row["timestamp"])
        for row in pq.read_table(folder / raw.EVENTS).to_pylist()
    ]


def csv_file(tmp_path: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ("u1,i1,4,881250949", ("u1", "i1", 4.0, 881250949)),
        ('"u""1","i,1",4.5,-5', ('u"1', "i,1", 4.5, -5)),
        ('"a\nb",ü,1e21,+7', ("a\nb", "ü", 1e21, 7)),
        ("001,1.0,-0,881250949.0", ("001", "1.0", 0.0, 881250949)),
        ("u,i,4,9223372036854775807", ("u", "i", 4.0, 9223372036854775807)),
        ("null,NaN,3,0", ("null", "NaN", 3.0, 0)),
    ],
)
def test_cells_are_what_they_say(tmp_path: Path, row: str, cells: tuple[Any, ...]) -> None:
    assert imported(csv_file(tmp_path, f"{HEADER}{row}\n"), tmp_path) == [cells]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"u,i,nan,1", "rating 'nan' is not a finite number"),
        (b"u,i,inf,1", "rating 'inf' is not a finite number"),
        (b"u,i,good,1", "rating 'good' is not a number"),
        (b"u,i,4,1.5", "timestamp '1.5' has a fraction"),
        (b"u,i,4,1e21", "timestamp '1e21' exceeds what a floating-point number holds exactly"),
        (b"u,i,4,9223372036854775808", "timestamp '9223372036854775808' exceeds 64 bits"),
        (b"u,i,4,0x10", "timestamp '0x10' is not an integer"),
        (b"u,i,4,2020-01-01", "timestamp '2020-01-01' is not an integer"),
        (b"u\xe9,i,4,1", r"query 'u\\xe9' is not UTF-8"),
        (b"u,i,4", "it has 3 cells, expected 4: 'u,i,4'"),
        (b"u,i,4,1,5", "it has 5 cells, expected 4: 'u,i,4,1,5'"),
    ],
)
def test_a_bad_cell_is_named_with_its_file_and_row(tmp_path: Path, row: bytes, message: str) -> None:
    path = csv_file(tmp_path, HEADER.encode() + b"a,b,1,1\na,c,1,2\n" + row + b"\nz,z,1,1\n")
    place = "row 4" if "cells" in message else f"row 4, column '{COLUMNS[message.split()[0]]}'"
    with pytest.raises(StepError, match=f"log.csv, {place}: {message}"):
        imported(path, tmp_path)


@pytest.mark.parametrize(
    ("row", "column"), [(b"u,i,,1", "rating"), (b"u,i,4,", "time"), (b",i,4,1", "user"), (b"u,,4,1", "item")]
)
def test_an_empty_cell_is_named_by_its_column(tmp_path: Path, row: bytes, column: str) -> None:
    path = csv_file(tmp_path, HEADER.encode() + row + b"\n")
    with pytest.raises(StepError, match=f"log.csv, row 2, column '{column}': the cell is empty"):
        imported(path, tmp_path)


@pytest.mark.parametrize(
    ("unit", "cell", "message"),
    [
        (
            "s",
            "881250949000",
            "timestamp '881250949000' is not a moment between 1980 and 2100 in seconds: set timestamp_unit='ms' in",
        ),
        ("ms", "881250949", "timestamp '881250949' is not a moment .* in milliseconds: set timestamp_unit='s' in"),
        ("s", "881250949000000000", "set timestamp_unit='ns' in"),
        ("s", "17", "set timestamp_unit=None in its DatasetInfo, where the numbers only order"),
        (
            "s",
            "2020-01-01",
            "timestamp '2020-01-01' is not an integer; expected seconds since 1970, such as 881250949;",
        ),
        (
            "ms",
            "1997-12-04 15:55:49",
            r"expected milliseconds .* 881250949000; .* pd.to_datetime\(log\['time'\], utc=True\)",
        ),
    ],
)
def test_a_wrong_unit_or_a_date_is_an_error_that_says_what_is_expected(
    tmp_path: Path, unit: str, cell: str, message: str
) -> None:
    moment = 881250949 * (1000 if unit == "ms" else 1)
    path = csv_file(tmp_path, f"{HEADER}a,b,1,{moment}\nu,i,4,{cell}\n")
    with pytest.raises(StepError, match=f"row 3, column 'time': .*{message}"):
        imported(path, tmp_path, timestamp_unit=unit)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("other", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("second", [315_532_800, 881_250_949, 4_102_444_800])
def test_no_unit_of_our_time_passes_for_another(tmp_path: Path, unit: str, other: str, second: int) -> None:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    path = csv_file(tmp_path, f"{HEADER}u,i,4,{second * factor}\n")
    if unit == other:
        assert imported(path, tmp_path, timestamp_unit=other)[0][3] == second * factor
    else:
        with pytest.raises(StepError, match=f"set timestamp_unit='{unit}'"):
            imported(path, tmp_path, timestamp_unit=other)


def test_cells_are_separated_by_the_declared_delimiter(tmp_path: Path) -> None:
    text = 'user;item;rating;time\nu;"i;1";4.5;7\n'
    assert imported(csv_file(tmp_path, text), tmp_path, delimiter=";") == [("u", "i;1", 4.5, 7)]
    for sign in (";", "\t", "|"):
        path = csv_file(tmp_path, text.replace(";", sign))
        with pytest.raises(
            StepError, match=re.escape(f"has no column user, item, rating, time; it has user{sign}")
        ) as error:
            imported(path, tmp_path)
        assert f"set delimiter={sign!r} in its DatasetInfo" in str(error.value)
    with pytest.raises(StepError) as error:
        imported(csv_file(tmp_path, "who;what\nu;i\n"), tmp_path)
    assert "delimiter" not in str(error.value)


def test_a_byte_order_mark_is_not_part_of_the_header(tmp_path: Path) -> None:
    assert imported(csv_file(tmp_path, b"\xef\xbb\xbf" + f"{HEADER}u,i,4,1\n".encode()), tmp_path)


def test_rows_are_counted_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "_BLOCK_BYTES", 1000)
    lines = [f"u{n},i{n % 7},4,{n}" for n in range(500)]
    lines[333] = "u333,i,nan,333"
    with pytest.raises(StepError, match=r"log.csv, row 335, column 'rating': rating 'nan'"):
        imported(csv_file(tmp_path, HEADER + "\n".join(lines)), tmp_path)


def test_files_of_a_folder_may_order_their_columns_differently(tmp_path: Path) -> None:
    csv_file(tmp_path, "user,item,rating,time\nu,i,4,1\n", "log/a.csv")
    csv_file(tmp_path, "item,more,time,user,rating\nj,x,2,v,5\n", "log/b.csv")
    csv_file(tmp_path, "not csv at all", "log/_SUCCESS")
    assert sorted(imported(tmp_path / "log", tmp_path)) == [("u", "i", 4.0, 1), ("v", "j", 5.0, 2)]


@pytest.mark.parametrize("name", ["{a}/[b].csv", "spaced out/lög*.csv", "what?.csv"])
def test_patterns_in_paths_are_letters(tmp_path: Path, name: str) -> None:
    assert len(imported(csv_file(tmp_path, f"{HEADER}u,i,4,1\n", name), tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: it has no header"),
        ("user,item,rating\nu,i,4\n", "has no column time; it has user, item, rating"),
        ("user,user,item,rating,time\nu,u,i,4,1\n", "more than one column 'user'"),
    ],
)
def test_headers_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StepError, match=message):
        imported(csv_file(tmp_path, text), tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("none.csv", "does not exist; put the data set's file there"),
        ("folder", "has no csv files"),
    ):
        with pytest.raises(StepError, match=message):
            imported(tmp_path / name, tmp_path)
    csv_file(tmp_path, "no parquet", "x.parquet")
    with pytest.raises(StepError, match=r"cannot read .*x.parquet"):
        imported(tmp_path / "x.parquet", tmp_path, "parquet")


def parquet(tmp_path: Path, times: pa.Array, users: pa.Array | None = None) -> Path:
    count = len(times)
    users = users if users is not None else pa.array([f"u{n}" for n in range(count)])
    table = pa.table({"user": users, "item": pa.array(range(count)), "rating": pa.array([4.0] * count), "time": times})
    path = tmp_path / "log.parquet"
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize(
    ("kind", "unit"),
    [(pa.timestamp("us"), 10**6), (pa.timestamp("ms", "Europe/Paris"), 1000), (pa.timestamp("ns"), 10**9)],
)
def test_moments_in_parquet_count_in_their_own_unit(tmp_path: Path, kind: pa.DataType, unit: int) -> None:
    moments = [datetime.datetime(2020, 1, 1, 0, 0, second, tzinfo=datetime.UTC) for second in range(3)]
    times = pa.array([moment.replace(tzinfo=None) if kind.tz is None else moment for moment in moments], kind)
    rows = imported(parquet(tmp_path, times), tmp_path, "parquet")
    start = 1577836800
    assert [row[3] for row in rows] == [(start + second) * unit for second in range(3)]
    assert [row[1] for row in rows] == ["0", "1", "2"]


def test_parquet_is_read_as_strictly(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"row 2, column 'time': timestamp '1.5' has a fraction"):
        imported(parquet(tmp_path, pa.array([1.0, 1.5])), tmp_path, "parquet")
    with pytest.raises(StepError, match="column 'user': query has the type double, expected text or an integer"):
        imported(parquet(tmp_path, pa.array([1, 2]), pa.array([1.0, 2.0])), tmp_path, "parquet")
    with pytest.raises(StepError, match="row 2, column 'user': the cell is empty"):
        imported(parquet(tmp_path, pa.array([1, 2]), pa.array(["u", None])), tmp_path, "parquet")
    with pytest.raises(StepError, match="exceeds 64 bits"):
        imported(parquet(tmp_path, pa.array([1, 2**63], pa.uint64())), tmp_path, "parquet")


def test_the_checksum_knows_content_and_not_order_or_format(tmp_path: Path) -> None:
    rows = [(f"u{n}", f"i{n * 7 % 11}", float(n % 5), n) for n in range(50)]

    def checksum(rows: list[tuple[str, str, float, int]], file_format: str = "csv") -> str:
        folder = tmp_path / f"c-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        path = folder / "log"
        if file_format == "csv":
            path.write_text(HEADER + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in rows))
        else:
            pq.write_table(
                pa.table([list(c) for c in zip(*rows, strict=True)], ["user", "item", "rating", "time"]), path
            )
        return raw.import_log(path, raw.LogFormat(file_format, COLUMNS), 1, folder).checksum

    one = checksum(rows)
    assert one.startswith("50-")
    assert one == checksum(rows[::-1]) == checksum(rows, "parquet")
    assert checksum([*rows[:-1], ("u49", rows[-1][1], 4.5, 49)]) != one
    assert checksum([(item, query, rating, time) for query, item, rating, time in rows]) != one
    assert checksum([*rows, rows[0]]) != one
