"""The Python environments of the embedded stack: made once from the pinned lists, kept in the cache folder.

Airflow, the MLflow server and the workloads cannot share one environment; each is a virtual environment named
by the hash of its list, so that a changed list makes a new one and an old checkout keeps its own.
"""

from __future__ import annotations

import contextlib
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
from replayctl.errors import Conflict, NotFound, RemoteCommandFailed, TimedOut
from replayctl.local import packages, processes
from replayctl.local.disk import disk_errors, full_disk_hint, is_full_disk
from replayctl.local.locking import exclusive
from replayctl.local.processes import MARK_VARIABLE

SPARK = "workload-spark"
NAMES = ("airflow", "workload", "mlflow")
# The lists hold for these versions; where several are at hand the first that is found is taken.
_PYTHON_VERSIONS = ("3.11", "3.12", "3.13")
_SPARK_PYTHON_VERSIONS = ("3.11",)
# To be changed when environments of the same list have to be made anew.
_RECIPE = b"3.11"
_JAVA_VERSIONS = (8, 11, 17)
_COMPLETE = ".replayctl-complete"
# A program that hangs must not hang us: an answer takes well under a second.
_ANSWER_DEADLINE_S = 20.0
_DOTTED = re.compile(r'version "(?:1\.)?(\d+)')
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
        made = next((self.path / "lib").glob("python3.*/site-packages"), None)
        return made or self.path / "lib" / "python3" / "site-packages"


def needed(*, spark: bool) -> tuple[str, ...]:
    """The environments of a local stack, with or without Spark."""
    return (*NAMES, SPARK) if spark else NAMES


def python_versions(name: str) -> tuple[str, ...]:
    """The versions of Python that an environment's list holds for."""
    return _SPARK_PYTHON_VERSIONS if name == SPARK else _PYTHON_VERSIONS


def find_python(name: str, configured: Path | None) -> Path:
    """A Python of a version that the environment's list holds for; NotFound with ways to get it."""
    versions = python_versions(name)
    candidates = [str(configured)] if configured else []
    if not configured:
        if "{}.{}".format(*sys.version_info) in versions:
            candidates.append(sys.executable)
        programs = (shutil.which(program) for program in (*(f"python{version}" for version in versions), "python3"))
        candidates += [path for path in programs if path]
    for candidate in candidates:
        with contextlib.suppress(RemoteCommandFailed, NotFound, TimedOut):
            script = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
            done = process.run([candidate, "-c", script], timeout_s=_ANSWER_DEADLINE_S)
            if done.tail.strip() in versions:
                return Path(candidate)
    tried = f" (tried {', '.join(candidates)})" if candidates else ""
    raise NotFound(
        f"no Python {' or '.join(versions)} with venv was found for the {name} environment{tried}",
        hint=f"install it: `uv python install {versions[0]}`, `pyenv install {versions[0]}`, "
        f"`brew install python@{versions[0]}` or your system's package python{versions[0]} with "
        f"python{versions[0]}-venv; or name one in REPLAYCTL_LOCAL_PYTHON",
    )


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
        with contextlib.suppress(RemoteCommandFailed, NotFound, TimedOut):
            done = process.run([str(home / "bin" / "java"), "-version"], timeout_s=_ANSWER_DEADLINE_S)
            found = _DOTTED.search(done.tail)
            if found and int(found[1]) in _JAVA_VERSIONS:
                return home
    tried = f" (tried {', '.join(map(str, homes))})" if homes else ""
    raise NotFound(f"no Java 17 was found{tried}; Spark 3.5 needs Java 8, 11 or 17", hint=_JAVA_HINT)


def known_java_home(configured: Path | None) -> Path | None:
    """As `find_java_home`; None where there is no such Java, which only Spark needs."""
    try:
        return find_java_home(configured)
    except NotFound:
        return None


def spark_home(cache_dir: Path) -> Path:
    """Where Spark lies in its environment, or will lie."""
    return path_of(SPARK, cache_dir) / "lib" / f"python{_SPARK_PYTHON_VERSIONS[0]}" / "site-packages" / "pyspark"


def requirements(name: str) -> Path:
    """The pinned list of an environment."""
    return shipped.shipped_dir("docker") / "requirements" / f"{name}.txt"


def path_of(name: str, cache_dir: Path) -> Path:
    """Where the environment of today's list is, or will be."""
    digest = hashlib.sha256(requirements(name).read_bytes() + _RECIPE).hexdigest()[:12]
    return cache_dir / "environments" / f"{name}-{digest}"


def find_damage(name: str, cache_dir: Path, *, thorough: bool = False) -> str | None:
    """What is wrong with the environment of today's list: `""` when it was never made whole, None when nothing is."""
    path = path_of(name, cache_dir)
    if not (path / _COMPLETE).exists():
        return ""
    environment = Environment(name, path)
    return packages.find_damage(
        environment.program("python"),
        environment.site_packages,
        requirements(name),
        path / _COMPLETE,
        thorough=thorough,
    )


def ensure(
    name: str, cache_dir: Path, python: Path | None, reporter: Reporter, *, thorough: bool = False
) -> Environment:
    """The environment, made now if it is not there whole, and made again when something of it is gone.

    Two callers at once make it once. An interrupted one is started afresh by the next call. Raises
    RemoteCommandFailed with pip's last lines when an installation fails, NotFound without a fitting Python,
    OperationFailed when the folder cannot be written.
    """
    path = path_of(name, cache_dir)
    environment = Environment(name, path)
    if find_damage(name, cache_dir, thorough=thorough) is None:
        return environment
    with changing(environment, reporter):
        # Another one may have made it meanwhile.
        damage = find_damage(name, cache_dir, thorough=thorough)
        if damage is None:
            return environment
        if damage:
            reporter.step(f"the {name} environment in {path} is damaged: {damage}")
        reporter.step(f"making the {name} environment in {path} (once; a minute or two)")
        with disk_errors("make environment", path, hint="choose another folder: set cache_dir, or REPLAYCTL_CACHE_DIR"):
            # The mark goes first: what is removed in part is not whole.
            (path / _COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            process.run([str(find_python(name, python)), "-m", "venv", str(path)], env=_environ(path))
            _install(environment, ["--no-deps", "-r", str(requirements(name))], reporter)
            packages.write_inventory(environment.site_packages, path / _COMPLETE)
    return environment


def add_package(environment: Environment, package: str, reporter: Reporter) -> None:
    """Installs one more package, pinned and without what it depends on; RemoteCommandFailed when pip fails."""
    with changing(environment, reporter):
        _install(environment, ["--no-deps", package], reporter)


@contextlib.contextmanager
def changing(environment: Environment, reporter: Reporter) -> Iterator[None]:
    """Nobody else changes the environment while the block runs, not even the pip of a replayctl that was killed."""
    path = environment.path
    hint = "choose another folder: set cache_dir, or REPLAYCTL_CACHE_DIR"
    with disk_errors("make folder", path.parent, hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
    reason = f"another replayctl is making the {environment.name} environment"
    with exclusive(path.with_name(f"{path.name}.lock"), reason, reporter):
        left = processes.end(lambda: processes.find_marked(lambda mark: mark == _mark(path)))
        if left:
            raise Conflict(
                f"cannot end an installation that was left in {path}: {processes.describe(left)}",
                hint="end these processes, then try again",
            )
        yield


def _install(environment: Environment, arguments: list[str], reporter: Reporter) -> None:
    """The lists are complete, so pip resolves nothing; what conflicts on paper was tried together."""
    argv = [str(environment.program("python")), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]

    def show(line: str) -> None:
        if line.startswith(("Collecting", "Downloading", "Building", "Installing", "  Downloading")):
            reporter.status(f"pip: {line.strip()[:100]}")

    argv += ["--disable-pip-version-check", *arguments]
    try:
        process.run(argv, env=_environ(environment.path), on_line=show)
    except RemoteCommandFailed as error:
        if is_full_disk(error.details or ""):
            error.hint = full_disk_hint(environment.path)
        raise


def _environ(path: Path) -> dict[str, str]:
    """By the mark an installation is found that goes on after its replayctl was killed."""
    return {**os.environ, MARK_VARIABLE: _mark(path)}


def _mark(path: Path) -> str:
    return f"environment {path.resolve()}"
