"""The archive of Spark's classes: created once, completely or not at all, and never a reason for `local up` to fail."""

from pathlib import Path

import pytest

from dags.dag_jvm import ARCHIVE_VARIABLE, jvm_conf
from replayctl.local import environments, parts, spark_classes
from replayctl.local.environments import Environment
from replayctl.settings.load import load_settings
from tests.reporters import RecordingReporter

WRITES = """
for word in "$@"; do
    case $word in *ArchiveClassesAtExit=*) path=${word##*ArchiveClassesAtExit=}; printf classes > "${path%?}" ;; esac
done
"""


def make_environment(folder: Path, script: str) -> Environment:
    environment = Environment("workload-spark", folder / "with a space")
    program = environment.path / "lib" / "python3.11" / "site-packages" / "pyspark" / "bin" / "spark-submit"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho "$JAVA_HOME $HADOOP_CONF_DIR" >> "{folder}/calls"\n{script}')
    program.chmod(0o755)
    return environment


def archives(environment: Environment) -> list[str]:
    return [path.read_text() for path in environment.path.glob("*.jsa")]


def test_it_is_made_once_for_each_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    environment = make_environment(tmp_path, WRITES)
    reporter = RecordingReporter()
    for java in ("one", "one", "two"):
        spark_classes.ensure(environment, tmp_path / java, reporter)
    assert archives(environment) == ["classes", "classes"]
    # What the environment says of Hadoop would be on the class path, and not be there later.
    assert (tmp_path / "calls").read_text() == f"{tmp_path}/one \n{tmp_path}/two \n"
    assert len(reporter.messages("step")) == 2
    assert spark_classes.path_of(environment.path, tmp_path / "one").exists()


@pytest.mark.parametrize(("script", "reason"), [("exit 3", "ended with status 3"), ("", "does not archive classes")])
def test_a_java_that_cannot_make_it_is_a_warning(tmp_path: Path, script: str, reason: str) -> None:
    environment = make_environment(tmp_path, script)
    reporter = RecordingReporter()
    spark_classes.ensure(environment, tmp_path, reporter)
    assert reason in reporter.messages("warn")[0]
    assert archives(environment) == []
    assert [path.name for path in environment.path.iterdir()] == ["lib"]


def test_another_java_in_the_same_place_has_an_archive_of_its_own(tmp_path: Path) -> None:
    library = tmp_path / "java" / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True)
    library.write_text("17.0.1")
    before = spark_classes.path_of(tmp_path, tmp_path / "java")
    library.write_text("17.0.15")
    assert spark_classes.path_of(tmp_path, tmp_path / "java") != before


def test_what_a_killed_try_has_left_is_removed(tmp_path: Path) -> None:
    environment = make_environment(tmp_path, WRITES)
    (environment.path / ".spark-classes-abc").mkdir()
    (environment.path / ".spark-classes-abc" / "classes.jsa").write_text("cut")
    spark_classes.ensure(environment, tmp_path, RecordingReporter())
    assert archives(environment) == ["classes"]
    assert not list(environment.path.glob(".spark-classes-*"))


def test_steps_get_its_path(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java_home = clean_environment / "java"
    monkeypatch.setattr(environments, "known_java_home", lambda configured: java_home)
    settings = load_settings(None, environ={}, cwd=clean_environment)
    (settings.local.home / "airflow").mkdir(parents=True)
    parts.ensure_password(settings.local.home)
    installed = {name: Environment(name, clean_environment / name) for name in environments.NAMES}
    variables = parts.airflow_environment(settings, installed, parts.Ports(1, 2), "mark")
    archive = spark_classes.path_of(environments.path_of(environments.SPARK, settings.cache_dir), java_home)
    assert variables[ARCHIVE_VARIABLE] == str(archive)
    assert "SharedArchiveFile" not in str(jvm_conf(variables, light=True))
