"""What evaluations have kept is read from where it lies, and nothing that others have put in the way."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from replayctl.clients.hdfs import HdfsReader
from replayctl.errors import AuthFailed, NotFound, OperationFailed, ReplayctlError, SettingsError, Unreachable
from replayctl.experiments.evaluations import is_on_hdfs, read_shared_evaluations
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


def test_a_profile_that_does_not_say_where_they_are_is_told_so(tmp_path: Path) -> None:
    place = workspace(tmp_path, artifacts_in_pods="/opt/artifacts")
    with pytest.raises(SettingsError, match="folders.artifacts is required in profile 'p'"):
        read_shared_evaluations(place)
    assert not is_on_hdfs(place.settings)
    assert is_on_hdfs(workspace(tmp_path, artifacts_in_pods="hdfs://nn:9000/replay/").settings)


@pytest.fixture
def namenode() -> Iterator[str]:
    listing = {"FileStatuses": {"FileStatus": [{"pathSuffix": "a", "type": "FILE", "length": 3}]}}
    answers = {
        "/webhdfs/v1/ok": (200, json.dumps(listing).encode()),
        "/webhdfs/v1/odd": (200, b'{"FileStatuses": []}'),
        "/webhdfs/v1/html": (200, b"<html>"),
        "/webhdfs/v1/safe": (403, b'{"RemoteException": {"exception": "StandbyException"}}'),
        "/webhdfs/v1/closed": (403, b'{"RemoteException": {"exception": "AccessControlException"}}'),
        "/webhdfs/v1/broken": (500, b"no"),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert "user.name=alice" in self.path
            code, body = answers.get(self.path.partition("?")[0], (404, b"{}"))
            self.send_response(code)
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


def test_hdfs_says_what_is_wrong(namenode: str) -> None:
    reader = HdfsReader(namenode, "alice")
    assert reader.files("/ok") == {"a": 3}
    assert reader.folders("/ok") == []
    for path, error in {
        "/gone": NotFound,
        "/odd": OperationFailed,
        "/html": OperationFailed,
        "/broken": OperationFailed,
        "/safe": Unreachable,
        "/closed": AuthFailed,
    }.items():
        with pytest.raises(error):
            reader.files(path)
    with pytest.raises(OperationFailed, match="more than 5 bytes"):
        reader.read("/html", 5)
