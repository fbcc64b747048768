"""mlflow-sync: evaluations that cannot be read."""

import json

import pytest

from replayctl import cli
from replayctl.experiments import evaluations


@pytest.fixture(autouse=True)
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluations, "is_on_hdfs", lambda _: False)
    monkeypatch.setattr(evaluations, "read_shared_evaluations", lambda _: {"0a1b": "{"})


def test_nothing_but_what_cannot_be_read_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["mlflow-sync", "--dry-run"])
    streams = capfd.readouterr()
    assert (code, streams.out) == (1, "no evaluations can be read\n")
    assert "mlflow.json of evaluation 0a1b cannot be read" in streams.err


def test_an_experiment_that_is_not_found_may_be_among_those(capfd: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["mlflow-sync", "two_stage", "--dry-run", "--output", "json"])
    error = json.loads(capfd.readouterr().out)["errors"][0]
    assert (code, error["details"]) == (6, "mlflow.json of evaluation 0a1b cannot be read")
