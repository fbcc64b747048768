"""upd-wheels-and-jars --prune: what it removes when it does not know everything."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from replayctl import cli
from replayctl.publishing import package_stores, package_uses
from replayctl.publishing.package_uses import Uses
from replayctl.storage.packages import Stored, StoredPackage


class FakeStore:
    """A store with two builds of one package."""

    path, root, name = "/files", "/pods", "/files on this machine"
    leftovers = 0

    def __init__(self) -> None:
        self.removed: list[str] = []

    def __enter__(self) -> "FakeStore":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def look(self, sha256: Sequence[str] = ()) -> Stored:
        facts = ({"at": f"2026-01-0{number}T00:00:00+00:00"} for number in (1, 2))
        packages = (StoredPackage(f"p_{number}", f"a-{number}.jar", 1, facts=row) for number, row in enumerate(facts))
        return Stored({package.folder: package for package in packages}, {})

    def prune(self, folders: Sequence[str], audit: str) -> int:
        self.removed += folders
        return self.leftovers


@pytest.mark.parametrize(
    ("uses", "options", "removed"),
    [
        (Uses({}), (), ["p_0"]),
        (Uses({"p_0": ("alice/r_1",)}), (), []),
        # Its releases may use any of them.
        (Uses({}, ("bob",)), (), []),
        (Uses({}, ("bob",)), ("--include-used",), ["p_0"]),
    ],
)
def test_what_may_be_in_use_is_kept(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    uses: Uses,
    options: Sequence[str],
    removed: Sequence[str],
) -> None:
    store = FakeStore()
    monkeypatch.setattr(package_stores, "open_store", lambda *_: store)
    monkeypatch.setattr(package_uses, "find_uses", lambda _: uses)
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"profiles": {"p": {"user": "alice"}}}))
    monkeypatch.chdir(tmp_path)
    code = cli.run(["upd-wheels-and-jars", "--prune", "--keep", "1", "--profile", "p", "--output", "json", *options])
    document = json.loads(capfd.readouterr().out)
    assert (code, store.removed, document["data"]["kept"]) == (0, removed, 2 - len(removed))
    assert bool(document["warnings"]) == (bool(uses.unread) and not options)


def test_a_path_that_may_not_be_looked_at_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(package_stores, "open_store", lambda *_: FakeStore())
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"profiles": {"p": {"user": "alice"}}}))
    monkeypatch.chdir(tmp_path)
    # Root may look everywhere, but a path of this length exists nowhere.
    path = f"{'f' * 300}/a-1.jar"
    assert cli.run(["upd-wheels-and-jars", "--no-workloads", "--profile", "p", path]) == 2
    assert "cannot read" in capfd.readouterr().err


@pytest.mark.parametrize(("count", "words"), [(1, "removed 1 leftover of"), (2, "removed 2 leftovers of")])
def test_one_leftover_is_not_several(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, count: int, words: str
) -> None:
    monkeypatch.setattr(FakeStore, "leftovers", count)
    monkeypatch.setattr(package_stores, "open_store", lambda *_: FakeStore())
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"profiles": {"p": {"user": "alice"}}}))
    monkeypatch.chdir(tmp_path)
    assert cli.run(["upd-wheels-and-jars", "--prune", "--profile", "p"]) == 0
    assert words in capfd.readouterr().out
