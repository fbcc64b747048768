"""Artifacts on this machine's file systems: what holds everywhere, and what is the file system's own."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dags.artifacts import Artifact, ArtifactError
from tests.artifact_suite import ROOT, ArtifactSuite, Place, write


class TestLocalArtifacts(ArtifactSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(str(tmp_path / "artifacts"))


@pytest.mark.parametrize("age_days", [0, 8])
def test_what_dead_tries_of_others_left_goes_by_age(tmp_path: Path, age_days: float) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    (dead := artifact.begin("a run that nobody retries").path / "table").mkdir()
    (dead / "part").write_text("x")
    then = time.time() - age_days * 86400
    for path in (dead / "part", dead, dead.parent / ".open", dead.parent):
        os.utime(path, (then, then))
    Artifact(str(tmp_path / "2")).begin("another")
    assert dead.exists() == (age_days == 0)
    # A file that is written now keeps it, however old the folder is.
    if dead.exists():
        os.utime(dead.parent, (then - 30 * 86400,) * 2)
        Artifact(str(tmp_path / "3")).begin("another")
        assert dead.exists()


def test_addresses_of_other_kinds_are_refused() -> None:
    with pytest.raises(ArtifactError, match="s3:// is not supported"):
        Artifact("s3://bucket/x")
    with pytest.raises(ArtifactError, match="absolute"):
        Artifact("x/y")
    assert Artifact("file:///a/b").path == Artifact("/a/b").path == Path("/a/b")


@pytest.mark.parametrize(
    "address", ["hdfs://", "hdfs://nn:9000", "hdfs://nn:9000/", "hdfs://nn/a//b", "hdfs://nn/a/../b", "hdfs://nn/a\nb"]
)
def test_odd_addresses_on_hdfs_are_refused(address: str) -> None:
    with pytest.raises(ArtifactError, match="not an address like hdfs://NAMENODE:PORT/FOLDER"):
        Artifact(address, {"url": "http://nn:9870", "user": "alice"})


@pytest.mark.parametrize("hdfs", [None, {}, {"url": None, "user": "alice"}])
def test_hdfs_needs_an_address_of_webhdfs(hdfs: dict[str, str | None] | None) -> None:
    with pytest.raises(ArtifactError, match=r"hdfs\.url_in_pods"):
        Artifact("hdfs://nn:9000/x", hdfs)


def test_an_artifact_on_hdfs_has_no_path_on_this_machine() -> None:
    artifact = Artifact("hdfs://nn:9000/x/y", {"url": "http://nn:9870", "user": "alice"})
    assert str(artifact) == artifact.folder.uri == "hdfs://nn:9000/x/y"
    with pytest.raises(ArtifactError, match="not on a file system of this machine"):
        artifact.path.exists()


def test_links_in_an_artifact_are_not_followed(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    write(artifact, "run", "old")
    (tmp_path / "elsewhere").write_text("old")
    (artifact.path / "text").unlink()
    (artifact.path / "text").symlink_to(tmp_path / "elsewhere")
    assert artifact.what_is_missing() == "text is missing"


_WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from dags.artifacts import Artifact
artifact = Artifact(sys.argv[2])
number = 0
while True:
    number += 1
    temporary = artifact.begin("task")
    for part in range(20):
        (temporary.path / f"part-{part}").write_text(str(number) * 100)
    artifact.commit(temporary, {"number": number, "parts": 20}, replace=True)
    print(number, flush=True)
"""


def test_killed_anywhere_the_artifact_is_whole_or_not_there(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    chance = random.Random(7)
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(ROOT), str(artifact.path)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.random() * 0.05)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if artifact.path.exists():
            assert artifact.is_whole()
            manifest = artifact.manifest()
            texts = {(artifact.path / f"part-{part}").read_text() for part in range(20)}
            assert texts == {str(manifest["number"]) * 100}
    assert write(artifact, "task", "after", replace=True)
    assert artifact.manifest() == {"text": "after"}
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []
