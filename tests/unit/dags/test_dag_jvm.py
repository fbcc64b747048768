"""The JVM of a Spark step: by what the step computes with, and by what the worker has."""

from pathlib import Path

import pytest

from dags.dag_jvm import ARCHIVE_VARIABLE, LIGHT_ROWS, is_light, jvm_conf, rows_of


def options(environ: dict[str, str] | None = None, *, light: bool = True) -> str:
    return jvm_conf(environ or {}, light=light)["spark.driver.extraJavaOptions"]


def step(**kwargs: object) -> dict[str, object]:
    return {"parameters": {"class_path": "replay.models.X", "kwargs": kwargs}}


def test_light_work_is_compiled_once_with_a_stack_that_is_deep_enough() -> None:
    assert "-XX:TieredStopAtLevel=1" in options()
    assert "-Xss" in options()
    assert "Tiered" not in options(light=False)
    assert "-Xss" not in options(light=False)


@pytest.mark.parametrize(
    ("rows", "kwargs", "light"),
    [
        (0, {}, True),
        (LIGHT_ROWS, {"num_neighbours": 1000}, True),
        (LIGHT_ROWS + 1, {"num_neighbours": 1000}, False),
        (100_000, {"rank": 32}, True),
        (300_000, {"rank": 32}, True),
        (100_000, {"rank": 100}, False),
        (900_000, {"rank": 10}, True),
        (900_000, {"rank": 32}, False),
        (LIGHT_ROWS + 1, {"rank": 1}, False),
        (100, {"rank": "many"}, True),
    ],
)
def test_what_is_light_goes_by_rows_and_by_the_rank_of_a_model(
    rows: int, kwargs: dict[str, object], light: bool
) -> None:
    assert is_light(step(**kwargs), [{"raw_rows": rows}]) == light
    assert is_light({"parameters": {}}, [{"raw_rows": rows}]) == (rows <= LIGHT_ROWS)


def test_work_of_unknown_size_is_not_light() -> None:
    assert not is_light(step(), [])


def test_an_archive_of_classes_is_used_where_it_exists(tmp_path: Path) -> None:
    archive = tmp_path / "with a space.jsa"
    environ = {ARCHIVE_VARIABLE: str(archive)}
    assert "SharedArchiveFile" not in options(environ)
    archive.touch()
    assert f'"-XX:SharedArchiveFile={archive}"' in options(environ)


def test_the_class_path_of_an_archive_comes_with_it(tmp_path: Path) -> None:
    environ = {ARCHIVE_VARIABLE: str(tmp_path / "spark.jsa")}
    (tmp_path / "spark.classpath").write_text("/opt/spark/jars/a.jar:/opt/spark/jars/b.jar")
    assert "spark.driver.extraClassPath" not in jvm_conf(environ, light=True)
    (tmp_path / "spark.jsa").touch()
    assert jvm_conf(environ, light=True)["spark.driver.extraClassPath"] == "/opt/spark/jars/a.jar:/opt/spark/jars/b.jar"
    (tmp_path / "spark.classpath").unlink()
    assert "spark.driver.extraClassPath" not in jvm_conf(environ, light=True)


def test_temporary_files_are_in_sparks_folder_if_it_exists(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    environ = {"SPARK_LOCAL_DIRS": f"{folder},/elsewhere"}
    assert "tmpdir" not in options(environ)
    folder.mkdir()
    assert f'"-Djava.io.tmpdir={folder}"' in options(environ)


def test_rows_are_those_of_the_split(tmp_path: Path) -> None:
    document = {"parameters": {"log_path": "nowhere"}, "data_root": str(tmp_path)}
    assert rows_of(document, [{"candidates": 3}, {"raw_rows": 7}]) == 7


def test_the_split_itself_uses_the_size_of_the_raw_data(tmp_path: Path) -> None:
    (tmp_path / "log" / "part").mkdir(parents=True)
    (tmp_path / "log" / "part" / "a.csv").write_bytes(b"x" * 1000)
    (tmp_path / "log" / "b.csv").write_bytes(b"x" * 1000)
    assert rows_of({"parameters": {"log_path": "log"}, "data_root": str(tmp_path)}, []) == 100
    assert rows_of({"parameters": {"log_path": "log/b.csv"}, "data_root": str(tmp_path)}, []) == 50


def test_other_steps_without_a_split_are_taken_as_heavy(tmp_path: Path) -> None:
    assert rows_of({"parameters": {}, "data_root": str(tmp_path)}, [{}]) is None
