"""The Python environments of the embedded stack: created once from the pinned lists and kept in the cache folder.

Airflow, the MLflow server and the workloads cannot share one environment; each is a virtual environment named
by the hash of its list, so that a changed list leads to a new one and an old checkout keeps its own.
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
from replayctl.local import installer, packages, processes
from replayctl.local.disk import disk_errors, full_disk_hint, is_full_disk
from replayctl.local.locking import exclusive
from replayctl.local.processes import MARK_VARIABLE
from replayctl.settings.declared import Settings

SPARK = "workload-spark"
NAMES = ("airflow", "workload", "mlflow")
# The lists are valid for these versions; if several are installed, the first one is used.
_PYTHON_VERSIONS = ("3.11", "3.12", "3.13")
_SPARK_PYTHON_VERSIONS = ("3.11",)
# Change this to have environments of the same list created again.
_RECIPE = b"3.11"
_JAVA_VERSIONS = (8, 11, 17)
_COMPLETE = ".replayctl-complete"
# How uv's lines about its progress begin.
_PROGRESS = ("Resolved", "Downloading", "Building", "Prepared", "Installed")
# Bounds the wait for a program that hangs; an answer takes well under a second.
_ANSWER_DEADLINE_S = 20.0
_DOTTED = re.compile(r'version "(?:1\.)?(\d+)')
_JAVA_HINT = (
    "install it: `apt-get install openjdk-17-jre-headless`, `brew install openjdk@17` or https://adoptium.net; "
    "then export JAVA_HOME=<folder>"
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
        """The folder of its packages."""
        folder = next((self.path / "lib").glob("python3.*/site-packages"), None)
        return folder or self.path / "lib" / "python3" / "site-packages"

    @property
    def mark(self) -> dict[str, str]:
        """The variable by which a program that changes it is known when its replayctl was killed."""
        return {MARK_VARIABLE: _mark(self.path)}


def needed(*, spark: bool) -> tuple[str, ...]:
    """The environments of a local stack, with or without Spark."""
    return (*NAMES, SPARK) if spark else NAMES


def python_versions(name: str) -> tuple[str, ...]:
    """The versions of Python for which an environment's list is valid."""
    return _SPARK_PYTHON_VERSIONS if name == SPARK else _PYTHON_VERSIONS


def find_python(name: str, configured: Path | None) -> Path:
    """A Python of a version that the environment supports; raises NotFound with ways to install it."""
    versions = python_versions(name)
    candidates = [str(configured)] if configured else []
    if not configured:
        if "{}.{}".format(*sys.version_info) in versions:
            candidates.append(sys.executable)
        programs = (shutil.which(program) for program in (*(f"python{version}" for version in versions), "python3"))
        candidates += [path for path in programs if path]
    for candidate in candidates:
        with contextlib.suppress(RemoteCommandFailed, NotFound, TimedOut):
            script = "import sys; print('%d.%d' % sys.version_info[:2])"
            done = process.run([candidate, "-c", script], timeout_s=_ANSWER_DEADLINE_S)
            if done.tail.strip() in versions:
                return Path(candidate)
    tried = f" (tried {', '.join(candidates)})" if candidates else ""
    raise NotFound(
        f"cannot find Python {' or '.join(versions)} for the {name} environment{tried}",
        hint=f"install it: `uv python install {versions[0]}`, `pyenv install {versions[0]}`, "
        f"`brew install python@{versions[0]}` or your system's package python{versions[0]}; "
        "or export REPLAYCTL_LOCAL_PYTHON=<path>",
    )


def find_java_home(configured: Path | None) -> Path:
    """The home of a Java that Spark 3.5 runs on; raises NotFound with ways to install it."""
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
            version = _DOTTED.search(done.tail)
            if version and int(version[1]) in _JAVA_VERSIONS:
                return home
    tried = f" (tried {', '.join(map(str, homes))})" if homes else ""
    raise NotFound(f"cannot find Java 17{tried}; Spark 3.5 requires Java 8, 11 or 17", hint=_JAVA_HINT)


def known_java_home(configured: Path | None) -> Path | None:
    """As `find_java_home`, but None when there is no such Java, which only Spark requires."""
    try:
        return find_java_home(configured)
    except NotFound:
        return None


def has_spark(settings: Settings) -> bool:
    """Whether the environment of Spark is complete and there is a Java for it."""
    return find_damage(SPARK, settings.cache_dir) is None and known_java_home(settings.local.java_home) is not None


def spark_home(cache_dir: Path) -> Path:
    """The folder of Spark in its environment, which may not exist yet."""
    return path_of(SPARK, cache_dir) / "lib" / f"python{_SPARK_PYTHON_VERSIONS[0]}" / "site-packages" / "pyspark"


def requirements(name: str) -> Path:
    """The pinned list of an environment."""
    return shipped.shipped_dir("docker") / "requirements" / f"{name}.txt"


def spark_requirements(settings: Settings) -> Path:
    """The pinned list of the environment that steps on YARN run in: the profile's, else the shipped one."""
    return settings.packages.requirements or requirements(SPARK)


def path_of(name: str, cache_dir: Path) -> Path:
    """The folder of the environment of the current list, which may not exist yet."""
    digest = hashlib.sha256(requirements(name).read_bytes() + _RECIPE).hexdigest()[:12]
    return cache_dir / "environments" / f"{name}-{digest}"


def find_damage(name: str, cache_dir: Path, *, thorough: bool = False) -> str | None:
    """The damage of the environment of the current list: `""` when it was never completed, None when it is intact."""
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
    """The environment, created if it does not exist, and created again if it is damaged.

    Concurrent callers create it once. After an interruption, the next call starts over. Raises
    RemoteCommandFailed with uv's last lines when an installation fails, NotFound without a suitable Python,
    OperationFailed when the folder cannot be written.
    """
    path = path_of(name, cache_dir)
    environment = Environment(name, path)
    if find_damage(name, cache_dir, thorough=thorough) is None:
        return environment
    with changing(environment, reporter):
        # Another process may have created it meanwhile.
        damage = find_damage(name, cache_dir, thorough=thorough)
        if damage is None:
            return environment
        if damage:
            reporter.step(f"the {name} environment in {path} is damaged: {damage}")
        reporter.step(f"creating the {name} environment in {path} (once; takes some seconds)")
        with disk_errors("create environment", path, hint="choose another folder: export REPLAYCTL_CACHE_DIR=<folder>"):
            # The mark is removed first, so that a partly removed environment is not taken as complete.
            (path / _COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            base = find_python(name, python)
            installer.create(base, path, _environ(path))
            _install(environment, base, ["-r", str(requirements(name))], reporter, without_cache=bool(damage))
            packages.write_inventory(environment.site_packages, path / _COMPLETE)
    return environment


def add_package(environment: Environment, package: str, python: Path | None, reporter: Reporter) -> None:
    """Installs one more pinned package without its dependencies; raises RemoteCommandFailed when uv fails."""
    with changing(environment, reporter):
        _install(environment, find_python(environment.name, python), [package], reporter)


@contextlib.contextmanager
def changing(environment: Environment, reporter: Reporter) -> Iterator[None]:
    """Excludes all other changes while the block runs, including those by the uv of a killed replayctl."""
    path = environment.path
    hint = "choose another folder: export REPLAYCTL_CACHE_DIR=<folder>"
    with disk_errors("create folder", path.parent, hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
    reason = f"another replayctl is creating the {environment.name} environment"
    with exclusive(path.with_name(f"{path.name}.lock"), reason, reporter):
        survivors = processes.end(lambda: processes.find_marked(lambda mark: mark == _mark(path)))
        if survivors:
            raise Conflict(
                f"cannot end an interrupted installation in {path}: {processes.describe(survivors)}",
                hint="end these processes, then run the command again",
            )
        yield


def _install(
    environment: Environment, base: Path, arguments: list[str], reporter: Reporter, *, without_cache: bool = False
) -> None:
    """The lists are complete, so nothing is resolved; declared conflicts in them were tested together."""

    what = f"installing packages into the {environment.name} environment"
    reporter.status(what)

    def show(line: str) -> None:
        if line.startswith(_PROGRESS):
            reporter.status(f"{what}: {line.strip()[:100]}")

    python, env = environment.program("python"), _environ(environment.path)
    try:
        installer.install(python, arguments, env, configured_by=base, without_cache=without_cache, on_line=show)
    except RemoteCommandFailed as error:
        if is_full_disk(error.details or ""):
            error.hint = full_disk_hint(environment.path)
        raise


def _environ(path: Path) -> dict[str, str]:
    """The mark identifies an installation that continues after its replayctl was killed."""
    return {**os.environ, MARK_VARIABLE: _mark(path)}


def _mark(path: Path) -> str:
    return f"environment {path.resolve()}"
