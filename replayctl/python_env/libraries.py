"""Libraries that wheels expect of a system, and a standalone CPython does not bring: taken from other wheels."""

from __future__ import annotations

import shutil
from pathlib import Path

from replayctl import process
from replayctl.errors import OperationFailed
from replayctl.python_env.check import names_in_elf

_TIMEOUT_S = 300.0
# LightGBM and implicit need it; scikit-learn's wheel brings one that runs with every C library that its other files do.
_FROM_WHEELS = {"libgomp.so.1": "libgomp-*.so.1*"}


def bundle_libraries(tree: Path, packages: Path, patchelf: Path) -> None:
    """Copies to lib/ what packages need and none of them has for all; the interpreter looks there first.

    Raises OperationFailed if no wheel has it.
    """
    for name in [name for name in _FROM_WHEELS if not (tree / "lib" / name).exists()]:
        needing = next((path for path in sorted(packages.rglob("*.so*")) if name in names_in_elf(path, (name,))), None)
        if needing is None:
            continue
        source = next(iter(sorted(packages.glob(f"*.libs/{_FROM_WHEELS[name]}"))), None)
        if source is None:
            raise OperationFailed(
                f"{needing.relative_to(packages)} requires {name}, which neither the interpreter nor a package has",
                hint="add a package whose wheel has it, such as scikit-learn, to packages.requirements",
            )
        shutil.copy(source, tree / "lib" / name)
        # RPATH, not RUNPATH: it also counts for the libraries of extension modules, such as LightGBM's.
        program = str(tree / "bin" / "python3")
        process.run([str(patchelf), "--force-rpath", "--set-rpath", "$ORIGIN/../lib", program], timeout_s=_TIMEOUT_S)
