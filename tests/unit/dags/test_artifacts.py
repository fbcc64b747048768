"""Artifacts on this machine's file systems: what holds everywhere, and what is the file system's own."""

import io
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from dags import reuse
from dags.artifacts import Artifact, ArtifactError, remove_abandoned
from dags.storage import Entry, LocalPath
from tests.artifact_suite import ROOT, ArtifactSuite, Place, pass_days, write


class TestLocalArtifacts(ArtifactSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(str(tmp_path / "artifacts"))


def test_a_file_that_was_written_lately_keeps_an_unfinished_artifact(tmp_path: Path) -> None:
    temporary = Artifact(str(tmp_path / "ml" / "split" / "1")).begin("a run that nobody retries")
    (temporary.path / "table" / "_temporary").mkdir(parents=True)
    (written := temporary.path / "table" / "_temporary" / "part").write_text("x")
    then = time.time() - 8 * 86400
    for path in (temporary.path, *temporary.path.rglob("*")):
        if path != written:
            os.utime(path, (then, then))
    remove_abandoned(LocalPath(tmp_path))
    assert written.exists()
    os.utime(written, (then, then))
    remove_abandoned(LocalPath(tmp_path))
    assert os.listdir(tmp_path / "ml" / "split") == []


def test_links_are_not_abandoned_and_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (precious := tmp_path / "precious" / "file").parent.mkdir()
    precious.write_text("x")
    namespace = tmp_path / "alice"
    (namespace / "ml" / "split").mkdir(parents=True)
    name = f".1.{'0' * 12}.{'1' * 32}.tmp"
    (namespace / "ml" / "split" / name).symlink_to(precious.parent)
    (namespace / "other").symlink_to(tmp_path / "precious")
    (dead := namespace / "ml" / "split" / name.replace(".1.", ".2.")).mkdir()
    (dead / "link").symlink_to(precious.parent)
    pass_days(monkeypatch, 8)
    remove_abandoned(LocalPath(namespace))
    assert precious.exists()
    assert [path.name for path in (namespace / "ml" / "split").iterdir()] == [name]


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


def test_a_manifest_that_is_not_a_file_is_not_opened(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    write(artifact, "run", "old")
    (artifact.path / "manifest.json").rename(tmp_path / "elsewhere")
    (artifact.path / "manifest.json").symlink_to(tmp_path / "elsewhere")
    assert artifact.what_is_missing() == "no manifest.json"
    (artifact.path / "manifest.json").unlink()
    # Opened, it would wait for a writer.
    os.mkfifo(artifact.path / "manifest.json")
    assert artifact.what_is_missing() == "no manifest.json"


@pytest.mark.parametrize(
    "text", ["[1]", "[" * 100_000, '{"files": [1]}', '{"files": {"text": {"bytes": Infinity}}}', "1", "\udcff", ""]
)
def test_a_manifest_that_is_none_is_one_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    write(artifact, "run", "old")
    (artifact.path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert artifact.what_is_missing() == "manifest.json cannot be read"
    document = {"output": str(tmp_path / "2"), "parameters": {}, "code": {}, "inputs": []}
    assert reuse.prospect(document)["outcome"] == "compute"


def test_what_replaces_a_file_is_neither_waited_for_nor_followed(tmp_path: Path) -> None:
    entry = Entry(False, 0, 0.0)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "precious").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for name in ("pipe", "link"):
        path = LocalPath(tmp_path / name)
        with pytest.raises(FileNotFoundError):
            path.has_changed(entry, {"blake2b": "x"})
        with pytest.raises(OSError, match=f"/{name}'"):
            path.write(io.BytesIO(b"overwritten"))
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(FileExistsError):
            LocalPath(tmp_path / "pipe").write(io.BytesIO(b"lost"))
    finally:
        os.close(reader)
    assert (tmp_path / "precious").read_text() == "x"


def test_a_large_file_is_not_read_into_memory_to_be_compared(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        assert LocalPath(tmp_path / "large").has_changed(Entry(False, 64 << 20, 0.0), {"blake2b": "x"})
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


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


def test_a_pipe_beside_an_artifact_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "split" / "planted").mkdir(parents=True)
    os.mkfifo(tmp_path / "split" / "planted" / "manifest.json")
    document = {"output": str(tmp_path / "split" / "mine"), "parameters": {}, "code": {}, "inputs": []}
    assert reuse.prospect(document) == {"outcome": "compute", "why": ""}
