"""An interpreter from a standalone CPython archive, which the profile names with its checksum."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import zlib
from pathlib import Path

from replayctl import process
from replayctl.console.events import Reporter
from replayctl.errors import NotFound, OperationFailed, RemoteCommandFailed, Unreachable, UsageProblem
from replayctl.python_env.recipe import STANDALONE, Interpreter, parse_standalone

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_MAX_BYTES = 1 << 30
_SHOWN = 500
# Packages that it brings, such as pip, are not in the list; no step has a display. `_crypt` needs libcrypt, which not
# every node has.
_LEFT_OUT = shutil.ignore_patterns("site-packages", "_crypt.*", "_tkinter*", "libtcl*", "libtk*")


def find_standalone(setting: str) -> Interpreter:
    """The interpreter that the setting names; SettingsError when it is malformed, UsageProblem for a missing file."""
    source, sha256 = parse_standalone(setting)
    if "://" not in source and not Path(source).is_file():
        raise UsageProblem(f"{source} is not a file", hint="check packages.standalone_python")
    return Interpreter(STANDALONE, ((source, sha256),))


def unpack_standalone(
    interpreter: Interpreter, python: str, tree: Path, scratch: Path, cache: Path, reporter: Reporter
) -> None:
    """Fills `tree` with bin/python3 and lib/; UsageProblem for an archive that has another Python, or none."""
    ((source, sha256),) = interpreter.files
    archive = _fetched(source, sha256, scratch, cache, reporter)
    unpacked = scratch / "standalone"
    unpacked.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            # The filter refuses links and names that point outside.
            tar.extractall(unpacked, filter="data")
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, KeyError) as error:
        raise UsageProblem(f"cannot unpack {source}: {error}", hint="name an install_only archive (.tar.gz)") from error
    program = next(unpacked.glob(f"*/bin/python{python}"), None)
    if program is None or not (program.parent.parent / "lib" / f"python{python}" / "os.py").is_file():
        raise UsageProblem(
            f"{source} has no Python {python}", hint="name an archive of that version, or correct packages.python"
        )
    root = program.parent.parent
    (tree / "bin").mkdir(parents=True)
    shutil.copy(program, tree / "bin" / "python3")
    shutil.copytree(root / "lib", tree / "lib", symlinks=True, ignore=_left_out)
    extensions = tree / "lib" / f"python{python}" / "lib-dynload"
    extensions.mkdir(exist_ok=True)
    if not any(extensions.iterdir()):
        # Without the folder Python warns at each start, and an archive has no empty folders.
        (extensions / "EMPTY").touch()
    _try_out(tree / "bin" / "python3", python, source)


def _left_out(folder: str, names: list[str]) -> set[str]:
    # Links for linkers would become copies of the library; where it is a file, the interpreter needs it.
    links = {name for name in names if Path(name).match("libpython*.so") and Path(folder, name).is_symlink()}
    return links | _LEFT_OUT(folder, names)


def _try_out(program: Path, python: str, source: str) -> None:
    """Whether it is that Python, before the packages, which take longer."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        version = process.run([str(program), "-I", "-B", "-c", code], timeout_s=_TIMEOUT_S).tail.strip()
    except (RemoteCommandFailed, NotFound, OSError) as error:
        # OSError: a program of another processor.
        raise OperationFailed(
            f"the interpreter of {source} does not run on this machine",
            details=getattr(error, "details", None) or str(error),
            hint="check packages.standalone_python",
        ) from error
    if version != python:
        raise UsageProblem(
            f"the interpreter of {source} is not Python {python}",
            details=version[-_SHOWN:],
            hint="name an archive of that version, or correct packages.python",
        )


def _fetched(source: str, sha256: str, scratch: Path, cache: Path, reporter: Reporter) -> Path:
    """The archive as a file with this checksum, downloaded once."""
    if "://" not in source:
        _check(Path(source), source, sha256)
        return Path(source)
    path = cache / f"{sha256[:16]}.tar.gz"
    # A crash of the machine may have damaged what was downloaded before.
    if not path.is_file() or _digest(path) != sha256:
        partial = scratch / path.name
        _download(source, partial, reporter)
        _check(partial, source, sha256)
        partial.replace(path)
    return path


def _download(source: str, path: Path, reporter: Reporter) -> None:
    import urllib3

    from replayctl.clients.proxies import make_pool

    received = 0
    try:
        with (
            make_pool(source).request("GET", source, preload_content=False, timeout=_TIMEOUT_S) as answer,
            path.open("wb") as file,
        ):
            if answer.status != 200:
                raise Unreachable(
                    f"cannot download {source}: status {answer.status}", hint="check packages.standalone_python"
                )
            size = int(answer.headers.get("Content-Length") or 0)
            with reporter.progress(f"downloading {Path(source).name}", size or _MAX_BYTES, unit="bytes") as advance:
                for chunk in answer.stream(_CHUNK_BYTES):
                    received += len(chunk)
                    if received > _MAX_BYTES:
                        raise OperationFailed(
                            f"{source} has more than {_MAX_BYTES} bytes", hint="check packages.standalone_python"
                        )
                    file.write(chunk)
                    advance(len(chunk))
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(f"cannot download {source}: {error}", hint="check packages.standalone_python") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, source: str, sha256: str) -> None:
    digest = _digest(path)
    if digest != sha256:
        raise OperationFailed(
            f"{source} has sha256 {digest}, the profile names {sha256}", hint="check packages.standalone_python"
        )
