"""Run by the packed interpreter: imports all packages and loads all shared libraries; prints what fails as JSON.

Standard library only.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pathlib
import sys
import zipfile


def _top_modules(folder: pathlib.Path) -> list[str]:
    names = []
    for entry in folder.iterdir():
        name = entry.name.partition(".")[0]
        module = entry.suffix in (".py", ".so") or (entry / "__init__.py").is_file()
        if module and name.isidentifier() and name != "__init__":
            names.append(name)
    return names


def _zipped_modules(path: pathlib.Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist() if name.endswith((".py", "/__init__.py"))}
    return sorted(name for name in (top.partition(".")[0] for top in tops) if name.isidentifier())


def main(argv: list[str]) -> int:
    """`MODULE…` are imported as well."""
    prefix = pathlib.Path(sys.base_prefix)
    library = prefix / "lib" / "python{}.{}".format(*sys.version_info)
    sys.path += sorted(str(path) for path in pathlib.Path(__file__).parent.glob("*.zip"))
    names = [*_top_modules(library / "lib-dynload"), *argv]
    for packages in (library / "dist-packages", library / "site-packages"):
        if packages.is_dir():
            names += _top_modules(packages)
            for path in packages.glob("*.zip"):
                names += _zipped_modules(path)
    failures = {}
    # Libraries of packages need what their package loads first, so they are loaded after it.
    for name in dict.fromkeys(names):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Optional parts of packages may need others; what the workloads import may not lack anything.
            if name in argv:
                failures[name] = f"ModuleNotFoundError: {error}"
        except BaseException as error:  # noqa: BLE001 - whatever a package raises is reported
            # Of long advice, as NumPy gives it, the last line is the cause.
            lines = str(error).strip().splitlines()
            failures[name] = f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"
    for path in sorted(prefix.rglob("*.so*")):
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            failures[str(path.relative_to(prefix))] = str(error)
    sys.stdout.write(
        "\n" + json.dumps({"prefix": str(prefix), "failures": failures, "modules": len(set(names))}) + "\n"
    )
    sys.stdout.flush()
    # Threads of libraries must not keep it alive.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
