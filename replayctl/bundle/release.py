"""Releases: the files of a DAG folder, the hash that names them, their checksums and the zip for Spark.

Reads the folder only, and does not use targets or servers.
"""

from __future__ import annotations

import ast
import hashlib
import io
import os
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from replayctl.bundle.source_files import SourceFile, read_source, source_files
from replayctl.errors import UsageProblem

STORE = "replayctl_releases"
POINTER = "current"
SUBMIT_SCRIPT = "dag_submit.py"
DEPLOYMENT_FILE = "deployment.json"
# Stored beside a release's own files: their checksums, and who deployed them, when and from which commit.
MANIFEST = ".manifest"
METADATA = ".release.json"
_SUFFIXES = frozenset({".py", ".json", ".yaml", ".yml", ".sql", ".txt", ".md"})
# In bytes: the limits of a POSIX tar archive.
MAX_NAME, _MAX_FOLDER = 100, 140
_MAX_FILE_BYTES = 5 * 1024 * 1024
_MAX_TOTAL_BYTES = 512 * 1024 * 1024
# The first one that a module defines counts, as in dag_release.
ENTRY_FUNCTIONS = ("build_dags", "dag_specs")
# The earliest time that ZIP can express; a fixed time makes equal content give equal bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
# Content of modules that compile, and their trees.
_COMPILED: set[bytes] = set()
_TREES: dict[bytes, ast.Module] = {}
_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


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
    # Modules that build their DAGs with Airflow's API: only a server knows which ones.
    free_modules: tuple[str, ...] = ()
    # Files of the folder that are not deployed, such as tables and notebooks.
    left_out: tuple[str, ...] = ()

    def content(self, path: str) -> bytes:
        """One file's bytes; UsageProblem if the release does not have this file, which every release needs."""
        for file in self.files:
            if file.path == path:
                return file.content
        raise UsageProblem(
            f"the DAG folder has no {path}", hint="run `replayctl init .` to start from a copy of the shipped DAGs"
        )

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
    """The release of a DAG folder and the deployment that it is for.

    Includes Python files and small data files of the whole folder, except hidden folders, virtual environments and
    bytecode. Raises UsageProblem if the folder is not a package or has no DAG module, and for a file that does not
    compile, cannot be read, is too large or is not a regular file.
    """
    if not os.path.isfile(dags_dir / "__init__.py"):
        raise UsageProblem(
            f"{dags_dir} is not a DAG folder: it has no __init__.py",
            hint="pass --dags-dir, or change to a folder with dags/ in it",
        )
    files = [ReleaseFile(DEPLOYMENT_FILE, deployment_json.encode())]
    modules: dict[str, str] = {}
    left_out = []
    total = 0
    for source in source_files(dags_dir):
        if source.path.suffix not in _SUFFIXES or source.relative == DEPLOYMENT_FILE:
            left_out.append(f"{source.relative} ({source.oddity})" if source.oddity else source.relative)
            continue
        _check_name(source)
        content = read_source(source.path, _MAX_FILE_BYTES)
        total += len(content)
        if total > _MAX_TOTAL_BYTES:
            raise UsageProblem(f"{dags_dir} has more than {_MAX_TOTAL_BYTES} bytes of code and small data")
        files.append(ReleaseFile(source.relative, content))
        entry = _entry_function(source.path, content) if source.path.suffix == ".py" else None
        if entry and "/" not in source.relative:
            if not source.path.stem.isascii() or not source.path.stem.isidentifier():
                raise UsageProblem(f"{source.path}: a DAG module's name has letters a-z, digits and '_' only")
            modules[source.path.stem] = entry
    if not modules:
        raise UsageProblem(f"{dags_dir} has no DAG module: no dag_*.py defines dag_specs() or build_dags()")
    free = tuple(module for module, entry in modules.items() if entry == "build_dags")
    return Release(_name_of(files), tuple(files), tuple(modules), free, tuple(left_out))


def _check_name(source: SourceFile) -> None:
    """Raises UsageProblem for a file that should be deployed, but cannot be."""
    if source.oddity:
        raise UsageProblem(
            f"{str(source.path)!r} cannot be deployed: it is {source.oddity}",
            hint="remove it, or replace it with a file",
        )
    relative = source.relative
    # Bytes that are not UTF-8 are not printable either.
    if not relative.isprintable() or "\\" in relative:
        raise UsageProblem(
            f"{str(source.path)!r} cannot be deployed: its name has a control character or a backslash",
            hint="rename it; letters, digits and '_' are safe",
        )
    folder, _, last = relative.rpartition("/")
    if len(last.encode()) > MAX_NAME or len(folder.encode()) > _MAX_FOLDER:
        raise UsageProblem(
            f"{str(source.path)!r} cannot be deployed: its name is too long",
            hint=f"use at most {MAX_NAME} bytes for a file's name and {_MAX_FOLDER} for its folders",
        )


def _entry_function(path: Path, content: bytes) -> str | None:
    """The entry function of a DAG module; None for other files. Raises UsageProblem if the file does not compile."""
    try:
        check_syntax(content, str(path))
        if not path.name.startswith("dag_"):
            return None
        tree = parse_module(content)
    except (RecursionError, MemoryError) as error:
        raise UsageProblem(
            f"{path} does not compile: an expression is nested too deeply for Python",
            hint="build the value in a loop, or move it to a data file",
        ) from error
    except (SyntaxError, ValueError, LookupError, OverflowError, SystemError) as error:
        line = getattr(error, "lineno", None)
        raise UsageProblem(
            f"{path}{f':{line}' if line else ''} does not compile: {getattr(error, 'msg', None) or error}",
            details="".join(traceback.format_exception_only(error)).rstrip() if line else None,
        ) from error
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    entries = [name for name in ENTRY_FUNCTIONS if name in defined]
    return entries[0] if entries else None


def check_syntax(content: bytes, name: str) -> None:
    """Raises what Python raises if the module does not compile. Python's warnings are ignored."""
    if content not in _COMPILED:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The parser alone accepts more, such as a return outside of a function.
            compile(content, name, "exec", dont_inherit=True)
        _COMPILED.add(content)


def parse_module(content: bytes) -> ast.Module:
    """The syntax tree of a module that compiles, not to be changed. Equal content is parsed once."""
    if content not in _TREES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _TREES[content] = ast.parse(content)
    return _TREES[content]


def _name_of(files: Sequence[ReleaseFile]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"{len(file.path)}:{file.path}:{len(file.content)}:".encode())
        digest.update(file.content)
    return f"r_{digest.hexdigest()[:16]}"


def manifest_text(files: Mapping[str, bytes]) -> bytes:
    """The output of `find . -type f -exec cksum {} + | sort` for these files, which POSIX tools can compare."""
    lines = [f"{posix_cksum(content)} {len(content)} ./{name}\n".encode() for name, content in files.items()]
    return b"".join(sorted(lines))


def posix_cksum(content: bytes) -> int:
    """The checksum of POSIX's cksum (IEEE Std 1003.1, cksum: CRC-32 most significant bit first, the length appended).

    zlib computes the same polynomial in reverse bit order, so bits are reversed before and after.
    """
    length = len(content)
    tail = length.to_bytes((length.bit_length() + 7) // 8, "little")
    turned = zlib.crc32((content + tail).translate(_TURNED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{turned:032b}"[::-1], 2) ^ 0xFFFFFFFF
