"""Stored evaluations are read, and files that others have put there are not."""

import json
import os
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from replayctl import process
from replayctl.errors import Conflict, NotFound, ReplayctlError, SettingsError
from replayctl.experiments import evaluations
from replayctl.experiments.evaluations import is_on_hdfs, read_hdfs_evaluations, read_shared_evaluations
from replayctl.publishing.unfinished import remove_unfinished
from replayctl.settings.load import load_settings
from replayctl.settings.namespace import find_namespace
from replayctl.settings.workspace import Workspace
from tests.reporters import RecordingReporter


def workspace(tmp_path: Path, **folders: str) -> Workspace:
    profile = {
        "user": "alice",
        "folders": {**dict.fromkeys(("dags", "spark_submit_files", "data_in_pods"), "/x"), **folders},
    }
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"default_profile": "p", "profiles": {"p": profile}}))
    settings = load_settings(None, environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    return Workspace(settings, find_namespace(settings), RecordingReporter())


def store(folder: Path, text: str, *, whole: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "mlflow.json").write_text(text)
    if whole:
        (folder / "_SUCCESS").touch()
    return folder


def test_whole_evaluations_of_all_data_sets_are_read(tmp_path: Path) -> None:
    root = tmp_path / "the artifacts"
    place = workspace(tmp_path, artifacts=str(root), artifacts_in_pods="/opt/artifacts")
    with pytest.raises(NotFound, match="the artifacts does not exist"):
        read_shared_evaluations(place)
    root.mkdir()
    assert read_shared_evaluations(place) == {}
    store(root / "alice" / "ml100k" / "evaluate" / "00ff", '{"a": "ü"}\n\n')
    store(root / "alice" / "ml 1m" / "evaluate" / "01ff", "whole\naudit x 3\nabc\n")
    store(root / "alice" / "ml100k" / "evaluate" / "02ff", "{}", whole=False)
    store(root / "alice" / "ml100k" / "evaluate" / ".03ff.tmp", "{}")
    store(root / "alice" / "ml100k" / "split" / "04ff", "{}")
    store(root / "bob" / "ml100k" / "evaluate" / "05ff", "{}")
    assert read_shared_evaluations(place) == {"00ff": '{"a": "ü"}\n\n', "01ff": "whole\naudit x 3\nabc\n"}


def test_links_are_not_followed_and_large_files_are_cut(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    evaluate = root / "alice" / "ml100k" / "evaluate"
    place = workspace(tmp_path, artifacts=str(root), artifacts_in_pods="/opt/artifacts")
    (tmp_path / "secret").write_text("secret")
    elsewhere = store(tmp_path / "elsewhere" / "evaluate" / "aa", "secret")
    linked = store(evaluate / "bb", "x")
    (linked / "mlflow.json").unlink()
    (linked / "mlflow.json").symlink_to(tmp_path / "secret")
    (evaluate / "cc").symlink_to(elsewhere)
    (root / "alice" / "other").symlink_to(tmp_path / "elsewhere")
    store(evaluate / "dd", "x" * (3 << 20))
    texts = read_shared_evaluations(place)
    assert list(texts) == ["dd"]
    assert len(texts["dd"]) == 1 << 20
    (root / "alice").rename(root / "bob")
    (root / "alice").symlink_to(root / "bob")
    with pytest.raises(ReplayctlError, match="is a link that belongs to"):
        read_shared_evaluations(place)


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data set of alice's that nobody may look into, not even root."""
    (folder := tmp_path / "artifacts" / "alice" / "closed").mkdir(parents=True)
    folder.chmod(0)
    if os.getuid() == 0:
        if not (setpriv := shutil.which("setpriv")):
            pytest.skip("root can look into every folder, and setpriv is not installed")
        argv = (setpriv, "--bounding-set=-dac_override,-dac_read_search")
        exchange = process.exchange
        monkeypatch.setattr(process, "exchange", lambda words, *args, **more: exchange([*argv, *words], *args, **more))
    yield folder
    folder.chmod(0o700)


def test_a_folder_that_is_closed_hides_no_other_and_is_named(tmp_path: Path, closed: Path) -> None:
    root = tmp_path / "artifacts"
    store(root / "alice" / "ml" / "evaluate" / "0a", "{}")
    for path in (root, root / "alice" / "ml"):
        (path / "split" / f".1.{'0' * 12}.{'1' * 32}.tmp").mkdir(parents=True)
    place = workspace(tmp_path, artifacts=str(root), artifacts_in_pods="/opt/artifacts")
    assert read_shared_evaluations(place) == {"0a": "{}"}
    assert len(remove_unfinished(place, {}).kept) == 1
    assert isinstance(place.reporter, RecordingReporter)
    words = f"{closed} was skipped: it belongs to {closed.owner()}, and you may not look into it"
    assert place.reporter.messages("warn") == [words, words]


def test_a_namespace_that_is_closed_is_not_to_be_removed(tmp_path: Path, closed: Path) -> None:
    place = workspace(tmp_path, artifacts=str(tmp_path / "artifacts"), artifacts_in_pods="/opt/artifacts")
    closed.parent.chmod(0)
    try:
        with pytest.raises(Conflict, match="you may not look into") as excinfo:
            read_shared_evaluations(place)
    finally:
        closed.parent.chmod(0o700)
    assert excinfo.value.hint == f"ask {closed.owner()} for access"


def test_a_profile_without_their_location_is_an_error(tmp_path: Path) -> None:
    place = workspace(tmp_path, artifacts_in_pods="/opt/artifacts")
    with pytest.raises(SettingsError, match="folders.artifacts is required in profile 'p'"):
        read_shared_evaluations(place)
    assert not is_on_hdfs(place.settings)
    assert is_on_hdfs(workspace(tmp_path, artifacts_in_pods="hdfs://nn:9000/replay/").settings)


@pytest.fixture
def namenode() -> Iterator[str]:
    files = {
        "/replay/alice/ml100k/evaluate/00ff": {"mlflow.json": b'{"a": 1}', "_SUCCESS": b""},
        "/replay/alice/ml100k/evaluate/01ff": {"mlflow.json": b"half"},
        "/replay/alice/ml100k/evaluate/05ff": {"mlflow.json": b"{}" * 100, "_SUCCESS": b""},
        "/replay/alice/ml100k/evaluate/06ff": {"mlflow.json": b"gone", "_SUCCESS": b""},
        "/replay/alice/ml100k/evaluate/.02ff.tmp": {"mlflow.json": b"{}", "_SUCCESS": b""},
        "/replay/alice/ml100k/split/03ff": {"mlflow.json": b"{}", "_SUCCESS": b""},
        "/replay/bob/ml100k/evaluate/04ff": {"mlflow.json": b"{}", "_SUCCESS": b""},
    }
    tree = {f"{folder}/{name}": content for folder, names in files.items() for name, content in names.items()}

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        parts = urllib.parse.urlsplit(handler.path)
        words, path = dict(urllib.parse.parse_qsl(parts.query)), parts.path.removeprefix("/webhdfs/v1")
        assert words["user.name"] == "alice"
        if words["op"] == "OPEN" and tree[path] == b"gone":
            return 404, b"{}"
        if words["op"] == "OPEN":
            return 200 if "node" in words else 307, tree[path]
        below = {name[len(path) + 1 :].split("/")[0] for name in tree if name.startswith(f"{path}/")}
        rows = [
            {
                **{"pathSuffix": name, "type": "FILE" if f"{path}/{name}" in tree else "DIRECTORY"},
                **{"length": len(tree.get(f"{path}/{name}", b"")), "modificationTime": 0},
            }
            for name in sorted(below)
        ]
        return (200, json.dumps({"FileStatuses": {"FileStatus": rows}}).encode()) if rows else (404, b"{}")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = answer(self)
            self.send_response(code)
            if code == 307:
                self.send_header("Location", f"http://{self.headers['Host']}{self.path}&node=1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_on_hdfs_the_same_are_read(tmp_path: Path, namenode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = workspace(tmp_path, artifacts_in_pods="hdfs://nn:9000/replay")
    settings = replace(place.settings, hdfs=replace(place.settings.hdfs, url=namenode))
    place = replace(place, settings=settings)
    monkeypatch.setattr(evaluations, "_MAX_BYTES", 100)
    assert read_hdfs_evaluations(place, {}) == {"00ff": '{"a": 1}', "05ff": ""}
