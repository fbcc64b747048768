"""A standalone interpreter: downloaded once, checked, and never more than it may be."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from replayctl.errors import OperationFailed
from replayctl.python_env import standalone
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
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/cpython.tar.gz"
    server.shutdown()
    server.server_close()
    thread.join()


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
