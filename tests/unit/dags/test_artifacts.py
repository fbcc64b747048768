"""Artifacts are whole or not there, whoever is killed and whoever comes first."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dags.artifacts import Artifact, ArtifactError

ROOT = Path(__file__).parents[3]


def write(artifact: Artifact, owner: str, text: str, *, replace: bool = False) -> bool:
    temporary = artifact.begin(owner)
    (temporary.path / "data").write_text(text)
    return artifact.commit(temporary, {"text": text}, replace=replace)


def test_what_is_committed_is_whole_with_its_manifest(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "a" / "1"))
    assert not artifact.is_whole()
    assert write(artifact, "run", "x")
    assert artifact.is_whole()
    assert artifact.manifest() == {"text": "x"}
    assert [path.name for path in artifact.path.parent.iterdir()] == ["1"]


def test_of_two_writers_the_first_wins(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    one, two = artifact.begin("one"), artifact.begin("two")
    assert artifact.commit(one, {"text": "one"})
    assert not artifact.commit(two, {"text": "two"})
    assert artifact.manifest() == {"text": "one"}
    assert list(tmp_path.iterdir()) == [artifact.path]


def test_replace_moves_the_old_one_aside(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    write(artifact, "run", "old")
    assert write(artifact, "run", "new", replace=True)
    assert artifact.manifest() == {"text": "new"}
    assert list(tmp_path.iterdir()) == [artifact.path]


@pytest.mark.parametrize("missing", ["_SUCCESS", "manifest.json"])
def test_a_folder_without_either_mark_is_not_whole_and_is_replaced(tmp_path: Path, missing: str) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    write(artifact, "run", "old")
    (artifact.path / missing).unlink()
    assert not artifact.is_whole()
    with pytest.raises(ArtifactError, match="is incomplete"):
        artifact.manifest()
    assert write(artifact, "run", "new")
    assert artifact.manifest() == {"text": "new"}


def test_a_retry_clears_what_its_dead_try_left_but_nobody_elses(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    dead, others = artifact.begin("mine"), artifact.begin("other")
    artifact.begin("mine")
    assert not dead.path.exists()
    assert others.path.exists()


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


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda path: (path / "data").unlink(), "data is missing"),
        (lambda path: (path / "data").write_text("ol"), "data has 2 bytes, written were 3"),
        (lambda path: (path / "data").write_text("odd"), "data has changed"),
        (lambda path: (path / "manifest.json").write_text(""), "manifest.json cannot be read"),
        (lambda path: (path / "manifest.json").write_text("[1]"), "manifest.json cannot be read"),
        (lambda path: (path / "manifest.json").write_text("{}"), "manifest.json cannot be read"),
        (lambda path: (path / "table" / "more.parquet").write_text("x"), "table/more.parquet was not written"),
    ],
)
def test_a_part_that_is_gone_cut_changed_or_added_is_noticed_and_healed(
    tmp_path: Path, harm: Callable[[Path], object], why: str
) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    assert write(artifact, "run", "old")
    (artifact.path / "table").mkdir()
    assert artifact.is_whole()
    harm(artifact.path)
    assert not artifact.is_whole()
    with pytest.raises(ArtifactError, match=why):
        artifact.manifest()
    assert write(artifact, "run", "new")
    assert artifact.manifest() == {"text": "new"}


def test_a_try_that_was_overtaken_cannot_publish(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    zombie = artifact.begin("task")
    artifact.begin("task")
    # Spark makes the folders that it writes to, gone or not.
    zombie.path.mkdir()
    (zombie.path / "half").write_text("x")
    with pytest.raises(ArtifactError, match="newer try"):
        artifact.commit(zombie, {})
    assert not artifact.is_whole()


def test_paths_of_other_schemes_and_relative_ones_are_refused() -> None:
    with pytest.raises(ArtifactError, match="hdfs"):
        Artifact("hdfs://namenode:9000/x")
    with pytest.raises(ArtifactError, match="absolute"):
        Artifact("x/y")
    assert Artifact("file:///a/b").path == Artifact("/a/b").path == Path("/a/b")


def test_many_writers_at_once_leave_one_whole_artifact(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "1"))
    won: list[bool] = []
    threads = [threading.Thread(target=lambda n=n: won.append(write(artifact, f"run{n}", str(n)))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won.count(True) == 1
    assert (artifact.path / "data").read_text() == artifact.manifest()["text"]


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
