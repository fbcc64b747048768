"""The Airflow and MLflow of a profile: at their addresses, or behind forwards that end with the command."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replayctl.cluster import api
from replayctl.errors import NotReady, SettingsError
from replayctl.experiments.services import check_spark, has_airflow, open_airflow, open_mlflow
from replayctl.forwarding import tunnel
from replayctl.forwarding.announce import announce_forward
from replayctl.local import environments
from replayctl.settings.declared import Settings
from replayctl.settings.load import load_settings
from tests.reporters import RecordingReporter

FORWARDED = "http://127.0.0.1:40001"
CREDENTIALS = {"REPLAYCTL_AIRFLOW_USERNAME": "alice", "REPLAYCTL_AIRFLOW_PASSWORD": "tulip-42"}


def settings_of(folder: Path, profile: str = "lab", **environ: str) -> Settings:
    return load_settings(profile, environ=environ, cwd=folder)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The forwards that are open."""
    opened: list[str] = []

    @contextlib.contextmanager
    def open_tunnel(_cluster: object, target: object, _reporter: object) -> Iterator[str]:
        opened.append(str(target))
        try:
            yield FORWARDED
        finally:
            opened.remove(str(target))

    monkeypatch.setattr(tunnel, "open_tunnel", open_tunnel)
    monkeypatch.setattr(api, "find_kubernetes", lambda *_: None)
    return opened


def test_an_airflow_without_an_address_is_reached_by_a_forward(tmp_path: Path, forwards: list[str]) -> None:
    reporter = RecordingReporter()
    settings = settings_of(tmp_path, **CREDENTIALS)
    assert has_airflow(settings)
    with open_airflow(settings, {}, reporter) as api:
        assert forwards == ["airflow/service/airflow-webserver:8080"]
        # Where `replayctl port-forward airflow` shows it, also after this forward has ended.
        assert (api.url, api.pages) == (FORWARDED, "http://127.0.0.1:8080")
    assert forwards == []
    assert reporter.messages("step") == ["airflow.url is not set: forwarding to airflow/svc/airflow-webserver:8080"]


def test_pages_open_by_the_direct_link_that_the_profile_has(tmp_path: Path, forwards: list[str]) -> None:
    settings = settings_of(tmp_path, REPLAYCTL_LINKS_AIRFLOW="http://airflow.example/", **CREDENTIALS)
    with open_airflow(settings, {}, RecordingReporter()) as api:
        assert api.pages == "http://airflow.example"


def test_an_address_of_the_profile_needs_no_forward(tmp_path: Path, forwards: list[str]) -> None:
    reporter = RecordingReporter()
    urls = {"REPLAYCTL_AIRFLOW_URL": "http://airflow.example", "REPLAYCTL_MLFLOW_URL": "http://mlflow.example"}
    settings = settings_of(tmp_path, **CREDENTIALS, **urls)
    with open_airflow(settings, {}, reporter) as airflow, open_mlflow(settings, {}, reporter) as mlflow:
        assert (airflow.url, airflow.pages, mlflow.url) == (*["http://airflow.example"] * 2, "http://mlflow.example")
        assert forwards == []
    assert reporter.messages("step") == []


@pytest.mark.parametrize(
    ("environ", "key"),
    [({}, "airflow.username"), ({"REPLAYCTL_AIRFLOW_USERNAME": "alice"}, "airflow.password_file")],
)
def test_credentials_are_asked_for_before_a_forward_opens(
    tmp_path: Path, forwards: list[str], environ: dict[str, str], key: str
) -> None:
    reporter = RecordingReporter()
    with (
        pytest.raises(SettingsError, match=f"{key} is required in profile 'lab'"),
        open_airflow(settings_of(tmp_path, **environ), {}, reporter),
    ):
        pass
    assert reporter.messages("step") == []


def test_an_mlflow_without_an_address_is_reached_by_a_forward(tmp_path: Path, forwards: list[str]) -> None:
    with open_mlflow(settings_of(tmp_path), {}, RecordingReporter()) as api:
        assert (api.url, forwards) == (FORWARDED, ["mlflow/service/mlflow:8811"])
    assert forwards == []


def test_without_address_and_target_both_keys_are_named(tmp_path: Path, forwards: list[str]) -> None:
    (tmp_path / "replayctl.yaml").write_text("profiles: {plain: {user: alice}}\n")
    with (
        pytest.raises(SettingsError, match=r"neither mlflow\.url nor targets\.mlflow"),
        open_mlflow(settings_of(tmp_path, "plain"), {}, RecordingReporter()),
    ):
        pass


def test_a_forward_that_is_opened_again_is_announced_once() -> None:
    reporter, other = RecordingReporter(), RecordingReporter()
    for _ in range(2):
        announce_forward(reporter, "hdfs.url", "hdfs-3/svc/hdfs-namenode:9870")
    announce_forward(reporter, "hdfs.url", "elsewhere")
    announce_forward(other, "hdfs.url", "elsewhere")
    messages = [message for _, message in reporter.events]
    assert messages == [
        "hdfs.url is not set: forwarding to hdfs-3/svc/hdfs-namenode:9870",
        "hdfs.url is not set: forwarding to elsewhere",
    ]
    assert len(other.events) == 1


def test_an_anonymous_call_needs_no_credentials(tmp_path: Path, forwards: list[str]) -> None:
    with open_airflow(settings_of(tmp_path), {}, RecordingReporter(), anonymous=True) as airflow:
        assert airflow.url == FORWARDED
    with (
        pytest.raises(SettingsError, match="airflow.username is required"),
        open_airflow(settings_of(tmp_path), {}, RecordingReporter()),
    ):
        pass


class Server:
    """An Airflow with a step on each engine."""

    def tasks_docs(self, dag_id: str) -> dict[str, str]:
        return {"als": "Release: r_1\n\nEngine: embedded\n", "word2vec": "Release: r_1\n\nEngine: spark\n"}


@pytest.mark.parametrize(
    ("engine", "message"),
    [(None, "^step word2vec of mine needs Spark, which"), ("spark", "^--engine spark needs Spark"), ("embedded", "")],
)
def test_a_run_that_needs_spark_is_refused_where_the_local_stack_has_none(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch, engine: str | None, message: str
) -> None:
    server: Any = Server()
    settings = settings_of(clean_environment, "local")
    if message:
        with pytest.raises(NotReady, match=message) as excinfo:
            check_spark(settings, server, "mine", engine)
        assert excinfo.value.hint == "run `replayctl local up --engine spark`"
    else:
        check_spark(settings, server, "mine", engine)
    check_spark(settings_of(clean_environment), server, "mine", engine)
    monkeypatch.setattr(environments, "has_spark", lambda settings: True)
    check_spark(settings, server, "mine", engine)
