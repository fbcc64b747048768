"""What an upload sends, and what prune removes."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from replayctl.bundle.package_files import PackageFile
from replayctl.errors import OperationFailed, UsageProblem
from replayctl.publishing.packages import plan_uploads, surplus
from replayctl.storage.packages import PackageStore, Part, Stored, StoredPackage, folder_of
from replayctl.storage.shell import LocalShell
from replayctl.storage.target import Modes


def package(path: Path, content: bytes = b"0123456789") -> PackageFile:
    path.write_bytes(content)
    return PackageFile(path, path.name, "jar", "a", len(content), hashlib.sha256(content).hexdigest())


def stored(*packages: StoredPackage, **parts: Part) -> Stored:
    return Stored({package.folder: package for package in packages}, parts)


def test_only_what_is_there_by_hash_name_and_size_is_left_out(tmp_path: Path) -> None:
    jar = package(tmp_path / "a-1.jar")
    folder = folder_of(jar.sha256)
    there = StoredPackage(folder, "a-1.jar", 10, jar.sha256)
    assert plan_uploads([jar], stored(there))[0].outcome == "unchanged"
    for other in (
        StoredPackage(folder, "a-1.jar", 10, None),
        StoredPackage(folder, "a-1.jar", 10, "f" * 64),
        StoredPackage(folder, "b-1.jar", 10, jar.sha256),
        StoredPackage(folder, "a-1.jar", 9, jar.sha256),
    ):
        upload = plan_uploads([jar], stored(other))[0]
        assert (upload.outcome, upload.to_send) == ("send", 10)


@pytest.mark.parametrize(
    ("part", "offset"),
    [(b"0123", 4), (b"0123456789", 10), (b"012x", 0), (b"", 0), (b"0123456789a", 0)],
)
def test_a_part_counts_only_if_it_is_our_beginning(tmp_path: Path, part: bytes, offset: int) -> None:
    jar = package(tmp_path / "a-1.jar")
    arrived = Part(len(part), hashlib.sha256(part).hexdigest())
    upload = plan_uploads([jar], stored(**{jar.sha256: arrived}))[0]
    assert (upload.outcome, upload.offset) == ("resume" if offset else "send", offset)


def test_prune_keeps_the_newest_of_each_product() -> None:
    packages = [
        StoredPackage(f"p_{number}", f"{name}-{number}.jar", 1, facts={"at": at})
        for name in ("a", "b")
        for number, at in enumerate(("2026-01-01T00:00:00+00:00", "2026-01-03T00:00:00+01:00", "broken"))
    ]
    by_folder = {f"{package.name}": package for package in packages}
    assert {package.name for package in surplus(by_folder, 1)} == {"a-0.jar", "a-2.jar", "b-0.jar", "b-2.jar"}
    assert surplus(by_folder, 3) == ()
    with pytest.raises(UsageProblem):
        surplus(by_folder, 0)


def test_prune_does_not_take_a_wheel_and_a_jar_for_builds_of_one_product() -> None:
    names = ("replay-0.1-py3-none-any.whl", "replay-0.1.jar", "replay-py3.11-0a-0b.tar.gz")
    by_folder = {name: StoredPackage(name, name, 1, facts={"at": "2026-01-01T00:00:00+00:00"}) for name in names}
    assert surplus(by_folder, 1) == ()


@pytest.fixture
def store(tmp_path: Path) -> PackageStore:
    (tmp_path / "spark").mkdir()
    return PackageStore(LocalShell(), str(tmp_path / "spark"), "alice", Modes("755", "644"), root="/pods")


def send(store: PackageStore, sha256: str, content: bytes, *, size: int | None = None) -> None:
    store.send(
        sha256=sha256, name="a-1.jar", size=size or len(content), offset=0, chunks=[content], facts={}, audit="{}"
    )


def entries(store: PackageStore) -> set[str]:
    """What is in the folder of packages and in that of our parts."""
    packages = Path(store.path)
    parts = packages / f".parts.{os.getuid()}"
    return {path.name for path in (*packages.iterdir(), *parts.iterdir())} - {parts.name}


def test_a_file_that_differs_is_really_deleted(store: PackageStore) -> None:
    with pytest.raises(OperationFailed, match="differs from the local one and was deleted"):
        send(store, "a" * 64, b"other")
    assert entries(store) == set()


def test_what_was_uploaded_before_is_not_replaced_by_less(store: PackageStore) -> None:
    content = b"0123456789" * 100
    sha256 = hashlib.sha256(content).hexdigest()
    with pytest.raises(OperationFailed, match="only 900 of 1000 bytes"):
        send(store, sha256, content[:900], size=1000)
    with pytest.raises(OperationFailed, match="only 10 of 1000 bytes"):
        send(store, sha256, content[:10], size=1000)
    assert store.look([sha256]).parts[sha256].size == 900
    killed = Path(store.path) / f".parts.{os.getuid()}" / f"work.{sha256}.0123"
    killed.write_bytes(content[:10])
    os.utime(killed, (time.time() - 3600,) * 2)
    assert store.look([sha256]).parts[sha256].size == 900
    assert entries(store) == {f"part.{sha256}"}
