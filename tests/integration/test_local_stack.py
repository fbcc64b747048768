"""The embedded stack: up, deploy, run, leaderboard, and failures on the way."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from replayctl.local import environments
from tests.conftest import CACHE_DIR, ROOT
from tests.mlflow_servers import Mlflow, assert_recorded_once
from tests.reporters import RecordingReporter

from .conftest import SMALL_MODULE, Answer, Stack, environ_for, processes_of

pytestmark = pytest.mark.integration
STEPS = {"split", "first_level_poprec", "first_level_itemknn", "combine", "second_level_lightgbm", "evaluate"}


def wait_for(what: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_second_up_finds_the_first(stack: Stack) -> None:
    before = stack.call("local", "status").data
    answer = stack.call("local", "up")
    assert (answer.code, answer.document["status"]) == (0, "nothing-to-do")
    assert answer.data["services"] == before["services"]
    assert before["running"] is True


def test_pages_answer_and_secrets_are_private(stack: Stack) -> None:
    for service in stack.call("local", "status").data["services"]:
        with urllib.request.urlopen(service["url"], timeout=20) as page:
            assert page.status == 200
    for name in ("admin_password", "passwords.json", "secrets.json"):
        assert (stack.home / "airflow" / name).stat().st_mode & 0o077 == 0
    password = (stack.home / "airflow" / "admin_password").read_text().strip()
    for process in processes_of(stack.home):
        assert password not in " ".join(process.cmdline())


def test_the_pages_open_at_the_addresses_of_the_stack(stack: Stack) -> None:
    """Its ports are not those of the settings, which another program has taken."""
    for service in stack.call("local", "status").data["services"]:
        if service["name"] in ("airflow", "mlflow"):
            answer = stack.call("open", service["name"], "--dry-run")
            assert answer.data == {"address": service["url"], "dry_run": True}
    browser = stack.environ | {"BROWSER": "true %s"}
    opened = Stack(stack.home, stack.dags, browser).call("open", "mlflow")
    assert (opened.code, opened.data["dry_run"]) == (0, False)
    with urllib.request.urlopen(opened.data["address"], timeout=20) as page:
        assert page.status == 200
    refused = stack.call("port-forward", "airflow")
    assert refused.code == 2
    assert refused.document["errors"][0]["hint"] == "run `replayctl open airflow`"


def test_a_deploy_ends_when_airflow_shows_it_and_the_next_has_nothing_to_do(stack: Stack, deployed: Answer) -> None:
    assert len(deployed.data["dags"]) == 28
    assert deployed.data["seen_after_s"] > 0
    second_deploy = stack.deploy()
    assert (second_deploy.code, second_deploy.document["status"]) == (0, "nothing-to-do")
    assert second_deploy.data["release"] == deployed.data["release"]


def test_code_that_only_airflow_finds_broken_is_taken_back(stack: Stack, finished: Answer, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(stack.dags, broken)
    with (broken / "dag_operators.py").open("a") as file:
        file.write("\nimport no_such_module_anywhere\n")
    answer = stack.call("sync-dags", "--dags-dir", str(broken))
    assert answer.code == 1
    (error,) = answer.document["errors"]
    assert "is published again" in error["message"]
    assert "No module named 'no_such_module_anywhere'" in error["details"]
    back = stack.deploy()
    assert back.document["status"] == "nothing-to-do"


def test_a_run_computes_everything_and_the_leaderboard_shows_every_model(stack: Stack, finished: Answer) -> None:
    assert {task["task_id"]: task["state"] for task in finished.data["tasks"]} == dict.fromkeys(STEPS, "success")
    board = stack.call("leaderboard", "two_stage_sample").data
    assert {row["model"]: row["level"] for row in board["rows"]} == {
        "poprec": "first",
        "itemknn": "first",
        "lightgbm": "second",
    }
    scores = [row["metrics"]["NDCG@10"] for row in board["rows"]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0
    by_recall = stack.call("leaderboard", "two_stage_sample", "--metric", "Recall@100").data
    assert by_recall["metric"] == "Recall@100"
    assert stack.call("leaderboard", "two_stage_sample", "--metric", "Luck@7").code == 2
    assert stack.call("leaderboard", "two_stage_ml1m").code == 6


def test_what_mlflow_does_not_have_is_brought_there_once(stack: Stack, finished: Answer) -> None:
    known = stack.call("mlflow-sync", "two_stage_sample")
    assert (known.document["status"], [row["state"] for row in known.data["evaluations"]]) == (
        "nothing-to-do",
        ["present"],
    )
    # An evaluation as it is stored when MLflow was away.
    evaluation = stack.artifact("evaluate")
    other = evaluation.with_name("0" * 15 + "1")
    shutil.copytree(evaluation, other)
    text = (other / "mlflow.json").read_text().replace(evaluation.name, other.name)
    (other / "mlflow.json").write_text(text)
    try:
        planned = stack.call("mlflow-sync", "--dry-run").data["evaluations"]
        assert sorted(row["state"] for row in planned) == ["missing", "present"]
        assert stack.call("mlflow-sync").code == 0
        assert stack.call("mlflow-sync").document["status"] == "nothing-to-do"
    finally:
        shutil.rmtree(other)
    board = stack.call("leaderboard", "two_stage_sample", "--all").data
    metrics = {(row["model"], row["evaluation"]): row["metrics"] for row in board["rows"]}
    assert len(metrics) == len(board["rows"]) == 6
    for model in ("poprec", "itemknn", "lightgbm"):
        assert metrics[model, evaluation.name] == metrics[model, other.name]


def test_the_next_run_reuses_every_artifact(stack: Stack, finished: Answer) -> None:
    before = {step: stack.manifest(step) for step in STEPS}
    answer = stack.call("run", "two_stage_sample", "--wait")
    assert answer.code == 0
    assert {step: stack.manifest(step) for step in STEPS} == before
    rows = stack.call("leaderboard", "two_stage_sample").data["rows"]
    assert {row["run_id"] for row in rows} == {answer.data["run_id"]} != {finished.data["run_id"]}


def test_a_deleted_artifact_is_made_again_and_only_that(stack: Stack, finished: Answer) -> None:
    before = {step: stack.manifest(step)["started_unix_s"] for step in STEPS}
    shutil.rmtree(stack.artifact("combine"))
    assert stack.call("run", "two_stage_sample", "--wait").code == 0
    after = {step: stack.manifest(step)["started_unix_s"] for step in STEPS}
    assert {step for step in STEPS if before[step] != after[step]} == {"combine"}


def step_processes(home: Path) -> list[psutil.Process]:
    """Processes of steps, without what Airflow has started on the way to them."""
    processes = []
    for process in processes_of(home):
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if len(words) > 2 and words[1].endswith("dag_submit.py"):
                processes.append(process)
    return processes


def test_a_task_killed_hard_fails_takes_its_driver_with_it_and_succeeds_when_cleared(
    stack: Stack, finished: Answer
) -> None:
    before = stack.manifest("first_level_itemknn")
    planned = stack.call("run", "two_stage_sample", "--force", "first_level_itemknn", "--dry-run")
    assert planned.data["forced_steps"] == ["first_level_itemknn", "combine", "second_level_lightgbm", "evaluate"]
    started = stack.call("run", "two_stage_sample", "--force", "first_level_itemknn")
    run_id = started.data["run_id"]
    folder = stack.artifact("first_level_itemknn").parent
    wait_for(lambda: step_processes(stack.home), 120)
    (driver,) = step_processes(stack.home)
    # Its step takes less time than the tests need to kill the worker.
    driver.suspend()
    worker = driver.parent()
    assert worker is not None
    worker.kill()
    worker.wait(30)
    driver.resume()
    wait_for(lambda: not driver.is_running() or driver.status() == psutil.STATUS_ZOMBIE, 30)
    api = _api(stack)
    wait_for(lambda: api.run("two_stage_sample_alice", run_id).state == "failed", 120)
    assert stack.manifest("first_level_itemknn") == before
    _clear(stack, run_id)
    wait_for(lambda: api.run("two_stage_sample_alice", run_id).state == "success", 300)
    after = stack.manifest("first_level_itemknn")
    assert after["run"]["run_id"] == run_id
    assert stack.manifest("combine")["run"]["run_id"] == run_id
    assert stack.manifest("split")["run"]["run_id"] != run_id
    assert [path.name for path in folder.iterdir() if path.name[0] == "."] == []


def _api(stack: Stack):
    from replayctl.local.stack import airflow_api
    from replayctl.settings.load import load_settings

    return airflow_api(load_settings(None, environ=stack.environ, cwd=ROOT))


def _clear(stack: Stack, run_id: str) -> None:
    from airflow_client.client import ClearTaskInstancesBody, TaskInstanceApi

    body = ClearTaskInstancesBody(dag_run_id=run_id, dry_run=False, only_failed=True, reset_dag_runs=True)
    TaskInstanceApi(_api(stack)._client()).post_clear_task_instances("two_stage_sample_alice", body)


def test_a_failed_run_shows_why(stack: Stack, finished: Answer) -> None:
    data = stack.home / "data" / "replay" / "sample_ratings.csv"
    text = data.read_text()
    data.write_text("user_id,item_id,rating,timestamp\n1,2,x,3\n")
    try:
        answer = stack.call("run", "two_stage_sample", "--wait", "--force", "split")
    finally:
        data.write_text(text)
    assert answer.code == 1
    (error,) = answer.document["errors"]
    cause = "sample_ratings.csv, row 2, column 'rating': rating 'x' is not a number"
    assert error["message"].startswith("task split failed (try 1): StepError: ")
    assert error["message"].endswith(cause)
    assert error["details"].startswith("computing split (")
    assert cause not in error["details"]
    assert answer.data["failed"][0]["cause"]["summary"].endswith(cause)
    assert stack.manifest("split")["results"]["raw_rows"] > 1


def test_what_cannot_be_run_is_named(stack: Stack, deployed: Answer) -> None:
    unknown = stack.call("run", "two_stage_sampel")
    assert unknown.code == 6
    assert "did you mean two_stage_sample" in unknown.document["errors"][0]["hint"]
    force = stack.call("run", "two_stage_sample", "--force", "nonsense")
    assert force.code == 2
    assert "first_level_itemknn" in force.document["errors"][0]["hint"]


def test_ctrl_c_while_starting_leaves_no_process(tmp_path: Path) -> None:
    home = tmp_path / "interrupted home"
    environ = environ_for(home, tmp_path, REPLAYCTL_LOCAL_AIRFLOW_PORT="28080", REPLAYCTL_LOCAL_MLFLOW_PORT="28811")
    child = subprocess.Popen(
        [sys.executable, "-m", "replayctl", "local", "up", "--output", "json"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(processes_of(home)) > 3)
    os.kill(child.pid, signal.SIGINT)
    out, _ = child.communicate(timeout=90)
    assert child.returncode == 130
    assert json.loads(out)["errors"][0]["code"] == "interrupted"
    wait_for(lambda: not processes_of(home), 15)
    assert not (home / "stack.json").exists()


def test_a_second_mlflow_that_was_away_gets_the_metrics_by_the_next_run(
    stack: Stack, finished: Answer, tmp_path: Path
) -> None:
    assert CACHE_DIR
    program = str(environments.ensure("mlflow", Path(CACHE_DIR), None, RecordingReporter()).program("mlflow"))
    server = Mlflow(program, tmp_path)
    server.wait()
    server.stop()
    shutil.copytree(stack.dags, tmp_path / "dags")
    module = SMALL_MODULE.replace("two_stage_sample", "two_stage_second")
    module = module.replace("return (build_two_stage_dag(", "return (replace(build_two_stage_dag(")
    module = module.replace("models, SAMPLE),)", 'models, SAMPLE), mlflow_server="second"),)')
    (tmp_path / "dags" / "dag_second.py").write_text(module)
    own = Stack(stack.home, tmp_path / "dags", stack.environ | {"REPLAYCTL_MLFLOW_SERVERS": f"second={server.url}"})
    try:
        assert own.deploy().code == 0
        away = own.call("run", "two_stage_second", "--wait")
        assert away.code == 1
        assert "the metrics are kept with" in json.dumps(away.document), away.document["errors"]
        server = Mlflow(program, tmp_path, server.port)
        server.wait()
        again = own.call("run", "two_stage_second", "--wait")
        assert again.code == 0, again.stderr
        assert_recorded_once(server, "two_stage_second_alice", ("first", "first", "second"))
        board = own.call("leaderboard", "two_stage_second", "--server", "second").data
        assert len(board["rows"]) == 3
        assert own.call("leaderboard", "two_stage_second").document["errors"][0]["hint"].endswith("--server second")
        synced = own.call("mlflow-sync")
        assert {row["state"] for row in synced.data["evaluations"]} <= {"present", "deleted"}
    finally:
        server.stop()
        stack.deploy()
