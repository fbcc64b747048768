"""A step is computed once: skipped if complete, computed again if deleted, forced or killed half-way."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dags.artifacts import Artifact, ArtifactError
from dags.workloads import runner
from dags.workloads.context import StepContext

from .conftest import Pipeline, sample_rows, write_log

ROOT = Path(__file__).parents[2]
_STEP = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); from dags.workloads import runner;"
    "runner.run(json.loads(sys.argv[2]))"
)


def test_a_whole_artifact_is_skipped_without_an_engine(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepContext, "engine", property(lambda self: pytest.fail("an engine was started")))
    before = {step.name: pipeline.manifest(step.name) for step in pipeline.spec.steps}
    pipeline.run()
    assert before == {step.name: pipeline.manifest(step.name) for step in pipeline.spec.steps}


def test_force_computes_again_and_keeps_the_identity(pipeline: Pipeline) -> None:
    before = pipeline.manifest("split")
    runner.run(pipeline.document("split", force=True))
    after = pipeline.manifest("split")
    assert after["started_unix_s"] > before["started_unix_s"]
    assert (after["identity"], after["results"]) == (before["identity"], before["results"])


def test_a_step_that_is_computed_removes_what_killed_tasks_of_its_namespace_have_left(pipeline: Pipeline) -> None:
    namespace = pipeline.path("split").parents[2]
    name = f".0f.{'0' * 12}.{'1' * 32}.tmp"
    dead = [namespace / "other" / "combine" / name, pipeline.path("split").parent / name]
    foreign = namespace.parent / "somebody" / "other" / "combine" / name
    for folder in (*dead, foreign):
        (folder / "table").mkdir(parents=True)
        for path in (folder / "table", folder):
            os.utime(path, (1, 1))
    pipeline.run()
    assert all(folder.exists() for folder in dead)
    runner.run(pipeline.document("split", force=True))
    assert not any(folder.exists() for folder in dead)
    assert foreign.exists()


def test_changed_parameters_give_an_artifact_beside_the_old_one(pipeline: Pipeline) -> None:
    other = Pipeline(Path(pipeline.deployment.artifacts_root).parent, poprec={}, itemknn={"num_neighbours": 20})
    assert other.path("split") == pipeline.path("split")
    assert other.path("first_level_poprec") == pipeline.path("first_level_poprec")
    other.run("first_level_itemknn")
    assert other.path("first_level_itemknn") != pipeline.path("first_level_itemknn")
    assert other.path("first_level_itemknn").parent == pipeline.path("first_level_itemknn").parent
    assert pipeline.manifest("first_level_itemknn")["parameters"]["kwargs"] == {"num_neighbours": 10}


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"first_level_poprec: input .*split.* is incomplete"):
        Pipeline(tmp_path).run("first_level_poprec")


def test_an_unknown_workload_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="unknown workload 'os': this release has no workloads/os.py"):
        runner.run(pipeline.document("split", workload="os"))


def start(document: dict[str, Any]) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", _STEP, str(ROOT), json.dumps(document)]
    return subprocess.Popen(argv, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_killed_at_any_moment_nothing_counts_as_whole_and_the_retry_succeeds(tmp_path: Path) -> None:
    write_log(tmp_path / "data" / "replay" / "ml100k_ratings.csv", sample_rows()[:2000])
    pipeline = Pipeline(tmp_path)
    document = pipeline.document("split")
    chance = random.Random(11)
    phases = {"nothing": 0, "half": 0, "whole": 0}
    # The first one as soon as something is there: the whole step takes less than a second.
    for delay in (0.0, chance.random() * 0.1, chance.random() * 0.3, chance.random() * 0.8):
        child = start(document)
        started = time.monotonic()
        while not list(pipeline.path("split").parent.glob(".*.tmp")) and time.monotonic() - started < 60:
            time.sleep(0.002)
        time.sleep(delay)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        artifact = Artifact(str(pipeline.path("split")))
        if artifact.path.exists():
            assert artifact.is_whole()
            phases["whole"] += 1
            break
        phases["half" if list(artifact.path.parent.glob(".*.tmp")) else "nothing"] += 1
    assert phases["half"] >= 1
    assert start(document).wait(120) == 0
    assert pipeline.manifest("split")["results"]["raw_rows"] == 2000
    assert [path.name for path in pipeline.path("split").parent.iterdir()] == [pipeline.step("split").identity]


def test_a_driver_ends_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    """The worker was killed hard: its driver, here one that would wait for ever, must not live on."""
    supervisor = subprocess.Popen(["sleep", "120"])
    code = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1]); from dags.workloads import runner;"
        "runner._end_with_supervisor(int(sys.argv[2])); print(os.getpid(), flush=True); time.sleep(600)"
    )
    # An intermediate process stands for the JVM that spark-submit puts between the worker and the driver.
    argv = [sys.executable, "-c", code, str(ROOT), str(supervisor.pid)]
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *argv], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    driver = int(parent.stdout.readline())
    supervisor.kill()
    supervisor.wait()
    parent.wait(60)
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{driver}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(driver, 0)


def test_what_nobody_waits_for_any_more_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path / "data" / "replay" / "ml100k_ratings.csv", sample_rows()[:2000])
    pipeline = Pipeline(tmp_path)
    monkeypatch.setattr(runner, "_end_with_supervisor", lambda pid: None)
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(ArtifactError, match="the task's supervisor has ended"):
        runner.run(pipeline.document("split", supervisor_pid=ended.pid))
    assert list(pipeline.path("split").parent.iterdir()) == []
