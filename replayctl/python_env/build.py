"""One environment: planned from its inputs, built only when no archive of the same inputs is there, checked, packed."""

from __future__ import annotations

import contextlib
import glob
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from replayctl.bundle.package_files import ENVIRONMENT_SUFFIX, PackageFile, Runtime, product_of
from replayctl.bundle.python_list import read_requirements
from replayctl.console.events import Reporter
from replayctl.errors import NotFound
from replayctl.local import environments
from replayctl.local.disk import disk_errors, write_private
from replayctl.local.locking import exclusive
from replayctl.python_env import archive, check, debian, libraries, packages, standalone
from replayctl.python_env.recipe import STANDALONE, Recipe
from replayctl.python_env.trim import trim
from replayctl.python_env.zips import zip_modules
from replayctl.settings.declared import Settings

_TOOLS = "packing"
_KEPT = 3
_DISK_HINT = "choose another folder: export REPLAYCTL_CACHE_DIR=<folder>"


@dataclass(frozen=True, slots=True)
class Environment:
    """A packed environment on this machine; `note` says what its check could not do."""

    path: Path
    packed: archive.Packed
    note: str | None = None

    @property
    def package(self) -> PackageFile:
        """The archive as a package to upload."""
        name = self.path.name
        return PackageFile(self.path, name, "environment", product_of(name), self.packed.size, self.packed.sha256)


def plan_environment(settings: Settings) -> Recipe:
    """The inputs of the profile's environment.

    Raises UsageProblem for a list that is not pinned, NotFound where there is no interpreter to pack, OperationFailed
    when the nodes' C library is too old for it.
    """
    expected = settings.packages
    path = environments.spark_requirements(settings)
    runtime = Runtime(expected.python, expected.scala, expected.glibc, expected.machine)
    if expected.standalone_python is not None:
        interpreter = standalone.find_standalone(str(expected.standalone_python))
    else:
        interpreter = debian.find_debian(expected.python)
    check.check_interpreter(interpreter, runtime)
    return Recipe(path, read_requirements(path), runtime, interpreter)


def find_built(recipe: Recipe, cache: Path) -> Environment | None:
    """The archive of these inputs, if it was built here before."""
    path = _folder(cache) / recipe.file_name
    try:
        facts = json.loads(_facts_path(path).read_text(encoding="utf-8"))
        packed = archive.Packed(**facts["packed"])
        note = facts["note"]
        if path.stat().st_size == packed.size:
            return Environment(path, packed, note)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def build(recipe: Recipe, settings: Settings, dags: Path, reporter: Reporter, *, force: bool = False) -> Environment:
    """The archive, built unless it is there; `dags` is the folder of the workloads, whose imports are tried.

    Raises OperationFailed when a package does not fit the cluster, or the environment would not run there.
    """
    folder = _folder(settings.cache_dir)
    path = folder / recipe.file_name
    with disk_errors("build environment", folder, hint=_DISK_HINT):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(path.with_suffix(".lock"), "another replayctl builds this environment", reporter):
            built = None if force else find_built(recipe, settings.cache_dir)
            if built is not None:
                return built
            prefix = f".build-{path.name}-"
            # Of builds that were killed.
            for leftover in folder.glob(f"{glob.escape(prefix)}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as scratch:
                environment = _build(recipe, settings, dags, Path(scratch), path, reporter)
            _remove_old(path)
            return environment


def _remove_old(path: Path) -> None:
    """Removes all but the newest archives of the same list: each has hundreds of megabytes, and can be built again."""
    product = product_of(path.name)
    moments = {}
    for other in path.parent.glob(f"*{ENVIRONMENT_SUFFIX}"):
        # Another build may remove it at the same time.
        with contextlib.suppress(FileNotFoundError):
            if product_of(other.name) == product:
                moments[other] = other.stat().st_mtime
    for old in sorted(moments, key=lambda other: moments[other], reverse=True)[_KEPT:]:
        # Without its facts it counts as not built.
        _facts_path(old).unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def _build(
    recipe: Recipe, settings: Settings, dags: Path, scratch: Path, path: Path, reporter: Reporter
) -> Environment:
    # Before anything that takes long.
    imports = check.imports_of(dags)
    tools = environments.ensure(_TOOLS, settings.cache_dir, settings.local.python, reporter)
    python = environments.find_python(_TOOLS, settings.local.python)
    version = recipe.runtime.python
    root = scratch / "root"
    tree = root / check.CONTAINER
    tree.parent.mkdir(parents=True)
    reporter.step(f"unpacking Python {version} ({recipe.interpreter.kind})")
    if recipe.interpreter.kind == "debian":
        tree.mkdir()
        debian.unpack_debian(recipe.interpreter, version, tree, scratch, tools.program("patchelf"))
    else:
        standalone.unpack_standalone(recipe.interpreter, version, tree, scratch, path.parent, reporter)
    installed = _packages_folder(tree, version, recipe.interpreter.kind)
    # Before the packages, which take longer.
    check.check_tree(tree, recipe.runtime, recipe.interpreter.kind, links=False)
    reporter.step(f"installing {len(recipe.packed)} packages")
    packages.install(python, recipe.packed, recipe.runtime, installed, reporter)
    trim(tree, version)
    if recipe.interpreter.kind == STANDALONE:
        libraries.bundle_libraries(tree, installed, tools.program("patchelf"))
    check.resolve_links(tree)
    check.check_tree(tree, recipe.runtime, recipe.interpreter.kind)
    zips: tuple[Path, ...] = ()
    if recipe.from_spark:
        reporter.step("fetching Spark's Python for the check")
        zips = packages.install_spark_python(python, recipe.from_spark, scratch / "spark", reporter)
    modules = check.installed_modules(imports, installed)
    reporter.step("moving pure Python into zips")
    zip_modules(tree, installed, version, scratch)
    reporter.step("trying all imports under an empty root")
    note = check.check_imports(root, zips, modules, with_compiler_libraries=recipe.interpreter.kind == STANDALONE)
    unpacked = sum(entry.stat().st_size for entry in tree.rglob("*") if entry.is_file())
    # An interrupted build leaves nothing.
    partial = scratch / path.name
    with reporter.progress(f"packing {path.name}", unpacked, unit="bytes") as advance:
        packed = archive.pack(tree, partial, advance)
    _facts_path(path).unlink(missing_ok=True)
    partial.replace(path)
    write_private(_facts_path(path), json.dumps({"packed": asdict(packed), "note": note}))
    return Environment(path, packed, note)


def _packages_folder(tree: Path, version: str, kind: str) -> Path:
    library = tree / "lib" / f"python{version}"
    if not library.is_dir():
        raise NotFound(f"the interpreter brings no standard library of Python {version}")
    # Debian's interpreter looks for packages there.
    return library / ("dist-packages" if kind == "debian" else "site-packages")


def _folder(cache: Path) -> Path:
    return cache / "python-envs"


def _facts_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
