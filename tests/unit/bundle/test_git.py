"""The commit that is recorded with a release."""

import subprocess
from pathlib import Path

from replayctl.bundle.git import commit_of


def git(folder: Path, *words: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@example", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", "-C", str(folder), *own, *words], check=True, capture_output=True, text=True).stdout


def test_every_changed_file_counts(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "dags").mkdir()
    assert commit_of(tmp_path / "dags") is None
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    for number in range(350):
        (tmp_path / "dags" / f"{number}.py").touch()
    (tmp_path / "elsewhere").touch()
    commit = commit_of(tmp_path / "dags")
    assert commit is not None
    assert (commit.commit, commit.branch) == (git(tmp_path, "rev-parse", "HEAD").strip(), "main")
    assert commit.changed_files == 350
