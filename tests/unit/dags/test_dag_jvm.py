"""The JVM of a Spark step: by what the step computes with, and by what the worker has."""

from pathlib import Path

import pytest

from dags.dag_jvm import ARCHIVE_VARIABLE, LIGHT_ROWS, jvm_conf, rows_of


def options(rows: int | None, environ: dict[str, str] | None = None) -> str:
    return jvm_conf(rows, environ or {})["spark.driver.extraJavaOptions"]


@pytest.mark.parametrize("rows", [0, 1, LIGHT_ROWS])
def test_light_work_is_compiled_once_with_a_stack_that_is_deep_enough(rows: int) -> None:
    assert "-XX:TieredStopAtLevel=1" in options(rows)
    assert "-Xss" in options(rows)


@pytest.mark.parametrize("rows", [LIGHT_ROWS + 1, 10**9, None])
def test_heavy_and_unknown_work_has_both_compilers(rows: int | None) -> None:
    assert "Tiered" not in options(rows)


def test_an_archive_of_classes_is_used_where_it_exists(tmp_path: Path) -> None:
    archive = tmp_path / "with a space.jsa"
    environ = {ARCHIVE_VARIABLE: str(archive)}
    assert "SharedArchiveFile" not in options(1, environ)
    archive.touch()
    assert f'"-XX:SharedArchiveFile={archive}"' in options(1, environ)


def test_the_class_path_of_an_archive_comes_with_it(tmp_path: Path) -> None:
    environ = {ARCHIVE_VARIABLE: str(tmp_path / "spark.jsa")}
    (tmp_path / "spark.classpath").write_text("/opt/spark/jars/a.jar:/opt/spark/jars/b.jar")
    assert "spark.driver.extraClassPath" not in jvm_conf(1, environ)
    (tmp_path / "spark.jsa").touch()
    assert jvm_conf(1, environ)["spark.driver.extraClassPath"] == "/opt/spark/jars/a.jar:/opt/spark/jars/b.jar"
    (tmp_path / "spark.classpath").unlink()
    assert "spark.driver.extraClassPath" not in jvm_conf(1, environ)


def test_temporary_files_are_in_sparks_folder_if_it_exists(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    environ = {"SPARK_LOCAL_DIRS": f"{folder},/elsewhere"}
    assert "tmpdir" not in options(1, environ)
    folder.mkdir()
    assert f'"-Djava.io.tmpdir={folder}"' in options(1, environ)


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
