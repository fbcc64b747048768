"""The git commit of a folder, for the record of a release."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from replayctl import process
from replayctl.errors import ReplayctlError


@dataclass(frozen=True, slots=True)
class Commit:
    """The commit that is checked out, and how many files of the folder differ from it, untracked ones included."""

    commit: str
    branch: str
    changed_files: int


def commit_of(folder: Path) -> Commit | None:
    """The folder's commit; None outside a repository, in one without commits, and without git."""
    head = head_of(folder)
    if head is None:
        return None
    try:
        branch = process.run(["git", "-C", str(folder), "rev-parse", "--abbrev-ref", "HEAD"], timeout_s=10.0)
        changed: list[str] = []
        # Line by line, because of a long output only the end is kept.
        status = ["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=all", "--", "."]
        process.run(status, on_line=changed.append, timeout_s=30.0)
    except ReplayctlError:
        # A deploy must not fail because its commit is unknown.
        return None
    return Commit(head, branch.tail.strip(), len(changed))


def head_of(folder: Path) -> str | None:
    """The folder's commit alone; None outside a repository, in one without commits, and without git."""
    try:
        head = process.run(["git", "-C", str(folder), "rev-parse", "HEAD"], timeout_s=10.0, check=False)
    except ReplayctlError:
        # Neither a deploy nor a build may fail because its commit is unknown.
        return None
    return head.tail.strip() if head.returncode == 0 else None


def tracked_files(folder: Path) -> frozenset[str]:
    """The folder's files that git tracks, by their paths in it; empty outside a repository, and without git."""
    try:
        listing = process.exchange(["git", "-C", str(folder), "ls-files", "-z", "--", "."], b"", timeout_s=30.0)
    except ReplayctlError:
        return frozenset()
    names = os.fsdecode(listing.stdout).split("\0") if listing.returncode == 0 else []
    return frozenset(names) - {""}
