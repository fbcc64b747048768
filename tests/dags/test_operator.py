"""The operator of a step: what it skips, what it forces, and what it passes to the driver."""

import base64
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.exceptions import AirflowException

from dags.artifacts import Artifact
from dags.dag_entities import Namespace, Resources
from dags.dag_operators import WorkloadOperator, build_dag, encoded, make_operator
from dags.dag_specs import DagSpec, Deployment, StepSpec
from dags.dag_two_stage_scenarios import dag_specs
from dags.evaluations import has_unrecorded_runs, mark_name
from dags.raw_files import RAW_FILES, raw_record, raw_state
from tests.http_server import serving


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    tiers = {tier: Resources(3, 10) for tier in ("default", "big", "extra_big")}
    return Deployment(
        "r_1",
        "local",
        "alice",
        "/d",
        str(tmp_path),
        "/files",
        places={"yarn": "pod"},
        tiers=tiers,
        spark_conf={"a": "b"},
    )


@pytest.fixture
def submissions(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Stands for spark-submit: makes the artifact and keeps the document."""
    documents: list[dict] = []

    def submit(operator: WorkloadOperator, context: dict, argument: str) -> None:
        document = json.loads(base64.urlsafe_b64decode(argument))
        documents.append(document)
        artifact = Artifact(document["output"])
        manifest = {key: document[key] for key in ("run", "parameters", "code")}
        manifest |= {"inputs": [entry["identity"] for entry in document["inputs"]], "release": document["package"]}
        artifact.commit(artifact.begin("x"), manifest, replace=document["force"])

    monkeypatch.setattr(WorkloadOperator, "submit", submit)
    return documents


def operator(deployment: Deployment, name: str = "split") -> WorkloadOperator:
    spec = dag_specs(Namespace("alice"))[0]
    step = next(step for step in spec.steps if step.name == name)
    return make_operator(spec, step, deployment, "dag_two_stage_scenarios")


class Instance:
    """A task instance with XComs that last for one test."""

    map_index = -1

    def __init__(self, xcoms: dict[str, object], try_number: int = 1, task_id: str = "") -> None:
        self.xcoms = xcoms
        self.try_number = try_number
        self.pushed: list[dict] = []

    def xcom_pull(self, task_ids: list[str], key: str) -> list[object]:
        return [self.xcoms.get(task_id) for task_id in task_ids]

    def xcom_push(self, key: str, value: dict) -> None:
        self.pushed.append(json.loads(json.dumps(value)))
        self.xcoms[value["task"]] = value


def context(
    run_id: str = "run1",
    force: list[str] | None = None,
    *,
    xcoms: dict[str, object] | None = None,
    try_number: int = 1,
    clear_number: int = 0,
) -> dict:
    return {
        "run_id": run_id,
        "params": {"force": force or []},
        "ti": Instance({} if xcoms is None else xcoms, try_number),
        "dag_run": SimpleNamespace(dag_id="two_stage_ml100k_alice", run_id=run_id, clear_number=clear_number),
    }


def make_inputs(deployment: Deployment, name: str, results: dict | None = None) -> None:
    for entry in operator(deployment, name).step_document["inputs"]:
        artifact = Artifact(entry["path"])
        if not artifact.is_whole():
            artifact.commit(artifact.begin("x"), {"results": results or {}})


def test_a_complete_artifact_is_not_computed_again(deployment: Deployment, submissions: list[dict]) -> None:
    operator(deployment).execute(context())
    operator(deployment).execute(context("run2"))
    assert len(submissions) == 1
    assert submissions[0]["run"]["run_id"] == "run1"
    assert submissions[0]["force"] is False


def test_a_split_of_other_files_is_computed_again_and_must_have_the_same_rows(
    deployment: Deployment, submissions: list[dict], tmp_path: Path
) -> None:
    document = operator(replace(deployment, data_root=str(tmp_path / "data"))).step_document
    data = tmp_path / "data" / document["parameters"]["log_path"]
    data.parent.mkdir(parents=True)
    data.write_text("user,item\n")
    task = operator(replace(deployment, data_root=str(tmp_path / "data")))
    artifact = Artifact(document["output"])
    temporary = artifact.begin("x")
    temporary.add(RAW_FILES, raw_record(data, raw_state(data)))
    artifact.commit(temporary, {"run": {"run_id": "run1"}, "results": {"checksum": "1-0"}})
    task.execute(context("run2"))
    assert not submissions
    data.write_text("user,item,rating\n")
    task.execute(context("run3"))
    assert [(document["force"], document["expected_checksum"]) for document in submissions] == [(True, "1-0")]
    task.execute(context("run4", force=["all"]))
    assert "expected_checksum" not in submissions[1]


def test_a_deleted_artifact_is_computed_again(deployment: Deployment, submissions: list[dict]) -> None:
    operator(deployment).execute(context())
    (Artifact(submissions[0]["output"]).path / "_SUCCESS").unlink()
    operator(deployment).execute(context())
    assert len(submissions) == 2


@pytest.mark.parametrize("force", [None, ["evaluate"]])
def test_an_evaluation_that_was_not_recorded_is_recorded_by_the_next_try_and_not_computed(
    deployment: Deployment, submissions: list[dict], force: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = replace(deployment, tracking_uri="http://mlflow")
    task = operator(deployment, "evaluate")
    make_inputs(deployment, "evaluate")
    task.execute(context("run1", force))
    artifact = Artifact(submissions[0]["output"])
    artifact.add("mlflow.json", b"{}")
    task.execute(context("run1", force))
    assert [document["force"] for document in submissions] == [bool(force), False]
    artifact.add(mark_name(submissions[0]), b'{"mlflow_run": "abc"}')
    monkeypatch.setattr("dags.workloads.mlflow_server.MlflowServer.set_tag", lambda *words: None)
    task.execute(context("run1", force))
    assert len(submissions) == 2
    assert not has_unrecorded_runs(artifact, submissions[0])
    assert has_unrecorded_runs(artifact, {**submissions[0], "mlflow_server": "mlflow2"})


@pytest.fixture
def tags_set() -> Iterator[tuple[str, list[dict], list[int]]]:
    """Stands for MLflow: its address, the tags that were set, and the HTTP status with which it answers."""
    tags: list[dict] = []
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/api/2.0/mlflow/runs/set-tag"
            if status[0] == 200:
                tags.append({**body, "value": json.loads(body["value"])})
            self.send_response(status[0])
            self.end_headers()
            code = "RESOURCE_DOES_NOT_EXIST" if status[0] == 404 else "PERMISSION_DENIED"
            self.wfile.write(json.dumps({"error_code": code}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as address:
        yield f"http://{address}", tags, status


def evaluated(deployment: Deployment, submissions: list[dict]) -> WorkloadOperator:
    """The task of an evaluation that run1 has computed and recorded."""
    task = operator(deployment, "evaluate")
    make_inputs(deployment, "evaluate")
    task.execute(context("run1"))
    artifact = Artifact(submissions[0]["output"])
    artifact.add("mlflow.json", b"{}")
    artifact.add(mark_name(submissions[0]), b'{"mlflow_run": "abc"}')
    return task


def test_a_run_that_reuses_an_evaluation_says_so_in_mlflow(
    deployment: Deployment, submissions: list[dict], tags_set: tuple[str, list[dict], list[int]]
) -> None:
    url, tags, _ = tags_set
    task = evaluated(replace(deployment, tracking_uri=url), submissions)
    task.execute(again := context("run2"))
    (tag,) = tags
    assert (tag["run_id"], tag["key"]) == ("abc", "replayctl.used.two_stage_ml100k_alice")
    assert (tag["value"]["dag_id"], tag["value"]["run_id"]) == ("two_stage_ml100k_alice", "run2")
    assert datetime.fromisoformat(tag["value"]["at"]).utcoffset() == timedelta(0)
    assert len(submissions) == 1
    assert again["ti"].pushed[-1]["warnings"] == []
    # Other steps have nothing for MLflow.
    for _ in range(2):
        operator(replace(deployment, tracking_uri=url)).execute(context("run2"))
    assert len(tags) == 1


@pytest.mark.parametrize("required", [True, False])
def test_while_mlflow_is_away_a_reused_evaluation_follows_the_rule_for_recordings(
    deployment: Deployment, submissions: list[dict], required: bool
) -> None:
    away = replace(deployment, tracking_uri="http://127.0.0.1:9", tracking_required=required)
    task = evaluated(away, submissions)
    again = context("run2")
    if required:
        with pytest.raises(AirflowException, match=r"did not answer runs/set-tag.*clear this task"):
            task.execute(again)
        return
    task.execute(again)
    (warning,) = again["ti"].pushed[-1]["warnings"]
    assert "the leaderboard may show another run than this one until the DAG runs again" in warning


@pytest.mark.parametrize(("status", "fails"), [(404, False), (403, True)])
def test_a_reused_evaluation_that_was_deleted_in_mlflow_is_a_warning_and_another_refusal_an_error(
    deployment: Deployment,
    submissions: list[dict],
    tags_set: tuple[str, list[dict], list[int]],
    status: int,
    fails: bool,
) -> None:
    url, _, answers = tags_set
    answers[0] = status
    task = evaluated(replace(deployment, tracking_uri=url), submissions)
    again = context("run2")
    if fails:
        with pytest.raises(AirflowException, match="HTTP 403 PERMISSION_DENIED"):
            task.execute(again)
        return
    task.execute(again)
    (warning,) = again["ti"].pushed[-1]["warnings"]
    assert "pass `--force evaluate` to record it again" in warning


@pytest.mark.parametrize("force", [["split"], ["all"]])
def test_force_computes_it_again_once_in_a_run(
    deployment: Deployment, submissions: list[dict], force: list[str]
) -> None:
    operator(deployment).execute(context("run1"))
    operator(deployment).execute(context("run2", force))
    assert submissions[-1]["force"] is True
    operator(deployment).execute(context("run2", force))
    assert len(submissions) == 2
    operator(deployment).execute(context("run3", ["first_level_als"]))
    assert len(submissions) == 2


def test_force_of_a_step_reaches_what_depends_on_it(deployment: Deployment, submissions: list[dict]) -> None:
    make_inputs(deployment, "combine")
    operator(deployment, "combine").execute(context("run1"))
    operator(deployment, "combine").execute(context("run2", ["first_level_als"]))
    operator(deployment, "split").execute(context("run1"))
    operator(deployment, "split").execute(context("run2", ["first_level_als"]))
    assert [document["step"] for document in submissions] == ["combine", "combine"]


def test_a_driver_that_ends_well_without_its_artifact_has_failed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkloadOperator, "submit", lambda self, context, document: None)
    with pytest.raises(AirflowException, match="is incomplete"):
        operator(deployment).execute(context())


def test_the_command_needs_no_connection_and_no_shell(deployment: Deployment) -> None:
    task = operator(deployment)
    argument = encoded({"x": "{{ a }} $(b)", "y": {"z": {}}})
    command = task.local_hook(argument)._build_spark_submit_command(task.application)
    assert command[:3] == ["spark-submit", "--master", "local[3]"]
    assert command[-2] == "/files/alice/r_1/dag_submit.py"
    # What YARN and shells on the way might change is not in it.
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", command[-1])
    assert json.loads(base64.urlsafe_b64decode(command[-1])) == {"x": "{{ a }} $(b)", "y": {"z": {}}}
    assert "/files/alice/r_1/r_1.zip" in command
    assert command[command.index("--driver-memory") + 1] == "7g"


def test_the_jvm_of_a_step_depends_on_the_rows_of_its_split(deployment: Deployment) -> None:
    def options(step: str) -> str:
        command = operator(deployment, step).local_hook("x")._build_spark_submit_command("a.py")
        return next(word for word in command if word.startswith("spark.driver.extraJavaOptions="))

    assert "TieredStopAtLevel" not in options("combine")
    make_inputs(deployment, "combine", {"raw_rows": 1000})
    assert "TieredStopAtLevel" in options("combine")


@pytest.mark.parametrize("threads", ["1", "4"])
def test_a_native_blas_has_one_thread_unless_the_worker_says_otherwise(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if threads != "1":
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
    hook = operator(deployment).local_hook("x")
    hook._build_spark_submit_command("a.py")
    assert hook._env == {"OPENBLAS_NUM_THREADS": threads}


def test_a_run_can_ask_for_another_engine(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the steps that both engines have; the class of the operator stays, what it submits does not."""
    spec = dag_specs(Namespace("alice"))[0]
    engines = {step.name: step.engine for step in spec.on("embedded").steps}
    assert set(engines.values()) == {"embedded"}
    engines = {step.name: step.engine for step in spec.on("embedded").on("spark", override=True).steps}
    assert engines.pop("evaluate") == engines.pop("second_level_lightgbm") == "embedded"
    assert set(engines.values()) == {"spark"}


def test_the_embedded_engine_needs_no_spark_submit(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYCTL_PYTHON_EMBEDDED", sys.executable)
    spec = dag_specs(Namespace("alice"))[0].on("embedded")
    task = make_operator(spec, spec.steps[0], deployment, "dag_two_stage_scenarios")
    # The CLI reads this line.
    assert "Engine: embedded" in (task.doc_md or "").splitlines()
    script = Path(deployment.artifacts_root) / "step.py"
    script.write_text("import sys; sys.exit(f'StepError: {sys.argv[1]}')")
    task.application = str(script)
    with pytest.raises(AirflowException, match="the step failed: StepError: the-document") as excinfo:
        task.submit(context(), "the-document")
    # Airflow logs a traceback for each error of the chain.
    assert excinfo.value.__suppress_context__
    assert "airflow.providers.apache.spark.hooks" not in sys.modules or task._hook is None


def test_parameters_are_data_and_not_templates(deployment: Deployment) -> None:
    assert operator(deployment).template_fields == ()


def test_a_place_that_cannot_be_served_is_refused_when_the_dag_is_made(deployment: Deployment) -> None:
    step = StepSpec("s", "split", "d", {}, place="yarn")
    spec = DagSpec("x_alice", "", "e", (step,))
    other = Deployment("r_1", "lab", "alice", "/d", "/a", "/f")
    with pytest.raises(ValueError, match="place 'yarn' is not available under profile 'lab'"):
        build_dag(spec, other, "dag_x")


def test_the_outcome_of_the_artifact_is_noted_and_logged(
    deployment: Deployment, submissions: list[dict], capfd: pytest.CaptureFixture[str]
) -> None:
    make_inputs(deployment, "first_level_als")
    first = context("run1")
    operator(deployment, "first_level_als").execute(first)
    assert [note["outcome"] for note in first["ti"].pushed] == ["computing", "computed"]
    second = context("run2")
    operator(deployment, "first_level_als").execute(second)
    (note,) = second["ti"].pushed
    assert (note["outcome"], note["origin"]["run_id"], note["parameters"]) == ("reused", "run1", "rank=32, seed=42")
    assert note["origin"]["dag_id"] == "two_stage_ml100k_alice"
    output = "".join(capfd.readouterr())
    assert re.search(
        r"reused \(rank=32, seed=42, made \d{4}-\d\d-\d\d \d\d:\d\d UTC by two_stage_ml100k_alice\)", output
    )


def test_why_an_artifact_is_computed_beside_others(
    deployment: Deployment, submissions: list[dict], capfd: pytest.CaptureFixture[str]
) -> None:
    task = operator(deployment, "split")
    task.execute(context("run1"))
    changed = operator(deployment, "split")
    changed.step_document["code"] = {**changed.step_document["code"], "workloads/split.py": "0" * 16}
    changed.step_document["output"] += "0"
    changed.execute(context("run2"))
    output = "".join(capfd.readouterr())
    old = task.step_document["code"]["workloads/split.py"]
    advice = f'same results? then add to it: SAME_RESULTS = {{"{"0" * 16}": "{old}"}}'
    assert f"code of workloads/split.py changed ({advice})" in output


def test_a_missing_input_that_has_moved_is_named_with_what_to_clear(
    deployment: Deployment, submissions: list[dict]
) -> None:
    task = operator(deployment, "first_level_als")
    old = Artifact(task.step_document["inputs"][0]["path"] + "0")
    old.commit(old.begin("x"), {"parameters": {**task.step_document["inputs"][0]["parameters"], "log_path": "old.csv"}})
    note = {"task": "split", "release": "r_0123456789abcdef", "clear": 0, "at": "2026-01-01T00:00:00+00:00"}
    note |= {"identity": "f" * 16, "artifact": str(old)}
    cleared = context("run1", xcoms={"split": note}, try_number=2, clear_number=1)
    with pytest.raises(AirflowException) as excinfo:
        task.execute(cleared)
    assert "input split has changed from ffffffffffffffff, computed by r_0123456789abcdef" in str(excinfo.value)
    assert "log_path old.csv → replay/ml100k_ratings.csv" in str(excinfo.value)
    assert "clear split too" in str(excinfo.value)
    assert cleared["ti"].pushed == []
