"""Wheels and jars: checks that they are complete and fit the Python and Scala of a cluster."""

from __future__ import annotations

import email.parser
import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from replayctl.errors import UsageProblem

Kind = Literal["wheel", "jar", "environment"]
# Of packed Python environments: YARN goes by the end of the name.
ENVIRONMENT_SUFFIX = ".tar.gz"
_CHUNK_BYTES = 1 << 20
_MAX_NAME = 200
_MAX_METADATA_BYTES = 4 << 20
_MUSL_OR_MAC = ("musllinux", "macosx", "win", "ios", "android")
_OLDEST_GLIBC = 5
# The artifact's name ends in the Scala version that it was compiled for, before its own version: `_3` without a minor
# version, `_2.12` also with a patch.
_SCALA = re.compile(r"_(2\.1[0-9](?=[-_.])|3(?=[-_]|\.jar$))")
# Up to there, numbers are part of the name: `spark-sql-kafka-0-10_2.12-3.5.1`.
_SCALA_PRODUCT = re.compile(r"(?P<product>.+_(?:2\.1[0-9][0-9.]*|3))-v?[0-9].*")
# A version starts at the first number. One with at most two parts belongs to the name, though, if a number with more
# than one part comes after it: `hive-shims-0.23-2.3.9` and `log4j-1.2-api-2.20.0` are not builds of `hive-shims` and
# `log4j`. The time of a snapshot (`1.0-20260131.120000-1`) is part of the version.
_NUMBER_IN_NAME = r"[0-9]+(?:\.[0-9]+)?-(?:.*-)?(?![0-9]{8}\.[0-9]{6}-)[0-9]+\.[0-9]"
_VERSION = re.compile(rf"-(?!{_NUMBER_IN_NAME})v?[0-9].*$")
# What zipfile raises for damaged files, beside its own error.
_ZIP_ERRORS: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(RuntimeError, ValueError, NotImplementedError),
)
# A Python that was built without it reads no members that need it, which zipfile reports as a RuntimeError.
with suppress(ImportError):
    from lzma import LZMAError

    _ZIP_ERRORS = (*_ZIP_ERRORS, LZMAError)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What packages have to fit: versions as MAJOR.MINOR, and a processor as in the tags of wheels."""

    python: str
    scala: str
    glibc: str
    machine: str

    def tags(self) -> tuple[Tag, ...]:
        """The tags of all wheels that can be installed in this runtime."""
        major, minor = (int(part) for part in self.python.split("."))
        glibc_major, glibc_minor = (int(part) for part in self.glibc.split("."))
        names = [f"manylinux_{glibc_major}_{number}" for number in range(glibc_minor, _OLDEST_GLIBC - 1, -1)]
        names += ["manylinux2014", "manylinux2010", "manylinux1", "linux"]
        platforms = [f"{name}_{self.machine}" for name in names]
        return (
            *cpython_tags((major, minor), platforms=platforms),
            *compatible_tags((major, minor), interpreter=f"cp{major}{minor}", platforms=platforms),
        )


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file to upload: `product` is its name without a version, `size` is in bytes."""

    path: Path
    name: str
    kind: Kind
    product: str
    size: int
    sha256: str
    warnings: tuple[str, ...] = ()


def kind_of(name: str) -> Kind | None:
    """The kind of a file by its suffix; None for other files."""
    kinds: dict[str, Kind] = {".whl": "wheel", ".jar": "jar", ENVIRONMENT_SUFFIX: "environment"}
    return next((kind for suffix, kind in kinds.items() if name.endswith(suffix)), None)


def product_of(name: str) -> str:
    """A package's name without its version; files with one name on a classpath would hide each other's classes.

    Without the Maven coordinates, some names have two readings. Then the longer name is returned: different packages
    are never taken for builds of one, which would refuse or prune one of them.
    """
    if name.endswith(".whl"):
        return re.sub(r"[-_.]+", "-", name.partition("-")[0]).lower()
    if name.endswith(ENVIRONMENT_SUFFIX):
        return re.sub(r"-py[0-9.]+-[0-9a-f]+-[0-9a-f]+$", "", name.removesuffix(ENVIRONMENT_SUFFIX))
    stem = name.removesuffix(".jar")
    if match := _SCALA_PRODUCT.fullmatch(stem):
        return match["product"]
    return _VERSION.sub("", stem) or name


def read_package(path: Path, runtime: Runtime) -> PackageFile:
    """A package that fits `runtime`, with its sha256: reads the whole file. `check_contents` checks its members.

    Raises the errors of `check_package`.
    """
    kind, warnings = check_package(path, runtime)
    with _opened(path) as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        size = file.tell()
    return PackageFile(path, path.name, kind, product_of(path.name), size, digest.hexdigest(), warnings)


def check_package(path: Path, runtime: Runtime) -> tuple[Kind, tuple[str, ...]]:
    """The kind of a package that fits `runtime`, and warnings; reads only its table of contents.

    Raises UsageProblem for a file that cannot be read or is not a regular file or a zip, and if the name, tags,
    `Requires-Python` or Scala version do not fit.
    """
    name = path.name
    kind = kind_of(name)
    if kind not in ("wheel", "jar"):
        raise UsageProblem(f"{path} is neither a wheel nor a jar", hint="pass files that end in .whl or .jar")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", name) or len(name) > _MAX_NAME:
        raise UsageProblem(
            f"{str(path)!r} has an invalid name",
            hint=f"use letters, digits, '.', '_', '+' and '-', and at most {_MAX_NAME} characters",
        )
    if kind == "wheel":
        tags = _tags_of(path, runtime)
    else:
        _check_scala(path, runtime)
    with _opened(path) as file, _zip(path, file) as archive:
        names = archive.namelist()
        if kind == "wheel":
            _check_metadata(path, archive, runtime)
        elif not any(entry.endswith((".class", ".tasty")) for entry in names) and "META-INF/MANIFEST.MF" not in names:
            raise UsageProblem(f"{path} is not a jar: it has neither classes nor a manifest")
    warnings: tuple[str, ...] = ()
    if kind == "wheel" and all(tag.platform != "any" for tag in tags):
        warnings = (
            f"{name} has compiled modules, which Python cannot import from a wheel on Spark's path; "
            "install it in the Python environment of the workers instead",
        )
    return kind, warnings


def check_contents(package: PackageFile) -> None:
    """Reads every member of a package; UsageProblem that names the first one with a wrong checksum."""
    with _opened(package.path) as file, _zip(package.path, file) as archive:
        try:
            broken = archive.testzip()
        except _ZIP_ERRORS as error:
            raise _damaged(package.path, str(error)) from error
        if broken is not None:
            raise _damaged(package.path, f"{broken} has a wrong checksum")


def chunks_of(package: PackageFile, offset: int) -> Iterator[bytes]:
    """A package's bytes from `offset` on, in chunks; UsageProblem if its size has changed meanwhile."""
    with _opened(package.path) as file:
        file.seek(offset)
        remaining = package.size - offset
        while remaining and (chunk := file.read(min(_CHUNK_BYTES, remaining))):
            remaining -= len(chunk)
            yield chunk
        if remaining or file.read(1):
            raise UsageProblem(f"{package.path} was changed during the upload", hint="run the command again")


def digest_of_start(package: PackageFile, size: int) -> str:
    """The sha256 of the first `size` bytes of a package."""
    digest = hashlib.sha256()
    with _opened(package.path) as file:
        while size > 0 and (chunk := file.read(min(_CHUNK_BYTES, size))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def refuse_twins(packages: Sequence[PackageFile]) -> None:
    """UsageProblem if two different files are builds of the same product."""
    seen: dict[tuple[str, str], PackageFile] = {}
    for package in packages:
        other = seen.setdefault((package.kind, package.product), package)
        if other.sha256 != package.sha256:
            raise UsageProblem(
                f"{other.path} and {package.path} are two builds of {package.product}",
                hint="upload only one of them; on one path, Python and Java load the first",
            )


def _tags_of(path: Path, runtime: Runtime) -> frozenset[Tag]:
    try:
        _, _, _, tags = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise UsageProblem(
            f"{path} does not have the name of a wheel: {error}", hint="restore the name with which it was built"
        ) from error
    if tags.isdisjoint(runtime.tags()):
        foreign = next((tag.platform for tag in tags if tag.platform.startswith(_MUSL_OR_MAC)), None)
        reason = f"for {foreign}" if foreign else f"for {', '.join(sorted(map(str, tags)))}"
        raise UsageProblem(
            f"{path} is {reason}, the cluster has Python {runtime.python} on {runtime.machine} with glibc "
            f"{runtime.glibc}",
            hint="choose another wheel, or correct packages.python, packages.glibc or packages.machine",
        )
    return tags


def _check_scala(path: Path, runtime: Runtime) -> None:
    suffixes = _SCALA.findall(path.name)
    if suffixes and suffixes[-1] != runtime.scala and not runtime.scala.startswith(f"{suffixes[-1]}."):
        raise UsageProblem(
            f"{path} is compiled for Scala {suffixes[-1]}, the cluster's Spark has Scala {runtime.scala}",
            hint=f"choose the build for _{runtime.scala}, or correct packages.scala",
        )


def _check_metadata(path: Path, archive: zipfile.ZipFile, runtime: Runtime) -> None:
    name, version, _, _ = parse_wheel_filename(path.name)
    metadata = [entry for entry in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", entry)]
    if len(metadata) != 1 or f"{metadata[0].removesuffix('METADATA')}WHEEL" not in archive.namelist():
        raise UsageProblem(f"{path} is not a wheel: it has no .dist-info folder with METADATA and WHEEL")
    if archive.getinfo(metadata[0]).file_size > _MAX_METADATA_BYTES:
        raise UsageProblem(f"{path} is not a wheel: its METADATA has more than {_MAX_METADATA_BYTES} bytes")
    try:
        text = archive.read(metadata[0]).decode("utf-8", "replace")
    except _ZIP_ERRORS as error:
        raise _damaged(path, str(error)) from error
    headers = email.parser.Parser().parsestr(text, headersonly=True)
    inside = f"{re.sub('[-_.]+', '-', str(headers.get('Name', ''))).lower()} {headers.get('Version', '')}"
    if inside != f"{name} {headers.get('Version', '')}" or not _same_version(str(headers.get("Version", "")), version):
        raise UsageProblem(f"{path} was renamed: its METADATA names {inside.strip() or 'no package'}")
    required = headers.get("Requires-Python")
    if required is None:
        return
    try:
        fits = SpecifierSet(str(required)).contains(f"{runtime.python}.99")
    except InvalidSpecifier as error:
        raise UsageProblem(f"{path} has an invalid Requires-Python: {error}") from error
    if not fits:
        raise UsageProblem(
            f"{path} requires Python {required}, the cluster has {runtime.python}",
            hint="choose another version, or correct packages.python",
        )


def _same_version(text: str, version: Version) -> bool:
    try:
        return Version(text) == version
    except ValueError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        # A named pipe must not block the open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageProblem(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageProblem(f"{path} is not a regular file")
        yield file


@contextmanager
def _zip(path: Path, file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise _damaged(path, str(error)) from error
    with archive:
        yield archive


def _damaged(path: Path, why: str) -> UsageProblem:
    return UsageProblem(f"{path} is damaged: {why}", hint="download or build it again")
