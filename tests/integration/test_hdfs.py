"""Artifacts on a real HDFS, without a JVM on this side."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dags.artifacts import Artifact
from dags.webhdfs import HdfsError, HdfsUnavailable, WebHdfs
from replayctl.publishing.unfinished import Unfinished, remove_unfinished
from replayctl.settings.load import load_settings
from replayctl.settings.namespace import find_namespace
from replayctl.settings.workspace import Workspace
from tests.artifact_suite import (
    ROOT,
    ArtifactSuite,
    Place,
    killed_at_every_stage,
    pass_days,
    put,
    state_of,
    write,
)
from tests.reporters import RecordingReporter

from .lab import Lab

# Sends a file whose second half never comes.
_UPLOAD = """
import io, sys, time
sys.path.insert(0, sys.argv[1])
from dags.webhdfs import WebHdfs
class Slow(io.BytesIO):
    def read(self, size=-1):
        if self.tell() >= 16 << 20:
            print("half", flush=True)
            time.sleep(600)
        return super().read(size)
WebHdfs(sys.argv[2], "alice").write(sys.argv[3], Slow(bytes(32 << 20)), 32 << 20)
"""


@pytest.fixture(scope="module")
def namenode(lab: Lab) -> str:
    return lab.kubectl("-n", "hdfs-3", "get", "svc/hdfs-namenode", "-o", "jsonpath={.spec.clusterIP}")


@pytest.fixture(scope="module")
def root(namenode: str) -> Iterator[Place]:
    place = Place(
        f"hdfs://{namenode}:9000/tmp/replayctl-tests-{uuid.uuid4().hex}",
        {"url": f"http://{namenode}:9870", "user": "alice"},
    )
    yield place
    place.folder.delete()


@pytest.fixture
def place(root: Place) -> Place:
    return Place(f"{root.address}/{uuid.uuid4().hex}", root.hdfs)


class TestArtifactsOnHdfs(ArtifactSuite):
    """What holds everywhere, on HDFS."""


def test_a_copy_of_an_artifact_is_whole_as_long_as_its_content_is_the_same(place: Place) -> None:
    artifact = place.artifact()
    write(artifact, "run", "old")
    for name in ("text", "table/part-00000.parquet"):
        content = artifact.read(name, 100)
        (artifact.folder / name).delete()
        (artifact.folder / name).write(io.BytesIO(content))
    assert artifact.is_whole()
    put(artifact.folder, "text", "odd")
    assert artifact.what_is_missing() == "text has changed"


def test_everything_belongs_to_the_user_of_the_deployment(place: Place, namenode: str, lab: Lab) -> None:
    artifact = place.artifact()
    write(artifact, "run", "x")
    path = artifact.folder.uri.partition(":9000")[2]
    listed = lab.kubectl("-n", "hdfs-3", "exec", "hdfs-namenode-0", "--", "hdfs", "dfs", "-ls", path)
    rows = [line.split() for line in listed.splitlines() if line.startswith(("-", "d"))]
    assert {row[2] for row in rows} == {"alice"}
    assert len(rows) == 4


def test_a_writer_killed_in_the_middle_of_a_file_leaves_nothing_that_stays(place: Place) -> None:
    artifact = place.artifact()
    assert place.hdfs
    temporary = artifact.begin("task")
    path = (temporary.folder / "big").uri.partition(":9000")[2]
    argv = [sys.executable, "-c", _UPLOAD, str(ROOT), str(place.hdfs["url"]), path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        os.killpg(child.pid, signal.SIGKILL)
    assert write(artifact, "task", "new")
    assert artifact.is_whole()
    assert place.names() == ["1"]


def workspace(place: Place, tmp_path: Path, **hdfs: str) -> Workspace:
    address = place.address.removesuffix("/alice")
    folders = {**dict.fromkeys(("dags", "spark_submit_files", "data_in_pods"), "/x"), "artifacts_in_pods": address}
    profile = {"user": "alice", "folders": folders, "hdfs": hdfs}
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"default_profile": "p", "profiles": {"p": profile}}))
    settings = load_settings(None, environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    return Workspace(settings, find_namespace(settings), RecordingReporter())


@pytest.mark.parametrize("replace", [False, True])
def test_gc_removes_what_a_writer_leaves_whatever_stage_it_is_killed_at(
    root: Place, tmp_path: Path, replace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert root.hdfs
    place = Place(f"{root.address}/{uuid.uuid4().hex}/alice", root.hdfs)
    own = workspace(place, tmp_path, url=str(root.hdfs["url"]))
    artifacts = killed_at_every_stage(place, replace)
    states, unfinished = [state_of(artifact) for artifact in artifacts], place.unfinished()
    young = remove_unfinished(own, {})
    assert (young.removed, sorted(young.kept)) == ((), [f"ml/split/{name}" for name in unfinished])
    pass_days(monkeypatch, 8)
    would = remove_unfinished(own, {}, dry_run=True)
    assert place.unfinished() == unfinished
    assert remove_unfinished(own, {}) == would == Unfinished(place.address, tuple(young.kept), {}, {})
    assert place.unfinished() == []
    assert [state_of(artifact) for artifact in artifacts] == states


def test_gc_leaves_what_is_of_other_owners_what_is_alike_and_what_is_written_to(
    root: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert root.hdfs
    place = Place(f"{root.address}/{uuid.uuid4().hex}/alice", root.hdfs)
    mark = f"{'0' * 12}.{'1' * 32}"
    split = place.folder / "ml" / "split"
    for name in (".1.tmp", f"1.{mark}.tmp", f".1.{mark}.tmp.x", f".2.{mark}.old", f".3.{mark}.tmp"):
        (split / name / "table").make_folder()
    (place.folder.parent / "bob" / "ml" / "split" / f".6.{mark}.tmp").make_folder()
    pass_days(monkeypatch, 8)
    # What replaces the old one is written to now.
    newest = split / f".2.{mark}.tmp"
    newest.make_folder()
    path = newest.uri.partition(":9000")[2]
    later = {"op": "SETTIMES", "modificationtime": int(time.time() * 1000), "user.name": "alice"}
    url = f"{root.hdfs['url']}/webhdfs/v1{path}?{urllib.parse.urlencode(later)}"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=30).close()
    result = remove_unfinished(workspace(place, tmp_path, url=str(root.hdfs["url"])), {})
    assert result.removed == (f"ml/split/.3.{mark}.tmp",)
    assert set(result.kept) == {f"ml/split/.2.{mark}.tmp", f"ml/split/.2.{mark}.old"}
    assert result.failed == {}
    assert set(split.entries()) == {f".2.{mark}.old", f".2.{mark}.tmp", ".1.tmp", f"1.{mark}.tmp", f".1.{mark}.tmp.x"}
    assert (place.folder.parent / "bob" / "ml" / "split" / f".6.{mark}.tmp").exists()


def test_a_namenode_in_safe_mode_is_waited_for_and_then_an_error(place: Place, lab: Lab) -> None:
    artifact = place.artifact()
    write(artifact, "run", "old")
    assert place.hdfs
    impatient = WebHdfs(str(place.hdfs["url"]), "alice", patience_s=1.0)
    path = artifact.folder.uri.partition(":9000")[2]
    safe_mode = ("-n", "hdfs-3", "exec", "hdfs-namenode-0", "--", "hdfs", "dfsadmin", "-safemode")
    lab.kubectl(*safe_mode, "enter")
    try:
        assert artifact.is_whole()
        with pytest.raises(HdfsUnavailable, match="is not ready .*(?i:safe mode)"):
            impatient.rename(path, f"{path}-elsewhere")
        with pytest.raises(HdfsUnavailable, match="is not ready .*(?i:safe mode)"):
            impatient.write(f"{path}/text", io.BytesIO(b"new"), 3)
        assert artifact.manifest() == {"text": "old"}
        leaving = subprocess.Popen(
            [str(lab.folder / "cluster"), "kubectl", *safe_mode, "leave"], stdout=subprocess.DEVNULL
        )
        assert write(artifact, "run", "new", replace=True)
        assert leaving.wait(60) == 0
    finally:
        lab.kubectl(*safe_mode, "leave")
    assert artifact.manifest() == {"text": "new"}


def test_an_address_that_is_not_webhdfs_is_named(namenode: str, lab: Lab) -> None:
    yarn = lab.kubectl("-n", "spark-lama-exps", "get", "svc/yarn-resourcemanager", "-o", "jsonpath={.spec.clusterIP}")
    with pytest.raises(HdfsError, match=f"http://{yarn}:8088"):
        Artifact(f"hdfs://{namenode}:9000/x", {"url": f"http://{yarn}:8088", "user": "alice"}).is_whole()
