"""An interpreter from Debian's packages: what apt offers here, unpacked into a folder that may lie anywhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from replayctl import process
from replayctl.errors import NotFound, OperationFailed, RemoteCommandFailed
from replayctl.python_env.recipe import Interpreter, version_of

_TIMEOUT_S = 300.0
_STANDALONE_HINT = "name a standalone CPython by packages.standalone_python"
# The libraries of the standard library's modules, and those that wheels expect of a system. Not the C library.
_LIBRARIES = (
    "libbz2-1.0",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libgomp1",
    "liblzma5",
    "libsqlite3-0",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    "zlib1g",
)
# Modules that no step needs, whose libraries would be more files: terminals, old databases, passwords of Unix, NIS.
_LEFT_OUT = ("_crypt", "_curses", "_curses_panel", "_dbm", "nis", "readline")
_C_LIBRARY = re.compile(r"\blibc6 \(>= ([0-9]+\.[0-9]+)\)")
_URI = re.compile(r"'(?P<uri>[^']+)' (?P<name>\S+) \d+ SHA256:(?P<sha256>[0-9a-f]{64})")


def find_debian(python: str) -> Interpreter:
    """The packages that apt would fetch for this version of Python, with their checksums.

    Raises NotFound where there is no apt-get or Debian has no such Python.
    """
    names = (f"python{python}-minimal", f"libpython{python}-minimal", f"libpython{python}-stdlib", *_LIBRARIES)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NotFound(
            "cannot take Python from Debian's packages: this machine has no apt-get and dpkg-deb", hint=_STANDALONE_HINT
        )
    done = process.exchange(["apt-get", "download", "--print-uris", "-q", *names], b"", timeout_s=_TIMEOUT_S)
    files = sorted((match["name"], match["sha256"]) for match in _URI.finditer(done.stdout.decode("utf-8", "replace")))
    if done.returncode or len(files) != len(names):
        raise NotFound(
            f"apt-get does not offer the packages of Python {python}",
            hint=f"run `apt-get update`; where the distribution has another Python, {_STANDALONE_HINT}",
            details=done.stderr.strip()[-2000:] or None,
        )
    return Interpreter("debian", tuple(files), _required_glibc(names))


def _required_glibc(names: Sequence[str]) -> str | None:
    """The newest C library that one of the packages depends on; None where apt-cache does not say."""
    done = process.exchange(["apt-cache", "show", "--no-all-versions", *names], b"", timeout_s=_TIMEOUT_S)
    versions = _C_LIBRARY.findall(done.stdout.decode("utf-8", "replace"))
    return max(versions, key=version_of, default=None)


def unpack_debian(interpreter: Interpreter, python: str, tree: Path, scratch: Path, patchelf: Path) -> None:
    """Fills `tree` with bin/python3, its standard library and its libraries, which it finds relative to itself."""
    debs, system = scratch / "debs", scratch / "system"
    debs.mkdir()
    names = [name.partition("_")[0] for name, _ in interpreter.files]
    try:
        process.run(["apt-get", "download", "-q", *names], cwd=debs, timeout_s=_TIMEOUT_S)
    except RemoteCommandFailed as error:
        raise OperationFailed("apt-get cannot download the packages of Python", details=error.details) from error
    _check_downloads(debs, interpreter)
    for deb in sorted(debs.iterdir()):
        process.run(["dpkg-deb", "-x", str(deb), str(system)], timeout_s=_TIMEOUT_S)
    program = tree / "bin" / "python3"
    program.parent.mkdir(parents=True)
    shutil.copy(system / "usr" / "bin" / f"python{python}", program)
    library = tree / "lib" / f"python{python}"
    # What Debian links into /etc and /usr/share is of no use elsewhere.
    shutil.copytree(system / "usr" / "lib" / f"python{python}", library, symlinks=True, ignore=_left_out)
    for path in [path for path in library.rglob("*") if path.is_symlink()]:
        path.unlink()
    _copy_libraries(system, tree / "lib")
    # RPATH, not RUNPATH: it also counts for the libraries of extension modules, such as LightGBM's libgomp.
    process.run([str(patchelf), "--force-rpath", "--set-rpath", "$ORIGIN/../lib", str(program)], timeout_s=_TIMEOUT_S)


def _check_downloads(debs: Path, interpreter: Interpreter) -> None:
    import hashlib

    sums = sorted(hashlib.sha256(deb.read_bytes()).hexdigest() for deb in debs.iterdir())
    if sums != sorted(sha256 for _, sha256 in interpreter.files):
        raise OperationFailed(
            "apt-get has downloaded other packages than it announced", hint="run `apt-get update`, then try again"
        )


def _left_out(_folder: str, names: Sequence[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] in _LEFT_OUT and name.endswith(".so")}


def _copy_libraries(system: Path, folder: Path) -> None:
    """The libraries as files under the names by which programs ask for them."""
    for root in (system / "lib", system / "usr" / "lib"):
        for path in sorted(root.glob("*-linux-gnu*/lib*.so.*")):
            if path.is_symlink() or not _has_link(path):
                shutil.copy(path, folder / path.name)


def _has_link(path: Path) -> bool:
    """Whether a link beside it has the shorter name that is asked for."""
    return any(other.is_symlink() and other.resolve() == path.resolve() for other in path.parent.glob("lib*.so.*"))
