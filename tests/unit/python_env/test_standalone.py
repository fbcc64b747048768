"""A standalone interpreter: downloaded once, checked, and never more than it may be."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from replayctl.errors import OperationFailed, UsageProblem
from replayctl.python_env import standalone
from tests.http_server import serving
from tests.reporters import RecordingReporter

CONTENT = b"an archive" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    content = CONTENT
    requests = 0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        type(self).requests += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "requests", 0)
    with serving(Handler) as address:
        yield f"http://{address}/cpython.tar.gz"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    scratch, cache = tmp_path / "scratch", tmp_path / "cache"
    scratch.mkdir()
    cache.mkdir()
    return scratch, cache


def fetch(source: str, folders: tuple[Path, Path], sha256: str = SHA256) -> bytes:
    return standalone._fetched(source, sha256, *folders, RecordingReporter()).read_bytes()


def test_it_is_downloaded_once_and_again_when_it_was_damaged(source: str, folders: tuple[Path, Path]) -> None:
    assert fetch(source, folders) == fetch(source, folders) == CONTENT
    assert Handler.requests == 1
    (path,) = folders[1].iterdir()
    path.write_bytes(b"")
    assert fetch(source, folders) == CONTENT
    assert Handler.requests == 2


def test_a_download_that_fails_leaves_nothing_in_the_cache(
    source: str, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OperationFailed, match="the profile names 0000"):
        fetch(source, folders, sha256="0" * 64)
    monkeypatch.setattr(standalone, "_MAX_BYTES", len(CONTENT) - 1)
    with pytest.raises(OperationFailed, match=f"has more than {len(CONTENT) - 1} bytes"):
        fetch(source, folders)
    assert list(folders[1].iterdir()) == []


def archive(
    tmp_path: Path,
    members: dict[str, str],
    *,
    links: dict[str, str] | None = None,
    symlinks: dict[str, str] | None = None,
) -> Path:
    """An install_only archive; what lies in bin/ is executable."""
    path = tmp_path / "cpython-install_only.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members.items():
            entry = tarfile.TarInfo(f"python/{name}")
            entry.size, entry.mode = len(text.encode()), 0o755 if name.startswith("bin/") else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
        for kind, entries in ((tarfile.LNKTYPE, links), (tarfile.SYMTYPE, symlinks)):
            for name, target in (entries or {}).items():
                entry = tarfile.TarInfo(f"python/{name}")
                entry.type, entry.linkname = kind, target
                tar.addfile(entry)
    return path


def unpack(tmp_path: Path, path: Path) -> Path:
    tree, scratch = tmp_path / "tree", tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    setting = f"{path}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}"
    standalone.unpack_standalone(
        standalone.find_standalone(setting), "3.11", tree, scratch, tmp_path / "cache", RecordingReporter()
    )
    return tree


WHOLE = {"bin/python3.11": "#!/bin/sh\necho 3.11\n", "lib/python3.11/os.py": "", "lib/libpython3.11.so.1.0": ""}


def test_what_steps_do_not_need_or_nodes_do_not_have_is_left_out(tmp_path: Path) -> None:
    crypt = "lib/python3.11/lib-dynload/_crypt.cpython-311-x86_64-linux-gnu.so"
    link = {"lib/libpython3.11.so": "libpython3.11.so.1.0"}
    tree = unpack(tmp_path, archive(tmp_path, {**WHOLE, crypt: ""}, symlinks=link))
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()) == [
        "bin/python3",
        "lib/libpython3.11.so.1.0",
        # Python warns without the folder.
        "lib/python3.11/lib-dynload/EMPTY",
        "lib/python3.11/os.py",
    ]


@pytest.mark.parametrize(
    ("members", "links", "error"),
    [
        ({"bin/python3.11": WHOLE["bin/python3.11"], "lib/x": ""}, {}, "has no Python 3.11"),
        (WHOLE | {"bin/python3.11": "#!/bin/sh\necho 3.12\n"}, {}, "is not Python 3.11"),
        (WHOLE, {"lib/a": "python/lib/missing"}, "cannot unpack"),
    ],
)
def test_an_archive_that_cannot_be_used_is_named(
    tmp_path: Path, members: dict[str, str], links: dict[str, str], error: str
) -> None:
    path = archive(tmp_path, members, links=links)
    with pytest.raises(UsageProblem, match=error) as raised:
        unpack(tmp_path, path)
    assert str(path) in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("program", "words"),
    [("#!/bin/sh\necho no such CPU >&2; exit 4\n", "no such CPU"), ("\x7fELF of another", "Exec format error")],
)
def test_an_interpreter_that_does_not_run_is_noticed_before_any_package(
    tmp_path: Path, program: str, words: str
) -> None:
    path = archive(tmp_path, WHOLE | {"bin/python3.11": program})
    with pytest.raises(OperationFailed, match="does not run on this machine") as raised:
        unpack(tmp_path, path)
    assert words in (raised.value.details or "")


@pytest.mark.parametrize("damage", ["cut", "changed", "no gzip"])
def test_a_damaged_archive_is_one_error(tmp_path: Path, damage: str) -> None:
    path = archive(tmp_path, WHOLE | {"lib/python3.11/x.py": os.urandom(60_000).hex()})
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "changed":
        # A block of a type that does not exist, after the name in the header.
        start = 10 + len("cpython-install_only.tar") + 1
        content[start : start + 4] = b"\x07" * 4
    else:
        content = bytearray(b"not a tar")
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match="cannot unpack"):
        unpack(tmp_path, path)


def test_a_file_that_is_missing_is_an_error_of_the_plan(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="is not a file"):
        standalone.find_standalone(f"{tmp_path / 'none.tar.gz'}#sha256={SHA256}")
