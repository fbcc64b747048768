"""An evaluation is recorded in MLflow once, whatever happens to the server or the task on the way."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dags.artifacts import Artifact
from dags.workloads import recording, runner
from dags.workloads.context import StepError
from dags.workloads.mlflow_server import MlflowServer
from tests import mlflow_servers
from tests.mlflow_servers import TROUBLES, Mlflow, Relay

from .conftest import Pipeline


@pytest.fixture
def relay(mlflow: Mlflow) -> Iterator[Relay]:
    forwarder = Relay(mlflow.url)
    yield forwarder
    forwarder.stop()


@pytest.fixture
def evaluate(pipeline: Pipeline, tmp_path: Path, relay: Relay) -> Callable[..., dict[str, Any]]:
    """The document of the evaluate step, whose artifact nobody has made, for an experiment of the test's own."""

    def document(experiment: str = tmp_path.name, **options: Any) -> dict[str, Any]:
        own = {"output": str(tmp_path / experiment), "mlflow_experiment": experiment, "tracking_uri": relay.url}
        return pipeline.document("evaluate", **{**own, **options})

    return document


def copy_of_evaluation(pipeline: Pipeline, document: dict[str, Any]) -> None:
    """The artifact as it is published, before anything is recorded."""
    marks = shutil.ignore_patterns("recorded-*")
    shutil.copytree(pipeline.path("evaluate"), document["output"], ignore=marks, dirs_exist_ok=True)


def assert_recorded_once(mlflow: Mlflow, experiment: str) -> None:
    mlflow_servers.assert_recorded_once(mlflow, experiment, ("first", "first", "second"))


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_server_that_fails_keeps_the_metrics_and_the_next_try_only_records_them(
    evaluate: Callable[..., dict[str, Any]], relay: Relay, mlflow: Mlflow, trouble: str
) -> None:
    document = evaluate()
    relay.fails_at, relay.trouble = 0, trouble
    with pytest.raises(StepError, match=r"the metrics are kept with .*clear this task .*replayctl mlflow-sync"):
        runner.run(document)
    artifact = Artifact(document["output"])
    first = artifact.manifest()
    assert set(first["results"]["metrics"]) == {"poprec", "itemknn", "lightgbm"}  # type: ignore[index, call-overload]
    relay.mend()
    runner.run({**document, "run": {**document["run"], "run_id": "run2"}})
    assert artifact.manifest() == first
    assert_recorded_once(mlflow, document["mlflow_experiment"])
    recorded = relay.requests
    runner.run(document)
    assert relay.requests == recorded


def test_cut_off_at_any_request_the_next_try_leaves_it_recorded_once(
    evaluate: Callable[..., dict[str, Any]], pipeline: Pipeline, relay: Relay, mlflow: Mlflow
) -> None:
    copy_of_evaluation(pipeline, evaluate("whole"))
    runner.run(evaluate("whole"))
    requests = relay.requests
    assert requests > 12
    for stage in range(1, requests + 1):
        document = evaluate(f"stage{stage}", output=evaluate("stages")["output"])
        copy_of_evaluation(pipeline, document)
        relay.mend()
        relay.fails_at, relay.trouble = stage, TROUBLES[stage % 3]
        with pytest.raises(StepError):
            runner.run(document)
        relay.mend()
        runner.run(document)
        assert_recorded_once(mlflow, document["mlflow_experiment"])


def test_where_it_may_be_away_the_step_succeeds_and_a_later_run_records(
    evaluate: Callable[..., dict[str, Any]], relay: Relay, mlflow: Mlflow, caplog: pytest.LogCaptureFixture
) -> None:
    document = evaluate(tracking_required=False)
    relay.fails_at = 4
    runner.run(document)
    assert "the metrics are kept with" in caplog.text
    assert "replayctl mlflow-sync" in caplog.text
    artifact = Artifact(document["output"])
    planned = json.loads(artifact.read("mlflow.json", 1 << 20))
    assert planned["experiment"] == document["mlflow_experiment"]
    measured = artifact.manifest()["results"]["metrics"]  # type: ignore[index, call-overload]
    parent, *below = planned["runs"]
    assert parent["tags"]["replayctl.level"] == "experiment"
    assert {run["tags"]["replayctl.row"]: run["metrics"] for run in below} == measured
    relay.mend()
    runner.run(document)
    assert_recorded_once(mlflow, document["mlflow_experiment"])


def test_two_writers_at_once_leave_one_recording(
    evaluate: Callable[..., dict[str, Any]], pipeline: Pipeline, mlflow: Mlflow
) -> None:
    document = evaluate()
    copy_of_evaluation(pipeline, document)
    errors: list[BaseException] = []

    def write() -> None:
        try:
            recording.record(Artifact(document["output"]), document)
        except BaseException as error:  # noqa: BLE001  # raised below
            errors.append(error)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    assert_recorded_once(mlflow, document["mlflow_experiment"])


def test_an_evaluation_that_is_forced_takes_the_place_of_the_older(
    evaluate: Callable[..., dict[str, Any]], mlflow: Mlflow
) -> None:
    document = evaluate()
    runner.run(document)
    before = {run["id"] for run in mlflow.runs(document["mlflow_experiment"])}
    runner.run({**document, "force": True})
    assert_recorded_once(mlflow, document["mlflow_experiment"])
    assert not before & {run["id"] for run in mlflow.runs(document["mlflow_experiment"])}


def test_dags_that_share_an_artifact_record_it_in_each_ones_experiment(
    evaluate: Callable[..., dict[str, Any]], mlflow: Mlflow
) -> None:
    document = evaluate()
    other = f"{document['mlflow_experiment']}_other"
    runner.run(document)
    runner.run({**document, "mlflow_experiment": other})
    assert_recorded_once(mlflow, document["mlflow_experiment"])
    assert_recorded_once(mlflow, other)


def test_the_experiments_run_names_the_newest_run_of_each_dag_that_ended_with_the_evaluation(
    evaluate: Callable[..., dict[str, Any]], mlflow: Mlflow
) -> None:
    document = evaluate()
    artifact = Artifact(document["output"])

    def used() -> dict[str, str]:
        (parent,) = [run for run in mlflow.runs(document["mlflow_experiment"]) if "rows" in run["params"]]
        uses = [json.loads(text) for tag, text in parent["tags"].items() if tag.startswith("replayctl.used.")]
        return {use["dag_id"]: use["run_id"] for use in uses}

    runner.run(document)
    assert used() == {"two_stage_sample_alice": "run1"}
    for dag_id, run_id in (("two_stage_sample_alice", "run2"), ("second_level_sample_alice", "run3")):
        again = {**document, "run": {**document["run"], "dag_id": dag_id, "run_id": run_id}}
        assert recording.mark_as_used(artifact, again) is None
    assert used() == {"two_stage_sample_alice": "run2", "second_level_sample_alice": "run3"}
    assert_recorded_once(mlflow, document["mlflow_experiment"])
    for run in mlflow.runs(document["mlflow_experiment"]):
        MlflowServer(mlflow.url).delete_run(run["id"])
    assert "--force evaluate" in str(recording.mark_as_used(artifact, document))


def test_runs_that_were_deleted_in_mlflow_stay_deleted_until_it_is_forced(
    evaluate: Callable[..., dict[str, Any]], mlflow: Mlflow
) -> None:
    document = evaluate()
    runner.run(document)
    server = MlflowServer(mlflow.url)
    experiment = document["mlflow_experiment"]
    for run in mlflow.runs(experiment):
        server.delete_run(run["id"])
    for mark in Path(document["output"]).glob("recorded-*"):
        mark.unlink()
    runner.run(document)
    assert mlflow.runs(experiment) == []
    runner.run({**document, "force": True})
    assert_recorded_once(mlflow, experiment)


def test_an_experiment_that_was_deleted_comes_back(evaluate: Callable[..., dict[str, Any]], mlflow: Mlflow) -> None:
    document = evaluate()
    runner.run(document)
    find = f"experiments/get-by-name?experiment_name={document['mlflow_experiment']}"
    experiment = mlflow.ask(find)["experiment"]
    mlflow.ask("experiments/delete", {"experiment_id": experiment["experiment_id"]})
    runner.run({**document, "force": True})
    assert mlflow.ask(find)["experiment"]["experiment_id"] == experiment["experiment_id"]
    assert_recorded_once(mlflow, document["mlflow_experiment"])


@pytest.mark.parametrize("required", [True, False])
def test_an_error_of_the_server_is_quoted_and_never_ignored(
    evaluate: Callable[..., dict[str, Any]], required: bool
) -> None:
    document = evaluate(mlflow_experiment="x" * 600, tracking_required=required)
    with pytest.raises(StepError, match=r"refused experiments/create \(HTTP 400 INVALID_PARAMETER_VALUE\)"):
        runner.run(document)
    assert Artifact(document["output"]).is_whole()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, "no tracking server"),
        ("sqlite:///x.db", "is not an address with http"),
        ("http://127.0.0.1:9", "MLflow at http://127.0.0.1:9 did not answer experiments/get-by-name"),
    ],
)
def test_without_a_tracking_server_the_step_fails_with_its_metrics_kept(
    evaluate: Callable[..., dict[str, Any]],
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    message: str,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    document = evaluate(tracking_uri=address)
    copy_of_evaluation(pipeline, document)
    with pytest.raises(StepError, match=message):
        runner.run(document)
    assert Artifact(document["output"]).is_whole()


def test_another_server_at_the_address_is_named(
    evaluate: Callable[..., dict[str, Any]], pipeline: Pipeline, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = evaluate()
    copy_of_evaluation(pipeline, document)
    monkeypatch.setattr(relay, "forwarded", lambda *words: (200, b"{}"))
    with pytest.raises(StepError, match=f"{relay.url} does not answer as MLflow does"):
        runner.run(document)
