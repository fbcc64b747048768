"""Looking at artifacts in a dry run: in folders, on HDFS, and where nothing can be seen."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from replayctl.bundle import specs
from replayctl.bundle.release import Release, build_release
from replayctl.bundle.specs import Dag, Step
from replayctl.errors import TimedOut
from replayctl.publishing import artifact_view
from replayctl.publishing.artifact_view import open_loader
from replayctl.publishing.deployment import deployment_json
from replayctl.settings.folders import find_folders
from replayctl.settings.load import load_settings
from replayctl.settings.namespace import find_namespace
from replayctl.settings.workspace import Workspace
from tests.fake_hdfs import fake_hdfs
from tests.reporters import RecordingReporter

ROOT = Path(__file__).parents[3]
MANIFEST = json.dumps(
    {"run": {"dag_id": "older_alice"}, "started_unix_s": 0, "seconds": 60.0, "release": "r_1", "files": {}}
)


def workspace(tmp_path: Path, profile: Mapping[str, Any]) -> Workspace:
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"profiles": {"far": {"user": "alice", **profile}}}))
    settings = load_settings("far", environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    return Workspace(settings, find_namespace(settings), RecordingReporter())


def folders(tmp_path: Path, **more: str) -> dict[str, str]:
    here = {"dags": str(tmp_path / "dags"), "spark_submit_files": str(tmp_path / "files"), "data_in_pods": "/data"}
    return here | {"artifacts_in_pods": str(tmp_path / "nowhere")} | more


def on_hdfs(tmp_path: Path, url: str) -> Workspace:
    hdfs = {"url": url, "url_in_pods": "http://namenode:9870"}
    artifacts = "hdfs://namenode:9000/shared/artifacts"
    return workspace(tmp_path, {"folders": folders(tmp_path, artifacts_in_pods=artifacts), "hdfs": hdfs})


def split_of(place: Workspace) -> Step:
    folder = Path(place.settings.folders.dags or "") / "source"
    if not folder.exists():
        shutil.copytree(ROOT / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    release = build_release(folder, deployment_json(place.settings, find_folders(place.settings), "alice"))
    with open_loader(place, look=True) as load:
        dag = next(dag for dag in load(release) if dag.dag_id == "two_stage_ml100k_alice")
    return next(step for step in dag.steps if step.name == "split")


def test_artifacts_in_a_folder_that_the_workers_have_elsewhere(tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    place = workspace(
        tmp_path, {"folders": folders(tmp_path, artifacts=str(artifacts), artifacts_in_pods="/opt/artifacts")}
    )
    step = split_of(place)
    assert step.prospect == {"outcome": "compute", "why": ""}
    here = artifacts / Path(step.artifact).relative_to("/opt/artifacts")
    here.mkdir(parents=True)
    (here / "manifest.json").write_text(MANIFEST)
    (here / "_SUCCESS").touch()
    prospect = split_of(place).prospect
    assert prospect is not None
    assert (prospect["outcome"], prospect["origin"]["dag_id"]) == ("reuse", "older_alice")


def test_a_folder_of_another_machine_is_not_looked_for_here(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    far = {"folders": folders(tmp_path, artifacts=str(tmp_path / "artifacts")), "ssh": {"host": "cluster"}}
    assert split_of(workspace(tmp_path, far)).prospect == {
        "outcome": "unknown",
        "why": f"this machine has no folder {tmp_path / 'nowhere'}",
    }


def test_a_folder_that_may_not_be_looked_into_is_not_there(tmp_path: Path) -> None:
    # Root may look everywhere, but a name of this length exists nowhere.
    far = f"/opt/{'a' * 300}"
    place = workspace(tmp_path, {"folders": folders(tmp_path, artifacts_in_pods=far)})
    assert split_of(place).prospect == {"outcome": "unknown", "why": f"this machine has no folder {far}"}


def test_artifacts_on_hdfs(tmp_path: Path) -> None:
    with fake_hdfs() as hdfs:
        hdfs.files |= {"/": (next(hdfs.numbers), None)}
        place = on_hdfs(tmp_path, hdfs.url)
        step = split_of(place)
        assert step.prospect == {"outcome": "compute", "why": ""}
        path = step.artifact.removeprefix("hdfs://namenode:9000")
        for depth in range(2, len(path.split("/")) + 1):
            hdfs.files["/".join(path.split("/")[:depth])] = (next(hdfs.numbers), None)
        hdfs.files |= {f"{path}/{name}": (next(hdfs.numbers), b"") for name in ("_SUCCESS",)}
        hdfs.files[f"{path}/manifest.json"] = (next(hdfs.numbers), MANIFEST.encode())
        prospect = split_of(place).prospect
        assert prospect is not None
        assert (prospect["outcome"], prospect["origin"]["dag_id"]) == ("reuse", "older_alice")

        # By its number, and by its path.
        refusal = lambda handler, _: bool(handler.refuse("AccessControlException", "not yours")) or True  # noqa: E731
        hdfs.faults["OPEN"] = [refusal, refusal]
        prospect = split_of(place).prospect
        assert prospect is not None
        assert prospect["outcome"] == "unknown"
        assert "HDFS does not let user alice OPEN" in prospect["why"]


def test_a_datanode_out_of_reach_is_not_waited_for(tmp_path: Path) -> None:
    def elsewhere(handler: Any, _: str) -> bool:
        handler.send(307, Location="http://127.0.0.1:1/data")
        return True

    with fake_hdfs() as hdfs:
        hdfs.files |= {"/": (next(hdfs.numbers), None)}
        place = on_hdfs(tmp_path, hdfs.url)
        path = split_of(place).artifact.removeprefix("hdfs://namenode:9000")
        for depth in range(2, len(path.split("/")) + 1):
            hdfs.files["/".join(path.split("/")[:depth])] = (next(hdfs.numbers), None)
        for name in ("_SUCCESS", "manifest.json"):
            hdfs.files[f"{path}/{name}"] = (next(hdfs.numbers), b"{}")
        hdfs.faults["OPEN"] = [elsewhere] * 100
        prospect = split_of(place).prospect
    assert prospect is not None
    assert prospect["outcome"] == "unknown"
    assert "127.0.0.1:1 does not answer" in prospect["why"]


def test_hdfs_that_does_not_answer_hinders_no_dry_run(tmp_path: Path) -> None:
    place = on_hdfs(tmp_path, "http://127.0.0.1:1")
    prospect = split_of(place).prospect
    assert prospect is not None
    assert prospect["outcome"] == "unknown"
    assert "127.0.0.1:1" in prospect["why"]


def test_a_look_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nowhere").mkdir()
    load: Callable[..., tuple[Dag, ...]] = specs.load_specs

    def slow(release: Release, **options: Any) -> tuple[Dag, ...]:
        if options.get("view"):
            raise TimedOut("too late")
        return load(release, **options)

    monkeypatch.setattr(artifact_view, "load_specs", slow)
    assert split_of(workspace(tmp_path, {"folders": folders(tmp_path)})).prospect == {
        "outcome": "unknown",
        "why": "the artifacts could not be read within 60 s",
    }


def test_hdfs_that_hangs_is_given_up_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_view, "_ANSWER_S", 0.2)
    # The system takes the connection, and nobody reads it.
    with socket.create_server(("127.0.0.1", 0)) as server:
        prospect = split_of(on_hdfs(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}")).prospect
    assert prospect is not None
    assert prospect["outcome"] == "unknown"
    assert "does not answer" in prospect["why"]
