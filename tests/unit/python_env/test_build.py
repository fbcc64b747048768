"""What builds leave in the cache: the newest archives of each list, and nothing of builds that were killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replayctl.bundle.package_files import Runtime
from replayctl.errors import OperationFailed
from replayctl.python_env import build
from replayctl.python_env.archive import Packed
from replayctl.python_env.build import Environment
from replayctl.python_env.recipe import Interpreter, Recipe
from replayctl.settings.declared import Settings
from replayctl.settings.load import load_settings
from tests.reporters import RecordingReporter

RUNTIME = Runtime("3.11", "2.12", "2.36", "x86_64")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    environ = {"HOME": str(tmp_path), "REPLAYCTL_CACHE_DIR": str(tmp_path / "cache")}
    return load_settings(None, environ=environ, cwd=tmp_path)


def recipe(name: str, version: int) -> Recipe:
    return Recipe(Path(f"{name}.txt"), (f"numpy=={version}",), RUNTIME, Interpreter("debian", ()))


def test_the_newest_archives_of_a_list_are_kept(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(
        recipe: Recipe, settings: Settings, dags: Path, scratch: Path, path: Path, reporter: RecordingReporter
    ) -> Environment:
        path.write_bytes(b"archive")
        build._facts_path(path).write_text("{}")
        moment = int(recipe.requirements[0].partition("==")[2])
        os.utime(path, (moment, moment))
        return Environment(path, Packed(7, 7, 1, "0" * 64))

    monkeypatch.setattr(build, "_build", pack)
    recipes = [recipe("small", version) for version in (10, 20, 30, 40)]
    for built in (recipe("other", 1), *recipes):
        build.build(built, settings, Path("dags"), RecordingReporter())  # type: ignore[arg-type]
    folder = settings.cache_dir / "python-envs"
    names = {path.name for path in folder.glob("*.tar.gz")}
    assert names == {built.file_name for built in (recipe("other", 1), *recipes[1:])}
    assert {path.name for path in folder.glob("*.json")} == {build._facts_path(folder / name).name for name in names}


def test_the_folder_of_a_build_that_was_killed_is_removed_by_the_next(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settings.cache_dir / "python-envs"
    own, other = recipe("small", 1), recipe("other", 1)
    killed = folder / f".build-{own.file_name}-abc"
    running = folder / f".build-{other.file_name}-abc"
    for leftover in (killed, running):
        (leftover / "tree").mkdir(parents=True)

    def fail(*_: object) -> Environment:
        assert not killed.exists()
        raise OperationFailed("no")

    monkeypatch.setattr(build, "_build", fail)
    with pytest.raises(OperationFailed):
        build.build(own, settings, Path("dags"), RecordingReporter())  # type: ignore[arg-type]
    assert running.exists()
    assert [path for path in folder.iterdir() if path.name.startswith(".build-")] == [running]
