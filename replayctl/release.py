"""Releases as data: which files a DAG folder deploys, the hash that names them, the stubs and the zip.

Pure apart from reading the folder; knows nothing of targets or servers.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replayctl.errors import UsageProblem

STORE = "replayctl_releases"
POINTER = "current"
SUBMIT_SCRIPT = "dag_submit.py"
DEPLOYMENT_FILE = "deployment.json"
_SUFFIXES = frozenset({".py", ".json", ".yaml", ".yml", ".sql", ".txt", ".md"})
_MAX_FILE_BYTES = 5 * 1024 * 1024
_ENTRY_FUNCTIONS = frozenset({"dag_specs", "build_dags"})
_STUB_HEADER = re.compile(r"^# replayctl-stub: owner=(?P<owner>\S+) module=(?P<module>\S+)$", re.MULTILINE)
# ZIP cannot express an earlier moment; one fixed moment keeps the archive's bytes a function of its content.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """One file of a release: its path inside the package and its bytes."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Release:
    """An immutable copy of a DAG folder, named by the hash of its content; also the name of its Python package."""

    name: str
    files: tuple[ReleaseFile, ...]
    modules: tuple[str, ...]

    def content(self, path: str) -> bytes:
        """One file's bytes; UsageProblem when the release lacks a file that every release needs."""
        for file in self.files:
            if file.path == path:
                return file.content
        raise UsageProblem(f"the DAG folder has no {path}", hint="start from a copy of the shipped dags/ folder")

    def zip_bytes(self) -> bytes:
        """The release as a zip for Spark, its top folder named like the package; equal bytes for equal content."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in self.files:
                info = zipfile.ZipInfo(f"{self.name}/{file.path}", date_time=_ZIP_TIME)
                info.external_attr = 0o644 << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, file.content)
        return buffer.getvalue()


def build_release(dags_dir: Path, deployment_json: str) -> Release:
    """The release of a DAG folder together with the deployment it is for.

    Takes the whole folder: Python files and small data files, not hidden folders, virtual environments or bytecode.
    Raises UsageProblem when the folder is no package, has no DAG module, does not compile, or holds an oversized
    file.
    """
    if not (dags_dir / "__init__.py").is_file():
        raise UsageProblem(
            f"{dags_dir} is not a DAG folder: it has no __init__.py",
            hint="name the folder with --dags-dir, or run from a folder that has dags/ in it",
        )
    files = [ReleaseFile(DEPLOYMENT_FILE, deployment_json.encode())]
    modules = []
    for path in _walk(dags_dir):
        relative = path.relative_to(dags_dir).as_posix()
        content = path.read_bytes()
        if len(content) > _MAX_FILE_BYTES:
            raise UsageProblem(
                f"{path} has {len(content)} bytes, more than {_MAX_FILE_BYTES}: not a file for a release"
            )
        files.append(ReleaseFile(relative, content))
        if path.suffix == ".py" and _defines_dags(path, content) and "/" not in relative:
            modules.append(path.stem)
    if not modules:
        raise UsageProblem(f"{dags_dir} has no DAG module: no dag_*.py defines dag_specs() or build_dags()")
    return Release(_name_of(files), tuple(files), tuple(modules))


def _walk(dags_dir: Path) -> Sequence[Path]:
    found = []
    for path in sorted(dags_dir.rglob("*")):
        parts = path.relative_to(dags_dir).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if any((dags_dir.joinpath(*parts[:depth]) / "pyvenv.cfg").exists() for depth in range(1, len(parts))):
            continue
        if path.is_file() and path.suffix in _SUFFIXES and path.name != DEPLOYMENT_FILE:
            found.append(path)
    return found


def _defines_dags(path: Path, content: bytes) -> bool:
    try:
        # compile, and not only parse: it also refuses what the parser lets through, such as a stray return.
        compile(content, str(path), "exec", dont_inherit=True)
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UsageProblem(f"{path}{f':{line}' if line else ''} does not compile: {error}") from error
    return path.name.startswith("dag_") and any(
        isinstance(node, ast.FunctionDef) and node.name in _ENTRY_FUNCTIONS for node in tree.body
    )


def _name_of(files: Sequence[ReleaseFile]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"{len(file.path)}:{file.path}:{len(file.content)}:".encode())
        digest.update(file.content)
    return f"r_{digest.hexdigest()[:16]}"


def stub_name(module: str, suffix: str) -> str:
    """File name of the stub of one DAG module: `dag_two_stage_scenarios_alice.py`."""
    return f"{module}{suffix}.py"


def stub_owner(text: str) -> tuple[str, str] | None:
    """Owner directory and module that a stub's header names; None for a file that is no stub of ours."""
    match = _STUB_HEADER.search(text)
    return (match["owner"], match["module"]) if match else None


def stub_text(module: str, owner: str) -> str:
    """The stub of one DAG module: constant for its owner, whatever is released."""
    return _STUB.replace("@MODULE@", module).replace("@OWNER@", owner).replace("@STORE@", STORE)


_STUB = '''\
"""Shows Airflow the DAGs of @MODULE@ in the release that @STORE@/@OWNER@/current names."""
# replayctl-stub: owner=@OWNER@ module=@MODULE@
# Written by `replayctl sync-dags`, which finds a change made here by hand.
import importlib
import importlib.util
import sys
from pathlib import Path

# Named here because the DAG processor imports beforehand only what it reads in this file.
import airflow.providers.apache.spark.operators.spark_submit
import airflow.sdk


def _release_dags():
    store = Path(__file__).parent / "@STORE@" / "@OWNER@"
    release = (store / "current").read_text(encoding="ascii").strip()
    writes_bytecode = sys.dont_write_bytecode
    # The release is read-only for Airflow, and other users' processes must leave nothing in it.
    sys.dont_write_bytecode = True
    try:
        if release not in sys.modules:
            folder = store / release
            spec = importlib.util.spec_from_file_location(
                release, folder / "__init__.py", submodule_search_locations=[str(folder)]
            )
            package = importlib.util.module_from_spec(spec)
            sys.modules[release] = package
            spec.loader.exec_module(package)
        return importlib.import_module(f"{release}.dag_release").load_dags("@MODULE@")
    finally:
        sys.dont_write_bytecode = writes_bytecode


globals().update(_release_dags())
'''
