"""Pure Python as two zips: nodes of YARN take time for each file of an archive, however small it is.

Python has both on its path by itself: `lib/pythonXY.zip` by default, and the packages' by a `.pth` file. Modules are in
them as sources and as bytecode, which nothing could write beside them later.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from replayctl import process
from replayctl.errors import OperationFailed, RemoteCommandFailed

_TIMEOUT_S = 600.0
_PACKAGES = "packages.zip"
# The interpreter finds its library by this file.
_LANDMARK = "os.py"
# They name their own path in warnings and versions only, or their main program's.
_HARMLESS = frozenset({"joblib", "narwhals", "polars", "pydantic", "sqlglot"})
# They read their data by importlib.resources, which also opens what is in a zip.
_WITH_RESOURCES = frozenset({"ibis", "pytz", "setuptools", "tzdata"})
_OWN_PATH = re.compile(rb"__file__|__path__|\bget_data\b")
_DOCUMENTS = re.compile(r"(LICEN[CS]E|COPYING|README|NOTICE|AUTHORS|CITATION).*|.*\.(md|rst|sh|[1-9])", re.IGNORECASE)
_DATE = (2000, 1, 1, 0, 0, 0)


def zip_modules(tree: Path, packages: Path, python: str, scratch: Path) -> None:
    """Moves what can be imported from a zip into zips; `packages` is the folder of packages in `tree`.

    Raises OperationFailed when the packed interpreter does not run here.
    """
    library = tree / "lib" / f"python{python}"
    modules = list(_library_modules(library))
    entries = sorted(entry for entry in packages.iterdir() if may_be_zipped(entry))
    staged = scratch / "zipped"
    for source, entries_of in ((library, modules), (packages, entries)):
        for entry in entries_of:
            target = staged / source.name / entry.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if entry.is_dir() else shutil.copy)(entry, target)
    _compile(tree, staged)
    _zip(staged / library.name, tree / "lib" / f"python{python.replace('.', '')}.zip")
    if entries:
        _zip(staged / packages.name, packages / _PACKAGES)
        (packages / "packages.pth").write_text(f"{_PACKAGES}\n", encoding="utf-8")
    for entry in (*modules, *entries):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def may_be_zipped(entry: Path) -> bool:
    """Whether a package works from a zip: it has no compiled modules, and no data that it reads by their path."""
    name = entry.name
    if name.endswith(".dist-info"):
        return True
    if entry.is_file():
        return entry.suffix == ".py" and not _OWN_PATH.search(entry.read_bytes())
    files = [path for path in entry.rglob("*") if path.is_file()]
    if any(".so" in path.suffixes for path in files):
        return False
    if name in _WITH_RESOURCES:
        return True
    data = [path for path in files if path.suffix != ".py" and not _DOCUMENTS.fullmatch(path.name)]
    sources = [path for path in files if path.suffix == ".py"]
    if data or not sources:
        return False
    return name in _HARMLESS or not any(_OWN_PATH.search(path.read_bytes()) for path in sources)


def _library_modules(library: Path) -> Iterator[Path]:
    for entry in sorted(library.iterdir()):
        if entry.name in ("lib-dynload", "dist-packages", "site-packages", _LANDMARK):
            continue
        if entry.is_dir() or entry.suffix == ".py":
            yield entry


def _compile(tree: Path, staged: Path) -> None:
    """Bytecode beside the sources, which is never compared with them; what cannot be compiled stays a source."""
    program = str(tree / "bin" / "python3")
    argv = [program, "-I", "-B", "-m", "compileall", "-q", "-b", "--invalidation-mode", "unchecked-hash"]
    # Tracebacks name files by their place in the environment.
    argv += ["-s", str(staged), "-p", "environment", str(staged)]
    try:
        # Modules for other versions of Python may not compile: they are counted as a failure.
        process.run([program, "-I", "-B", "-c", "pass"], timeout_s=_TIMEOUT_S)
        process.run(argv, timeout_s=_TIMEOUT_S, check=False)
    except RemoteCommandFailed as error:
        raise OperationFailed("the packed interpreter does not run on this machine", details=error.details) from error


def _zip(folder: Path, path: Path) -> None:
    """Stored, as the archive around is compressed; packages without `__init__.py` are found by entries of folders."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for entry in sorted(folder.rglob("*")):
            name = entry.relative_to(folder).as_posix()
            if entry.is_dir():
                archive.writestr(zipfile.ZipInfo(f"{name}/", _DATE), b"")
            else:
                archive.writestr(zipfile.ZipInfo(name, _DATE), entry.read_bytes())
