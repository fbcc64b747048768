"""Unfinished artifacts of killed tasks are removed by age and owner, in a folder; HDFS is in tests/integration."""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from dags.artifacts import Artifact
from replayctl.clients.webhdfs import Entry
from replayctl.errors import AuthFailed, NotFound, ReplayctlError, SettingsError
from replayctl.forwarding import hdfs as forwarding
from replayctl.publishing import unfinished as unfinished_artifacts
from replayctl.publishing.unfinished import Unfinished, remove_unfinished
from replayctl.settings.load import load_settings
from replayctl.settings.namespace import find_namespace
from replayctl.settings.workspace import Workspace
from tests.artifact_suite import Place, killed_at_every_stage, state_of
from tests.reporters import RecordingReporter

MARK = f"{'0' * 12}.{'1' * 32}"


def workspace(tmp_path: Path, **folders: str) -> Workspace:
    for name in ("dags", "files"):
        (tmp_path / name).mkdir(exist_ok=True)
    own = {"dags": str(tmp_path / "dags"), "spark_submit_files": str(tmp_path / "files"), "data_in_pods": "/x"}
    profile = {"user": "alice", "folders": {**own, "artifacts_in_pods": "/opt/artifacts", **folders}}
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"default_profile": "p", "profiles": {"p": profile}}))
    settings = load_settings(None, environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    return Workspace(settings, find_namespace(settings), RecordingReporter())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (root := tmp_path / "the artifacts").mkdir()
    return root


def remove(tmp_path: Path, root: Path, *, dry_run: bool = False) -> Unfinished:
    return remove_unfinished(workspace(tmp_path, artifacts=str(root)), {}, dry_run=dry_run)


def age(folder: Path, days: float = 8) -> Path:
    """Makes a folder with all that is in it older, links themselves too."""
    past = time.time() - days * 86400
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (past, past), follow_symlinks=False)
    return folder


def unfinished(folder: Path, name: str = "1", ending: str = "tmp") -> Path:
    """An unfinished artifact of a killed Spark."""
    path = folder / f".{name}.{MARK}.{ending}"
    (path / "table" / "_temporary" / "0").mkdir(parents=True)
    (path / "table" / "_temporary" / "0" / "part").write_text("x")
    (path / ".open").touch()
    return path


@pytest.mark.parametrize("replace", [False, True])
def test_a_writer_killed_at_any_stage_leaves_nothing_after_gc(tmp_path: Path, root: Path, replace: bool) -> None:
    place = Place(str(root / "alice"))
    artifacts = killed_at_every_stage(place, replace)
    states, unfinished_paths = [state_of(artifact) for artifact in artifacts], place.unfinished()
    young = remove(tmp_path, root)
    assert (young.removed, sorted(young.kept)) == ((), [f"ml/split/{name}" for name in unfinished_paths])
    assert set(young.kept.values()) == {"written to within the last 7 days"}
    age(root)
    plan = remove(tmp_path, root, dry_run=True)
    assert place.unfinished() == unfinished_paths
    removed = remove(tmp_path, root)
    assert plan == removed == Unfinished(f"{root}/alice on this machine", tuple(young.kept), {}, {})
    assert place.unfinished() == []
    assert [state_of(artifact) for artifact in artifacts] == states
    assert remove(tmp_path, root).removed == ()


def test_only_unfinished_artifacts_of_the_own_namespace_are_removed(tmp_path: Path, root: Path) -> None:
    split = root / "alice" / "ml 1m" / "split"
    mine = [unfinished(split), unfinished(split, "2", "old"), unfinished(split, "-rf $(x) 'y'")]
    foreign = [unfinished(root / owner / "ml" / "split") for owner in ("bob", "_shared", "alice2")]
    lookalikes = [split / f".1.{MARK}", split / ".1.tmp", split / f".1.{MARK}.tmp.x", split / f"1.{MARK}.tmp"]
    lookalikes += [split / f".1.{MARK[1:]}.tmp", root / "alice" / f".1.{MARK}.tmp"]
    for folder in lookalikes:
        folder.mkdir()
    (file := split / f".4.{MARK}.tmp").write_text("a file")
    age(root)
    expected = {str(path) for path in (*foreign, *lookalikes, file)}
    assert sorted(remove(tmp_path, root).removed) == sorted(f"ml 1m/split/{path.name}" for path in mine)
    assert not any(path.exists() for path in mine)
    assert all(os.path.lexists(path) for path in expected)


def test_backslashes_in_names_are_only_backslashes(tmp_path: Path, root: Path) -> None:
    old = [age(unfinished(root / "alice" / name / "split")) for name in (r"a\nremoved b", r"c\c", r"d\0101")]
    young = unfinished(root / "alice" / r"e\nyoung f" / "split")
    names = [str(path.relative_to(root / "alice")) for path in old]
    for dry_run in (True, False):
        report = remove(tmp_path, root, dry_run=dry_run)
        assert (sorted(report.removed), list(report.kept)) == (names, [str(young.relative_to(root / "alice"))])


def test_the_age_is_that_of_the_newest_file_and_of_what_replaces_it(tmp_path: Path, root: Path) -> None:
    split = root / "alice" / "ml" / "split"
    age(unfinished(split))
    (split / f".1.{MARK}.tmp" / "table" / "_temporary" / "0" / "part").write_text("written now")
    age(unfinished(split, "2", "old"))
    unfinished(split, "2")
    age(unfinished(split, "3"), days=6.9)
    assert remove(tmp_path, root).removed == ()
    age(split)
    assert len(remove(tmp_path, root).removed) == 4


def test_links_are_left_and_not_followed(tmp_path: Path, root: Path) -> None:
    elsewhere = age(unfinished(tmp_path / "elsewhere" / "split"))
    split = root / "alice" / "ml" / "split"
    split.mkdir(parents=True)
    (split / f".1.{MARK}.tmp").symlink_to(elsewhere)
    (root / "alice" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "alice" / "ml" / "linked").symlink_to(elsewhere.parent)
    (unfinished(split, "2") / "link").symlink_to(elsewhere)
    age(split / f".2.{MARK}.tmp")
    assert remove(tmp_path, root).removed == (f"ml/split/.2.{MARK}.tmp",)
    assert (elsewhere / "table" / "_temporary" / "0" / "part").exists()
    assert (split / f".1.{MARK}.tmp").is_symlink()
    shutil.move(root / "alice", root / "bob")
    (root / "alice").symlink_to(root / "bob")
    with pytest.raises(ReplayctlError, match="is a link that belongs to"):
        remove(tmp_path, root)


def test_a_writer_that_is_alive_after_all_publishes_nothing(tmp_path: Path, root: Path) -> None:
    artifact = Artifact(str(root / "alice" / "ml" / "split" / "1"))
    temporary = artifact.begin("task")
    age(temporary.path)
    assert len(remove(tmp_path, root).removed) == 1
    with pytest.raises(Exception, match="so it is not published"):
        artifact.commit(temporary, {})
    assert not artifact.folder.exists()


def test_where_nobody_says_where_the_artifacts_are_that_is_the_answer(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="were not looked for: profile 'p' has no folders.artifacts"):
        remove_unfinished(workspace(tmp_path), {})
    with pytest.raises(NotFound, match="the folder of artifacts .*nowhere does not exist"):
        remove_unfinished(workspace(tmp_path, artifacts=str(tmp_path / "nowhere")), {})


class Hdfs:
    """Folders of HDFS by path; what `refused` is asked to remove stays, and so does what is `stubborn`, silently."""

    def __init__(self, *paths: str, forbidden: str = "", stubborn: str = "") -> None:
        self.paths = set(paths)
        self.refused, self.stubborn = forbidden, stubborn

    def entries(self, path: str) -> list[Entry] | None:
        below = {other[len(path) + 1 :].split("/")[0] for other in self.paths if other.startswith(f"{path}/")}
        return [Entry(name, not name.startswith("part"), 0, 0.0) for name in sorted(below)] or None

    def delete(self, path: str) -> None:
        if self.refused and self.refused in path:
            raise AuthFailed(f"HDFS does not let alice change {path}")
        if not (self.stubborn and self.stubborn in path):
            self.paths = {other for other in self.paths if other != path and not other.startswith(f"{path}/")}


def test_what_hdfs_does_not_remove_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = "/replay/alice/ml/split"
    names = [f".{name}.{MARK}.tmp" for name in ("gone", "refused", "stubborn", "large")]
    paths = [f"{base}/{name}/part" for name in names] + [f"{base}/{names[3]}/part{number}" for number in range(20)]
    hdfs = Hdfs(*paths, forbidden=names[1], stubborn=names[2])
    monkeypatch.setattr(forwarding, "open_hdfs", lambda *_: contextlib.nullcontext(hdfs))
    monkeypatch.setattr(unfinished_artifacts, "_MAX_ENTRIES", 10)
    place = workspace(tmp_path, artifacts_in_pods="hdfs://nn:9000/replay/")
    plan = remove_unfinished(place, {}, dry_run=True)
    assert plan.removed == tuple(sorted(f"ml/split/{name}" for name in names[:3]))
    assert hdfs.paths == set(paths)
    removed = remove_unfinished(place, {})
    assert (removed.folder, removed.removed) == ("hdfs://nn:9000/replay/alice", (f"ml/split/{names[0]}",))
    assert list(removed.kept.values()) == [
        f"has more than 10 files: look at it, then run `hdfs dfs -rm -r {base}/{names[3]}`"
    ]
    assert removed.failed == {
        f"ml/split/{names[1]}": f"HDFS does not let alice change {base}/{names[1]}/.open",
        f"ml/split/{names[2]}": "HDFS took the request to remove it, and it is still there",
    }
