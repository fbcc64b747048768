"""The Python environments of the embedded stack: made once from the pinned lists, kept in the cache folder.

Airflow, the MLflow server and the Spark workloads cannot share one environment; each is a virtual environment named
by the hash of its list, so that a changed list makes a new one and an old checkout keeps its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replayctl import process, shipped
from replayctl.console.events import Reporter
from replayctl.errors import NotFound, RemoteCommandFailed

PYTHON_VERSION = "3.11"
_JAVA_VERSIONS = (8, 11, 17)
_COMPLETE = ".replayctl-complete"
NAMES = ("airflow", "workload", "mlflow")
_DOTTED = re.compile(r'version "(?:1\.)?(\d+)')
_PYTHON_HINT = (
    "install it: `uv python install 3.11`, `pyenv install 3.11`, `brew install python@3.11` or your system's package "
    "python3.11 with python3.11-venv; or name one in REPLAYCTL_LOCAL_PYTHON"
)
_JAVA_HINT = (
    "install it: `apt-get install openjdk-17-jre-headless`, `brew install openjdk@17` or https://adoptium.net; "
    "then set JAVA_HOME, or REPLAYCTL_LOCAL_JAVA_HOME"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """One virtual environment that is complete."""

    name: str
    path: Path

    def program(self, name: str) -> Path:
        """A program installed in it."""
        return self.path / "bin" / name

    @property
    def site_packages(self) -> Path:
        """Where its packages lie."""
        return self.path / "lib" / f"python{PYTHON_VERSION}" / "site-packages"


def find_python(configured: Path | None) -> Path:
    """A Python of the version that the pinned lists are for; NotFound with ways to get it."""
    candidates = [str(configured)] if configured else []
    if not configured:
        if sys.version_info[:2] == tuple(map(int, PYTHON_VERSION.split("."))):
            candidates.append(sys.executable)
        candidates += [path for path in (shutil.which(f"python{PYTHON_VERSION}"), shutil.which("python3")) if path]
    for candidate in candidates:
        with contextlib.suppress(RemoteCommandFailed, NotFound):
            done = process.run([candidate, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"])
            if done.tail.strip() == PYTHON_VERSION:
                return Path(candidate)
    tried = f" (tried {', '.join(candidates)})" if candidates else ""
    raise NotFound(f"no Python {PYTHON_VERSION} with venv was found{tried}", hint=_PYTHON_HINT)


def find_java_home(configured: Path | None) -> Path:
    """The home of a Java that Spark 3.5 runs on; NotFound with ways to get it."""
    homes = [configured] if configured else []
    if not configured:
        if os.environ.get("JAVA_HOME"):
            homes.append(Path(os.environ["JAVA_HOME"]))
        java = shutil.which("java")
        if java:
            homes.append(Path(java).resolve().parent.parent)
    for home in homes:
        with contextlib.suppress(RemoteCommandFailed, NotFound):
            found = _DOTTED.search(process.run([str(home / "bin" / "java"), "-version"]).tail)
            if found and int(found[1]) in _JAVA_VERSIONS:
                return home
    tried = f" (tried {', '.join(map(str, homes))})" if homes else ""
    raise NotFound(f"no Java 17 was found{tried}; Spark 3.5 needs Java 8, 11 or 17", hint=_JAVA_HINT)


def requirements(name: str) -> Path:
    """The pinned list of an environment."""
    return shipped.shipped_dir("docker") / "requirements" / f"{name}.txt"


def path_of(name: str, cache_dir: Path) -> Path:
    """Where the environment of today's list is, or will be."""
    digest = hashlib.sha256(requirements(name).read_bytes() + PYTHON_VERSION.encode()).hexdigest()[:12]
    return cache_dir / "environments" / f"{name}-{digest}"


def is_made(name: str, cache_dir: Path) -> bool:
    """Whether the environment of today's list is there whole."""
    return (path_of(name, cache_dir) / _COMPLETE).exists()


def ensure(name: str, cache_dir: Path, python: Path | None, reporter: Reporter) -> Environment:
    """The environment, made now if it is not there whole.

    Two callers at once make it once. An interrupted one is started afresh by the next call. Raises
    RemoteCommandFailed with pip's last lines when an installation fails, NotFound without a fitting Python.
    """
    path = path_of(name, cache_dir)
    marker = path / _COMPLETE
    if marker.exists():
        return Environment(name, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f"{path.name}.lock"), name, reporter):
        if marker.exists():
            return Environment(name, path)
        reporter.step(f"making the {name} environment in {path} (once; a minute or two)")
        shutil.rmtree(path, ignore_errors=True)
        process.run([str(find_python(python)), "-m", "venv", str(path)])
        _install(path, requirements(name), reporter)
        marker.touch()
    return Environment(name, path)


def _install(path: Path, pinned: Path, reporter: Reporter) -> None:
    """The lists are complete, so pip resolves nothing; what conflicts on paper was tried together."""
    argv = [str(path / "bin" / "python"), "-m", "pip", "install", "--no-deps", "--no-input", "-r", str(pinned)]

    def show(line: str) -> None:
        if line.startswith(("Collecting", "Downloading", "Building", "Installing", "  Downloading")):
            reporter.status(f"pip: {line.strip()[:100]}")

    process.run([*argv, "--progress-bar", "off", "--disable-pip-version-check"], on_line=show)


@contextlib.contextmanager
def _locked(path: Path, name: str, reporter: Reporter) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter.step(f"waiting for another replayctl that is making the {name} environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
