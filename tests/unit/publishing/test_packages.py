"""What an upload sends, and what prune removes."""

import hashlib
from pathlib import Path

import pytest

from replayctl.bundle.package_files import PackageFile
from replayctl.errors import UsageProblem
from replayctl.publishing.packages import plan_uploads, surplus
from replayctl.storage.packages import Part, Stored, StoredPackage, folder_of


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
