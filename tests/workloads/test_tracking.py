"""What is recorded in MLflow, on a real store."""

from pathlib import Path

from mlflow import MlflowClient

from dags.workloads import tracking


def test_an_experiment_that_was_deleted_comes_back_with_its_runs(tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = tracking._experiment(client, "two_stage")
    run = client.create_run(experiment).info.run_id
    client.delete_experiment(experiment)
    assert tracking._experiment(client, "two_stage") == experiment
    assert [entry.info.run_id for entry in client.search_runs([experiment])] == [run]
    client.create_run(experiment)
