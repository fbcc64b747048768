"""Which stored files a release runs with: wheels and jars that its steps name, and the Python environment on YARN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from packaging.utils import canonicalize_name

from replayctl.bundle.package_files import kind_of, product_of
from replayctl.bundle.python_list import environment_prefix, read_requirements
from replayctl.bundle.specs import Dag
from replayctl.errors import NotFound
from replayctl.local.environments import spark_requirements
from replayctl.publishing.package_stores import open_store
from replayctl.publishing.packages import Store, newest_first, path_of
from replayctl.settings.declared import Settings
from replayctl.settings.namespace import find_namespace
from replayctl.settings.workspace import Workspace
from replayctl.storage.packages import StoredPackage


@dataclass(frozen=True, slots=True)
class Reference:
    """One stored file: its path as the cluster sees it, and the first 16 digits of its sha256."""

    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Packages:
    """The files that a release runs with: those that its steps name, and the environment of steps on YARN."""

    named: Mapping[str, Reference]
    python: Reference | None


def find_packages(workspace: Workspace, dags: Sequence[Dag]) -> Packages | None:
    """The files that the DAGs' steps need, the newest of each name; None when they need none.

    Packages of one's own come before those of the common namespace. Raises NotFound that names a missing one.
    """
    steps = [step for dag in dags for step in dag.steps]
    names = sorted({name for step in steps for name in step.packages})
    needs_python = workspace.settings.packages.environment and any(step.on_yarn for step in steps)
    if not names and not needs_python:
        return None
    workspace.reporter.status("looking up packages")
    named: dict[str, Reference] = {}
    python: Reference | None = None
    for place in _places(workspace):
        with open_store(place) as store:
            stored = newest_first(store.look().packages.values())
            named |= {
                name: _reference(store, package)
                for name in names
                if name not in named and (package := _named(stored, name)) is not None
            }
            if needs_python and python is None:
                environment = _environment(stored, place.settings)
                python = _reference(store, environment) if environment else None
    for name in names:
        if name not in named:
            raise _missing(name, dags)
    if needs_python and python is None:
        raise NotFound(
            f"the Python environment of {spark_requirements(workspace.settings).name} is not stored for steps on YARN",
            hint="run `replayctl build-python-env --publish`",
        )
    return Packages(named, python)


def _places(workspace: Workspace) -> list[Workspace]:
    common = find_namespace(workspace.settings, shared=True)
    return [workspace, *([replace(workspace, namespace=common)] if workspace.namespace.user else [])]


def _named(stored: Sequence[StoredPackage], name: str) -> StoredPackage | None:
    """The newest package with this file name, or with this name and any version; wheels by Python's rules of names."""
    products = {"wheel": canonicalize_name(name), "jar": name}
    for package in stored:
        if package.name == name or product_of(package.name) == products.get(str(kind_of(package.name))):
            return package
    return None


def _environment(stored: Sequence[StoredPackage], settings: Settings) -> StoredPackage | None:
    path = spark_requirements(settings)
    prefix = environment_prefix(path, read_requirements(path), settings.packages.python)
    return next((package for package in stored if package.name.startswith(prefix)), None)


def _reference(store: Store, package: StoredPackage) -> Reference:
    return Reference(path_of(store.root, package), package.folder.removeprefix("p_"))


def _missing(name: str, dags: Sequence[Dag]) -> NotFound:
    users = sorted({step.name for dag in dags for step in dag.steps if name in step.packages})
    return NotFound(
        f"package {name} of step {', '.join(users)} is not stored",
        hint="upload it: replayctl upd-wheels-and-jars <file>; what is stored: replayctl upd-wheels-and-jars --list",
    )
