"""Uploads of wheels and jars: plans what to send, sends it, and prunes old builds."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from replayctl.bundle.package_files import (
    PackageFile,
    Runtime,
    check_contents,
    check_package,
    chunks_of,
    digest_of_start,
    kind_of,
    product_of,
    read_package,
    refuse_twins,
)
from replayctl.console.events import Reporter
from replayctl.errors import UsageProblem
from replayctl.storage import lock
from replayctl.storage.audit import audit_line
from replayctl.storage.packages import Stored, StoredPackage, folder_of

_LONG_AGO = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
Outcome = Literal["send", "resume", "unchanged"]


class Store(Protocol):
    """Where one namespace's packages are: `path` is the folder, `root` the same as the cluster names it."""

    path: str
    root: str

    @property
    def name(self) -> str:
        """The folder and its machine, for messages."""

    def look(self, sha256: Sequence[str] = ()) -> Stored:
        """What is stored; files with one of the given `sha256`, and parts of them, are verified."""

    def send(
        self,
        *,
        sha256: str,
        name: str,
        size: int,
        offset: int,
        chunks: Iterable[bytes],
        facts: Mapping[str, str],
        audit: str,
    ) -> None:
        """Stores a complete package, or leaves the old state; `chunks` are its bytes from `offset` on."""

    def prune(self, folders: Sequence[str], audit: str) -> int:
        """Removes stored packages, and old leftovers of our own uploads; returns the number of these."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The upload of one package; `offset` bytes of it are already on the target."""

    package: PackageFile
    outcome: Outcome
    offset: int = 0

    @property
    def to_send(self) -> int:
        """The number of bytes to send."""
        return 0 if self.outcome == "unchanged" else self.package.size - self.offset


def read_and_look(
    paths: Sequence[Path], runtime: Runtime, store: Store, reporter: Reporter
) -> tuple[tuple[PackageFile, ...], Stored]:
    """The packages to upload, without duplicates, and what is stored, where files like them were read to verify them.

    The packages are hashed while the store is being reached. Raises UsageProblem for the first one that does not fit,
    before the store is reached where the file's table of contents shows it.
    """
    for path in paths:
        check_package(path, runtime)
    reporter.status(f"reading packages and listing {store.name}")
    # Ctrl-C must reach the connection, so this thread has it.
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_read_packages, paths, runtime)
        stored = store.look()
        packages = reading.result()
    known = [package.sha256 for package in packages if stored.may_have(package.sha256)]
    if known:
        reporter.status(f"verifying what {store.name} has")
        stored = store.look(known)
    return packages, stored


def _read_packages(paths: Sequence[Path], runtime: Runtime) -> tuple[PackageFile, ...]:
    packages: dict[tuple[str, str], PackageFile] = {}
    for path in paths:
        package = read_package(path, runtime)
        packages.setdefault((package.name, package.sha256), package)
    refuse_twins(tuple(packages.values()))
    return tuple(packages.values())


def plan_uploads(packages: Sequence[PackageFile], stored: Stored) -> tuple[Upload, ...]:
    """Plans each package's upload. A partial upload is resumed only if its bytes are the start of this package."""
    uploads = []
    for package in packages:
        if stored.has(package.sha256, package.name, package.size):
            uploads.append(Upload(package, "unchanged"))
            continue
        part = stored.parts.get(package.sha256)
        if part and 0 < part.size <= package.size and digest_of_start(package, part.size) == part.sha256:
            uploads.append(Upload(package, "resume", part.size))
        else:
            uploads.append(Upload(package, "send"))
    return tuple(uploads)


def check_uploads(uploads: Sequence[Upload], reporter: Reporter) -> None:
    """Reads every package that will be sent to its end; UsageProblem for one that is damaged."""
    for upload in uploads:
        if upload.outcome != "unchanged":
            reporter.status(f"checking {upload.package.name}")
            check_contents(upload.package)


def send(store: Store, uploads: Sequence[Upload], reporter: Reporter) -> None:
    """Sends the packages one by one. Each appears on the target completely or not at all."""
    for upload in uploads:
        if upload.outcome == "unchanged":
            continue
        package = upload.package
        if upload.offset:
            reporter.step(f"resuming {package.name} at {upload.offset} of {package.size} bytes")
        who = lock.whoami()
        now = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
        with reporter.progress(f"sending {package.name}", upload.to_send, unit="bytes") as advance:
            store.send(
                sha256=package.sha256,
                name=package.name,
                size=package.size,
                offset=upload.offset,
                chunks=_counted(chunks_of(package, upload.offset), advance),
                facts={"at": now, "by": str(who["user"]), "host": str(who["host"])},
                audit=audit_line("upload", package=package.name, sha256=package.sha256, size=package.size),
            )


def surplus(stored: Mapping[str, StoredPackage], keep: int) -> tuple[StoredPackage, ...]:
    """What `prune` removes: all but the `keep` newest builds of each product, by time of upload.

    A wheel and a jar of the same name are two products. Raises UsageProblem if nothing would be kept.
    """
    if keep < 1:
        raise UsageProblem(f"--keep {keep} would remove every build", hint="pass --keep 1 or more")
    seen: dict[tuple[str | None, str], int] = {}
    old = []
    for package in newest_first(stored.values()):
        product = (kind_of(package.name), product_of(package.name))
        seen[product] = seen.get(product, 0) + 1
        if seen[product] > keep:
            old.append(package)
    return tuple(old)


def newest_first(stored: Iterable[StoredPackage]) -> list[StoredPackage]:
    """Stored packages by the time of their upload."""
    return sorted(stored, key=lambda package: (-_moment(package).timestamp(), package.folder))


def prune(store: Store, packages: Sequence[StoredPackage]) -> int:
    """Removes stored packages, and what our interrupted uploads have left for a week; returns how many of these."""
    names = [package.folder for package in packages]
    return store.prune(names, audit_line("prune", packages=[package.name for package in packages]))


def path_of(root: str, package: PackageFile | StoredPackage) -> str:
    """The path of a package below `root`, the folder of all packages."""
    folder = package.folder if isinstance(package, StoredPackage) else folder_of(package.sha256)
    return f"{root}/{folder}/{package.name}"


def _moment(package: StoredPackage) -> datetime.datetime:
    """When it was uploaded; 1970 if that is unknown."""
    try:
        at = datetime.datetime.fromisoformat(package.facts.get("at", ""))
    except ValueError:
        return _LONG_AGO
    return at if at.tzinfo else _LONG_AGO


def _counted(chunks: Iterator[bytes], advance: Callable[[float], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        # The consumer asks for the next chunk once it has sent this one.
        advance(len(chunk))
