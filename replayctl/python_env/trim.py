"""Takes out of an environment what no step needs: on YARN the number of files decides how long a node unpacks it."""

from __future__ import annotations

import shutil
from pathlib import Path

# Below the folder of the standard library.
_LIBRARY_FOLDERS = ("test", "idlelib", "turtledemo", "tkinter", "lib2to3", "ensurepip", "pydoc_data", "venv")
_TEST_FOLDERS = frozenset({"test", "tests"})
_FOLDERS = frozenset({"__pycache__", "include"})
_SUFFIXES = frozenset(
    (
        ".pyc",
        ".pyi",
        ".pyx",
        ".pxd",
        ".pxi",
        ".h",
        ".hh",
        ".hpp",
        ".hxx",
        ".c",
        ".cc",
        ".cpp",
        ".cu",
        ".f",
        ".f90",
        ".a",
        ".tp",
        ".in",
        ".pc",
        ".cmake",
        ".build",
        ".exe",
    )
)
# What only an installer reads of a package.
_RECORDS = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "top_level.txt", "py.typed"})
_BUILD_FILES = frozenset({"CMakeLists.txt", "conftest.py"})
# Parts of packages for graphics cards, whose libraries would have to be on the node.
_CUDA = "_cuda*.so"


def trim(tree: Path, python: str) -> None:
    """Removes tests, type stubs, headers, sources of compiled modules, bytecode, and what is outside bin/ and lib/."""
    for entry in tree.iterdir():
        if entry.name not in ("bin", "lib"):
            _remove(entry)
    for program in (tree / "bin").iterdir():
        if program.name != "python3":
            _remove(program)
    library = tree / "lib" / f"python{python}"
    for path in [path for path in library.glob("config-*")] + [library / name for name in _LIBRARY_FOLDERS]:
        _remove(path)
    for entry in (tree / "lib").iterdir():
        if entry != library and entry.is_dir():
            _remove(entry)
    for packages in (library / "dist-packages", library / "site-packages"):
        for path in sorted(packages.rglob("*")) if packages.is_dir() else ():
            if path.name in _TEST_FOLDERS and path.is_dir():
                _remove(path)
    for path in sorted(tree.rglob("*")):
        odd = path.name in _RECORDS | _BUILD_FILES or path.suffix in _SUFFIXES or path.match(_CUDA)
        if path.exists() and (path.name in _FOLDERS if path.is_dir() else odd):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
