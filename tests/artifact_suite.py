"""Tests that every kind of storage of artifacts must pass. Their modules subclass this suite and set the storage."""

import contextlib
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dags.artifacts import Artifact, ArtifactError, remove_abandoned
from dags.storage import Entry, StoragePath, open_path

ROOT = Path(__file__).parent.parent

# A writer that is killed before its Nth change of the storage; before it ends when it makes fewer.
_KILLED = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from dags import artifacts, storage
address, hdfs, kind, replace, stage = json.loads(sys.argv[2])
count = 0
def pass_stage():
    global count
    count += 1
    if count == stage:
        os.kill(os.getpid(), signal.SIGKILL)
def killing(method):
    def wrapped(*arguments):
        pass_stage()
        return method(*arguments)
    return wrapped
paths = getattr(storage, kind)
for name in ("write", "make_folder", "rename", "delete"):
    setattr(paths, name, killing(getattr(paths, name)))
artifact = artifacts.Artifact(address, hdfs)
temporary = artifact.begin("task")
temporary.make_table("table")
temporary.add("table/part-00000.parquet", b"new rows")
temporary.add("text", b"new")
artifact.commit(temporary, {"text": "new"}, replace=replace)
pass_stage()
print(count)
"""


@dataclass(frozen=True)
class Place:
    """A folder for the artifacts of one test, and how HDFS is reached."""

    address: str
    hdfs: Mapping[str, str | None] | None = None

    @property
    def folder(self) -> StoragePath:
        return open_path(self.address, self.hdfs)

    def artifact(self, name: str = "1") -> Artifact:
        return Artifact(f"{self.address}/{name}", self.hdfs)

    def names(self) -> list[str]:
        return list(self.folder.entries())

    def unfinished(self) -> list[str]:
        """The names of unfinished artifacts, wherever they are below the folder."""
        names = [name.rpartition("/")[2] for name, entry in self.folder.tree().items() if entry.is_folder]
        return sorted(name for name in names if name.startswith("."))


def refuse_renames(temporary: Artifact, monkeypatch: pytest.MonkeyPatch, reasons: Mapping[str, str]) -> None:
    """Makes the storage refuse to rename folders whose name ends so, for that reason."""
    kind = type(temporary.folder)
    rename = kind.rename

    def failing(source: StoragePath, target: StoragePath) -> None:
        for suffix, reason in reasons.items():
            if source.name.endswith(suffix):
                raise OSError(reason)
        rename(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "rename", failing)


def write(artifact: Artifact, owner: str, text: str, *, replace: bool = False) -> bool:
    temporary = artifact.begin(owner)
    temporary.make_table("table")
    temporary.add("table/part-00000.parquet", f"{text} rows".encode())
    temporary.add("text", text.encode())
    return artifact.commit(temporary, {"text": text}, replace=replace)


def put(folder: StoragePath, name: str, text: str) -> None:
    (folder / name).write(io.BytesIO(text.encode()))


class ArtifactSuite:
    """Tests that use the fixture `place`, which subclasses define."""

    def test_what_is_committed_is_whole_with_its_manifest(self, place: Place) -> None:
        artifact = place.artifact("a/1")
        assert artifact.what_is_missing() == "no _SUCCESS"
        assert write(artifact, "run", "x")
        assert artifact.is_whole()
        assert artifact.manifest() == artifact.recorded() == {"text": "x"}
        assert artifact.read("text", 10) == b"x"
        assert [part.name for part in artifact.parts("table")] == ["part-00000.parquet"]
        assert list(artifact.folder.parent.entries()) == ["1"]
        assert set(artifact.folder.tree()) == {
            *("_SUCCESS", "manifest.json", "text"),
            *("table", "table/part-00000.parquet"),
        }

    def test_what_is_not_there_is_named(self, place: Place) -> None:
        artifact = place.artifact()
        write(artifact, "run", "x")
        with pytest.raises(ArtifactError, match="has no table candidates"):
            artifact.parts("candidates")
        with pytest.raises(FileNotFoundError):
            artifact.read("none", 10)
        with pytest.raises(ValueError, match="longer than 3 bytes"):
            artifact.read("manifest.json", 3)

    def test_files_are_read_from_any_place(self, place: Place) -> None:
        content = bytes(range(256)) * 40_000
        artifact = place.artifact()
        temporary = artifact.begin("run")
        temporary.add("data", io.BytesIO(content))
        artifact.commit(temporary, {})
        with (artifact.folder / "data").open() as file:
            for offset, length in (
                (0, 10),
                (5_000_000, 100),
                (len(content) - 3, 50),
                (len(content), 5),
                (1, 9_000_000),
            ):
                file.seek(offset)
                assert file.read(length) == content[offset : offset + length]
            assert file.seek(-2, io.SEEK_END) == len(content) - 2
            assert file.read() == content[-2:]

    @pytest.mark.parametrize("size", [6_000_000, 10_000_000, 3_000_000])
    def test_a_file_that_is_replaced_while_it_is_read_is_never_mixed_with_the_new_one(
        self, place: Place, size: int
    ) -> None:
        artifact = place.artifact()
        for text, length in ((b"old", 6_000_000), (b"new", size)):
            temporary = artifact.begin(text.decode())
            temporary.add("data", io.BytesIO(text[:1] * length))
            if text == b"old":
                artifact.commit(temporary, {})
                continue
            with (artifact.folder / "data").open() as file:
                assert file.read(10) == b"o" * 10
                artifact.commit(temporary, {}, replace=True)
                file.seek(5_000_000)
                # An open file of this machine outlives its name; on HDFS it does not.
                with contextlib.suppress(FileNotFoundError):
                    assert file.read() == b"o" * 1_000_000
        assert artifact.read("data", size)[-3:] == b"nnn"

    def test_a_file_that_a_program_writes_by_name_arrives_whole(self, place: Place, tmp_path: Path) -> None:
        folder = place.folder
        folder.make_folder()
        with (folder / "data").local_file() as path:
            path.write_bytes(b"first")
        with (folder / "data").local_file() as path:
            path.write_bytes(b"second")
        assert (folder / "data").local_copy(tmp_path / "copy").read_bytes() == b"second"
        with pytest.raises(RuntimeError), (folder / "other").local_file() as path:
            raise RuntimeError

    def test_of_two_writers_the_first_wins(self, place: Place) -> None:
        artifact = place.artifact()
        one, two = artifact.begin("one"), artifact.begin("two")
        assert artifact.commit(one, {"text": "one"})
        assert not artifact.commit(two, {"text": "two"})
        assert artifact.manifest() == {"text": "one"}
        assert place.names() == ["1"]

    def test_many_writers_at_once_leave_one_whole_artifact(self, place: Place) -> None:
        artifact = place.artifact()
        won: list[bool] = []

        def publish(number: int) -> None:
            won.append(write(artifact, f"run{number}", str(number)))

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won.count(True) == 1
        assert len(won) == len(threads)
        assert artifact.read("text", 10).decode() == artifact.manifest()["text"]
        assert place.names() == ["1"]

    def test_replace_moves_the_old_one_aside(self, place: Place) -> None:
        artifact = place.artifact()
        write(artifact, "run", "old")
        assert write(artifact, "run", "new", replace=True)
        assert artifact.manifest() == {"text": "new"}
        assert place.names() == ["1"]

    def test_the_old_one_comes_back_when_the_new_one_cannot_take_its_place(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        artifact = place.artifact()
        write(artifact, "run", "old")
        temporary = artifact.begin("run")
        refuse_renames(temporary, monkeypatch, {".tmp": "no space left"})
        with pytest.raises(OSError, match="no space left"):
            artifact.commit(temporary, {"text": "new"}, replace=True)
        assert artifact.manifest() == {"text": "old"}

    def test_an_old_one_that_cannot_come_back_is_named_with_both_reasons(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        artifact = place.artifact()
        write(artifact, "run", "old")
        temporary = artifact.begin("run")
        refuse_renames(temporary, monkeypatch, {".tmp": "no space left", ".old": "read-only"})
        with pytest.raises(ArtifactError) as raised:
            artifact.commit(temporary, {"text": "new"}, replace=True)
        old_folder = next(name for name in place.names() if name.endswith(".old"))
        assert str(raised.value) == (
            f"artifact {artifact} was not replaced (no space left), and the old one could not be moved back "
            f"(read-only): it stays in {place.folder / old_folder} until the next try of this task; "
            "the new one is discarded"
        )
        assert Artifact.at(place.folder / old_folder).manifest() == {"text": "old"}

    @pytest.mark.parametrize(
        ("damage", "why"),
        [
            (lambda folder: (folder / "text").delete(), "text is missing"),
            (lambda folder: put(folder, "text", "ol"), "text has 2 bytes, written were 3"),
            (lambda folder: put(folder, "text", "odd"), "text has changed"),
            (lambda folder: put(folder, "manifest.json", ""), "manifest.json cannot be read"),
            (lambda folder: put(folder, "manifest.json", "[1]"), "manifest.json cannot be read"),
            (lambda folder: put(folder, "manifest.json", "{}"), "manifest.json cannot be read"),
            (lambda folder: put(folder, "table/more.parquet", "x"), "table/more.parquet was not written"),
            (lambda folder: (folder / "_SUCCESS").delete(), "no _SUCCESS"),
            (lambda folder: (folder / "manifest.json").delete(), "no manifest.json"),
        ],
    )
    def test_a_part_that_is_gone_cut_changed_or_added_is_noticed_and_healed(
        self, place: Place, damage: Callable[[StoragePath], object], why: str
    ) -> None:
        artifact = place.artifact()
        assert write(artifact, "run", "old")
        damage(artifact.folder)
        assert not artifact.is_whole()
        with pytest.raises(ArtifactError, match=f"is incomplete: {why}"):
            artifact.manifest()
        assert write(artifact, "run", "new")
        assert artifact.manifest() == {"text": "new"}
        assert place.names() == ["1"]

    def test_an_empty_folder_at_the_artifacts_path_is_replaced(self, place: Place) -> None:
        artifact = place.artifact()
        artifact.folder.make_folder()
        assert write(artifact, "run", "new")
        assert artifact.is_whole()
        assert place.names() == ["1"]

    def test_a_rename_neither_nests_nor_overwrites(self, place: Place) -> None:
        for name in ("one", "two"):
            (place.folder / name).make_folder()
            put(place.folder, f"{name}/file", name)
        with pytest.raises(FileExistsError):
            (place.folder / "one").rename(place.folder / "two")
        with pytest.raises(FileNotFoundError):
            (place.folder / "none").rename(place.folder / "three")
        assert set(place.folder.tree()) == {"one", "one/file", "two", "two/file"}

    def test_a_retry_clears_what_its_dead_try_left_but_nobody_elses(self, place: Place) -> None:
        artifact = place.artifact()
        dead, others = artifact.begin("mine"), artifact.begin("other")
        artifact.begin("mine")
        assert not dead.folder.exists()
        assert others.folder.exists()

    def test_a_try_that_was_overtaken_cannot_publish(self, place: Place) -> None:
        artifact = place.artifact()
        zombie = artifact.begin("task")
        artifact.begin("task")
        with pytest.raises(ArtifactError, match="newer try"):
            artifact.commit(zombie, {})
        # Spark makes the folders that it writes to, gone or not.
        zombie.folder.make_folder()
        put(zombie.folder, "half", "x")
        with pytest.raises(ArtifactError, match="newer try"):
            artifact.commit(zombie, {})
        assert artifact.what_is_missing() == "no _SUCCESS"

    def test_a_file_is_not_written_into_a_folder_that_is_gone(self, place: Place) -> None:
        temporary = place.artifact().begin("task")
        temporary.discard()
        with pytest.raises(FileNotFoundError):
            temporary.add("text", b"x")
        assert not temporary.folder.exists()

    @pytest.mark.parametrize("replace", [False, True])
    def test_killed_at_any_stage_old_new_or_nothing_is_there_and_the_next_try_heals_it(
        self, place: Place, replace: bool
    ) -> None:
        artifacts = killed_at_every_stage(place, replace)
        states = [state_of(artifact) for artifact in artifacts]
        assert states[0] == ("old" if replace else "none")
        assert states[-1] == "new"
        assert sorted(states, key=["old", "none", "new"].index) == states
        for artifact in artifacts:
            assert write(artifact, "task", "after", replace=True)
            assert artifact.manifest() == {"text": "after"}
        assert place.names() == ["ml"]
        assert place.unfinished() == []

    @pytest.mark.parametrize("replace", [False, True])
    def test_what_a_killed_try_that_nobody_repeats_leaves_goes_after_a_week(
        self, place: Place, replace: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        artifacts = killed_at_every_stage(place, replace)
        states, unfinished = [state_of(artifact) for artifact in artifacts], place.unfinished()
        assert len(unfinished) > len(artifacts) // 2
        remove_abandoned(place.folder)
        assert place.unfinished() == unfinished
        pass_days(monkeypatch, 8)
        remove_abandoned(place.folder)
        assert place.unfinished() == []
        assert [state_of(artifact) for artifact in artifacts] == states

    def test_an_old_artifact_is_not_abandoned_while_the_new_one_is_on_its_way(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = place.folder / "ml" / "split"
        name = f".1.{'0' * 12}.{'1' * 32}"
        (folder / f"{name}.old").make_folder()
        moment = (folder.entries())[f"{name}.old"].modified_s + 8 * 86400
        (folder / f"{name}.tmp").make_folder()
        new = folder.entries()[f"{name}.tmp"]
        kind = type(folder)
        entries = kind.entries

        def later(self: StoragePath) -> dict[str, Entry]:
            files = entries(self)  # type: ignore[arg-type]
            return {path: replace_time(entry, moment) if entry == new else entry for path, entry in files.items()}

        monkeypatch.setattr(kind, "entries", later)
        pass_days(monkeypatch, 8)
        remove_abandoned(place.folder)
        assert place.unfinished() == [f"{name}.old", f"{name}.tmp"]

    def test_only_what_has_the_name_of_an_unfinished_artifact_is_abandoned(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mark = f"{'0' * 12}.{'1' * 32}"
        names = (".1.tmp", f"1.{mark}.tmp", f".1.{mark}", f".1.{mark}.tmp.more", f".1.{'0' * 11}.{'1' * 32}.tmp")
        for name in names:
            (place.folder / "ml" / "split" / name).make_folder()
        (place.folder / f".1.{mark}.tmp").make_folder()
        put(place.folder, f"ml/split/.2.{mark}.tmp", "a file")
        before = set(place.folder.tree())
        pass_days(monkeypatch, 30)
        remove_abandoned(place.folder)
        assert set(place.folder.tree()) == before


def pass_days(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """The clock is that much later."""
    moment = time.time() + days * 86400
    monkeypatch.setattr(time, "time", lambda: moment)


def replace_time(entry: Entry, moment: float) -> Entry:
    """The entry of a later moment."""
    return replace(entry, modified_s=moment)


def state_of(artifact: Artifact) -> object:
    """`old`, `new`, or `none` where there is no artifact; what is there must be whole."""
    if artifact.is_whole():
        return artifact.manifest()["text"]
    assert not artifact.folder.exists()
    return "none"


def killed_at_every_stage(place: Place, replace: bool) -> list[Artifact]:
    """Artifacts of one workload, each of a writer that was killed one change later than the one before."""
    if replace:
        write(place.artifact("ml/split/0"), "earlier", "old")
    complete_writer = _killed_writer(place, "ml/split/0", replace, 0)
    assert complete_writer.returncode == 0, complete_writer.stderr
    stages = range(1, int(complete_writer.stdout) + 1)

    def kill(stage: int) -> Artifact:
        artifact = place.artifact(f"ml/split/{stage}")
        if replace:
            write(artifact, "earlier", "old")
        killed_writer = _killed_writer(place, f"ml/split/{stage}", replace, stage)
        assert killed_writer.returncode == -signal.SIGKILL, killed_writer.stderr
        return artifact

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(kill, stages))


def _killed_writer(place: Place, name: str, replace: bool, stage: int) -> subprocess.CompletedProcess[str]:
    kind = type(place.folder).__name__
    words = [f"{place.address}/{name}", place.hdfs, kind, replace, stage]
    argv = [sys.executable, "-c", _KILLED, str(ROOT), json.dumps(words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
