"""Whether an environment runs elsewhere: it must not point outside itself, and must need nothing but the C library.

The imports are tried under an empty root of the file system, by util-linux's unshare.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from replayctl import process
from replayctl.bundle.package_files import Runtime
from replayctl.errors import OperationFailed, RemoteCommandFailed, UsageProblem
from replayctl.python_env.recipe import Interpreter, version_of

# Where YARN might put it: no path of the machine that builds.
CONTAINER = Path("container") / "environment"
_SCRIPT = Path(__file__).with_name("imports.py")
_TIMEOUT_S = 600.0
_ELF = b"\x7fELF"
_C_LIBRARY = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
    "libresolv.so.2",
    "libnss_files.so.2",
]
# What wheels may expect of every node (PEP 600), and a standalone CPython does not bring.
_COMPILER_LIBRARIES = ("libgcc_s.so.1", "libstdc++.so.6", "libz.so.1")
_LOADERS = ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1")
_LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "usr/lib64", "lib")
_SHOWN = 8
_NO_LIBRARY = re.compile(r"(\S+): cannot open shared object file")


_STANDALONE = (
    "(cpython-…-install_only.tar.gz of https://github.com/astral-sh/python-build-standalone): "
    "export REPLAYCTL_PACKAGES_STANDALONE_PYTHON='<URL>#sha256=<64 hex digits>'"
)
_OTHER_INTERPRETER = {
    "debian": f"name a standalone CPython {_STANDALONE}",
    "standalone": f"name a standalone CPython that was built for an older C library {_STANDALONE}",
}
_OTHER_WHEEL = "pin a version that has a wheel for the nodes' C library in packages.requirements"


def check_glibc(what: str, required: str | None, runtime: Runtime, way_out: str) -> None:
    """OperationFailed with the hint `way_out` when something requires a newer C library than the nodes have."""
    if required is None or version_of(required) <= version_of(runtime.glibc):
        return
    raise OperationFailed(
        f"{what} requires glibc {required}, the cluster's nodes have {runtime.glibc}",
        hint=f"{way_out}; if the nodes are newer than that: export REPLAYCTL_PACKAGES_GLIBC={required}",
    )


def check_interpreter(interpreter: Interpreter, runtime: Runtime) -> None:
    """OperationFailed when the interpreter is known to require a newer C library than the nodes have."""
    check_glibc(f"Debian's Python {runtime.python}", interpreter.glibc, runtime, _OTHER_INTERPRETER["debian"])


def check_tree(tree: Path, runtime: Runtime, kind: str, *, links: bool = True) -> None:
    """OperationFailed for links, unless they are still to be resolved, and for files that need a newer C library."""
    newest = 0
    newest_of = Path()
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() and links:
            raise OperationFailed(f"the environment is not relocatable: {path.relative_to(tree)} is a link")
        required = _glibc_of(path) if path.is_file() else 0
        if required > newest:
            newest, newest_of = required, path.relative_to(tree)
    is_package = not {"site-packages", "dist-packages"}.isdisjoint(newest_of.parts)
    check_glibc(str(newest_of), f"2.{newest}", runtime, _OTHER_WHEEL if is_package else _OTHER_INTERPRETER[kind])


def _glibc_of(path: Path) -> int:
    """The newest C library, as the number after `2.`, whose symbols a program or library names; 0 for other files."""
    return max(map(int, _found_in_elf(path, rb"\0GLIBC_2\.([0-9]{1,3})(?=[.\0])")), default=0)


def names_in_elf(path: Path, names: Sequence[str]) -> frozenset[str]:
    """Those of the names, such as of libraries that it needs, that a program or library has; none for other files."""
    pattern = b"\\0(" + b"|".join(re.escape(name.encode()) for name in names) + b")(?=\\0)"
    return frozenset(name.decode() for name in _found_in_elf(path, pattern))


def _found_in_elf(path: Path, pattern: bytes) -> list[bytes]:
    with path.open("rb") as file:
        if file.read(len(_ELF)) != _ELF:
            return []
        # Some libraries have hundreds of megabytes.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return re.findall(pattern, content)


def resolve_links(tree: Path) -> None:
    """Replaces links by what they point to; OperationFailed for one that points outside or nowhere."""
    for path in sorted(path for path in tree.rglob("*") if path.is_symlink()):
        target = path.resolve()
        if not target.is_relative_to(tree.resolve()) or not target.exists():
            raise OperationFailed(
                f"the environment is not relocatable: {path.relative_to(tree)} points to {os.readlink(path)}"
            )
        path.unlink()
        if target.is_dir():
            shutil.copytree(target, path)
        else:
            shutil.copy(target, path)


def check_imports(
    root: Path, zips: Sequence[Path], modules: Sequence[str], *, with_compiler_libraries: bool
) -> str | None:
    """Imports everything in `root`/CONTAINER; None, or why it was tried without an empty root of the file system.

    Raises OperationFailed with what cannot be imported.
    """
    check = root / "check"
    check.mkdir()
    for path in (_SCRIPT, *zips):
        shutil.copy(path, check)
    reason = _prepare_root(root, with_compiler_libraries=with_compiler_libraries)
    answer: str | None = None
    if reason is None:
        argv = [*_UNSHARE, f"--root={root}", "--wd=/", "--mount-proc", f"/{CONTAINER}/bin/python3"]
        try:
            # The kernel may refuse namespaces to this user.
            process.run([*argv, "-I", "-B", "-c", "pass"], env=_ENVIRONMENT, timeout_s=_TIMEOUT_S)
            answer = process.run(
                [*argv, "-I", "-B", "/check/imports.py", *modules], env=_ENVIRONMENT, timeout_s=_TIMEOUT_S, check=False
            ).tail
        except RemoteCommandFailed as error:
            if "unshare" not in (error.details or ""):
                raise OperationFailed("the packed interpreter does not start", details=error.details) from error
            reason = (error.details or "").splitlines()[-1]
    if answer is None:
        program = str(root / CONTAINER / "bin" / "python3")
        argv = [program, "-I", "-B", str(check / "imports.py"), *modules]
        answer = process.run(argv, env=_ENVIRONMENT, timeout_s=_TIMEOUT_S, check=False).tail
    _judge(answer)
    return reason


_UNSHARE = (
    "unshare",
    *(() if os.geteuid() == 0 else ("--map-root-user",)),
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
)
_ENVIRONMENT = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/", "LC_ALL": "C.UTF-8"}


def _judge(output: str) -> None:
    line = next((line for line in reversed(output.splitlines()) if line.startswith('{"prefix"')), None)
    if line is None:
        raise OperationFailed("the check of the environment has crashed", details=output[-3000:])
    failures = json.loads(line)["failures"]
    if failures:
        first = list(failures.items())[:_SHOWN]
        raise OperationFailed(
            f"the environment would not run on another machine: {len(failures)} modules do not load",
            details="\n".join(f"{name}: {reason}" for name, reason in first),
            hint=_missing_hint(failures.values()),
        )


def _missing_hint(reasons: Iterable[str]) -> str:
    libraries = sorted({match[1] for reason in reasons if (match := _NO_LIBRARY.search(reason))})
    if not libraries:
        return "add what is missing to packages.requirements"
    return (
        f"in packages.requirements, name packages whose wheels bring {', '.join(libraries)}, or leave out those above"
    )


def _prepare_root(root: Path, *, with_compiler_libraries: bool) -> str | None:
    """Gives the root a C library, /proc, /dev and /tmp; a reason why it cannot be used."""
    if platform.system() != "Linux" or shutil.which("unshare") is None:
        return "there is no unshare on this machine"
    loader = next((name for name in _LOADERS if Path("/", name).exists()), None)
    folder = next((name for name in _LIBRARY_FOLDERS if Path("/", name, "libc.so.6").exists()), None)
    if loader is None or folder is None:
        return "this machine has no glibc"
    names = (*_C_LIBRARY, *(_COMPILER_LIBRARIES if with_compiler_libraries else ()))
    for name in (loader, *(f"{folder}/{name}" for name in names)):
        source = _library(name)
        if source is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / name)
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    (root / "dev" / "null").touch()
    return None


def _library(name: str) -> Path | None:
    return next((path for path in (Path("/", name), Path("/usr", name)) if path.exists()), None)


def imports_of(folder: Path) -> frozenset[str]:
    """The modules that the Python files of a folder import, such as `sklearn.ensemble`, relative ones left out.

    Raises UsageProblem for a file that is not Python.
    """
    import ast

    modules: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            reason = getattr(error, "msg", error)
            raise UsageProblem(f"cannot parse {path}{f':{line}' if line else ''}: {reason}") from error
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules.add(node.module)
    return frozenset(modules)


def installed_modules(modules: Iterable[str], installed: Path) -> list[str]:
    """Those modules that belong to packages in the folder `installed`, sorted."""
    tops = {module: module.partition(".")[0] for module in modules}
    return sorted(
        module for module, top in tops.items() if (installed / top).is_dir() or (installed / f"{top}.py").is_file()
    )
