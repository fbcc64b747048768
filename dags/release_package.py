"""A release as a package: its deployment, the specs of its modules, and its siblings in the same store."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from .dag_specs import DagSpec, Deployment

DEPLOYMENT_FILE = "deployment.json"
_FOLDER = Path(__file__).parent


def load_module(name: str) -> ModuleType:
    """A module of this release."""
    return importlib.import_module(f".{name}", __package__)


def has_module(name: str) -> bool:
    """Whether this release has the module."""
    return (_FOLDER / f"{name}.py").is_file()


def load_deployment() -> Deployment:
    """Where this release runs, as recorded by its deploy."""
    return Deployment.from_json((_FOLDER / DEPLOYMENT_FILE).read_text(encoding="utf-8"), release=_FOLDER.name)


def load_specs(module: str, deployment: Deployment) -> tuple[DagSpec, ...]:
    """The specs of one DAG module, on the deployment's engines; empty for a module that builds its DAGs itself."""
    specs = getattr(load_module(module), "dag_specs", None)
    declared = specs(deployment.namespace) if specs else ()
    for spec in declared:
        # A server that the profile does not have is an error of the module, before any evaluation fails.
        deployment.tracking_server(spec)
    return tuple(spec.on(deployment.engine).using(deployment.packages) for spec in declared)


def import_from(release: str, module: str) -> ModuleType:
    """A module of another release in the same store, loaded as stubs load theirs.

    Raises ImportError or OSError if that release no longer exists or has no such module.
    """
    if release not in sys.modules:
        folder = _FOLDER.parent / release
        spec = importlib.util.spec_from_file_location(
            release, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{folder} is not a package")
        package = importlib.util.module_from_spec(spec)
        sys.modules[release] = package
        try:
            spec.loader.exec_module(package)
        except BaseException:
            del sys.modules[release]
            raise
    return importlib.import_module(f"{release}.{module}")
