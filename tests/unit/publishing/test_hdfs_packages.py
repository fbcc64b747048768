"""Packages in HDFS, with a server that imitates WebHDFS: redirects, renames, interruptions."""

import base64
import hashlib
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from replayctl.clients.webhdfs import WebHdfs
from replayctl.errors import AuthFailed, Conflict, OperationFailed, Unreachable
from replayctl.publishing.hdfs_packages import HdfsPackageStore
from replayctl.storage.packages import folder_of

CONTENT = bytes(range(256)) * 500
SHA = hashlib.sha256(CONTENT).hexdigest()
ROOT = "/shared/alice"


class Hdfs(ThreadingHTTPServer):
    """Files and their attributes by path; a folder is a name without content."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes | None] = {}
        self.attributes: dict[tuple[str, str], str] = {}
        self.users: set[str] = set()
        self.owners: dict[str, str] = {}
        self.ages: dict[str, float] = {}
        self.busy = 0
        self.refusal: str | None = None

    def under(self, path: str) -> list[str]:
        return [name for name in self.files if name.startswith(f"{path}/")]


class _Handler(BaseHTTPRequestHandler):
    server: Hdfs
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _reply(self, status: int, document: Any = None, *, data: bytes = b"", location: str = "") -> None:
        data = json.dumps(document).encode() if document is not None else data
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _all(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        words = dict(urllib.parse.parse_qsl(parts.query))
        path = urllib.parse.unquote(parts.path).removeprefix("/webhdfs/v1")
        self.server.users.add(words.get("user.name", ""))
        if self.server.refusal:
            self._reply(403, {"RemoteException": {"exception": self.server.refusal}})
            return
        operation = words["op"]
        if operation in ("CREATE", "APPEND", "OPEN") and "datanode" not in words:
            if operation != "CREATE" and path not in self.server.files:
                self._reply(404, {})
                return
            self._reply(307, location=f"http://datanode.cluster:9864{self.path}&datanode=1")
            return
        getattr(self, f"_{operation.lower()}")(path, words)

    do_GET = do_PUT = do_POST = do_DELETE = _all

    def _create(self, path: str, words: dict[str, str]) -> None:
        body = self._body()
        if words["overwrite"] == "false" and path in self.server.files:
            self._reply(403, {"RemoteException": {"exception": "FileAlreadyExistsException"}})
            return
        self.server.files[path] = body
        self._reply(201)

    def _append(self, path: str, _: Any) -> None:
        body = self._body()
        if path.endswith("audit.log") and self.server.busy:
            self.server.busy -= 1
            self._reply(403, {"RemoteException": {"exception": "AlreadyBeingCreatedException"}})
            return
        self.server.files[path] = (self.server.files[path] or b"") + body
        self._reply(200)

    def _open(self, path: str, _: Any) -> None:
        self._reply(200, data=self.server.files[path] or b"")

    def _mkdirs(self, path: str, _: Any) -> None:
        self.server.files.setdefault(path, None)
        self._reply(200, {"boolean": True})

    def _liststatus(self, path: str, _: Any) -> None:
        names = {name[len(path) + 1 :].split("/")[0] for name in self.server.under(path)}
        if not names and path not in self.server.files:
            self._reply(404, {})
            return
        rows = []
        for name in sorted(names):
            content = self.server.files.get(f"{path}/{name}")
            kind = "DIRECTORY" if content is None else "FILE"
            row = {"pathSuffix": name, "type": kind, "length": len(content or b"")}
            changed = time.time() - self.server.ages.get(name, 0.0)
            row |= {"owner": self.server.owners.get(name, "alice"), "modificationTime": int(changed * 1000)}
            rows.append(row)
        self._reply(200, {"FileStatuses": {"FileStatus": rows}})

    def _rename(self, path: str, words: dict[str, str]) -> None:
        assert words["renameoptions"] == "NONE"
        new = words["destination"]
        if new in self.server.files or self.server.under(new):
            self._reply(403, {"RemoteException": {"exception": "FileAlreadyExistsException"}})
            return
        for name in [path, *self.server.under(path)]:
            self.server.files[new + name[len(path) :]] = self.server.files.pop(name)
        for name, key in list(self.server.attributes):
            if name == path or name.startswith(f"{path}/"):
                self.server.attributes[new + name[len(path) :], key] = self.server.attributes.pop((name, key))
        self._reply(200)

    def _setxattr(self, path: str, words: dict[str, str]) -> None:
        self.server.attributes[path, words["xattr.name"]] = words["xattr.value"]
        self._reply(200)

    def _getxattrs(self, path: str, _: Any) -> None:
        rows = [
            {"name": key, "value": "0s" + base64.b64encode(value.encode()).decode()}
            for (name, key), value in self.server.attributes.items()
            if name == path
        ]
        self._reply(200, {"XAttrs": rows})

    def _delete(self, path: str, _: Any) -> None:
        for name in [path, *self.server.under(path)]:
            self.server.files.pop(name, None)
        self._reply(200, {"boolean": True})


@pytest.fixture
def server() -> Iterator[Hdfs]:
    server = Hdfs()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(server: Hdfs) -> HdfsPackageStore:
    url = f"http://127.0.0.1:{server.server_port}"

    def route(host: str, port: int) -> str:
        assert (host, port) == ("datanode.cluster", 9864)
        return url

    return HdfsPackageStore(WebHdfs(url, "alice", route), ROOT, "hdfs://namenode:9000")


def send(store: HdfsPackageStore, content: bytes = CONTENT, *, offset: int = 0, name: str = "a-1.jar") -> None:
    rest = content[offset:]
    chunks = [rest[start : start + 1000] for start in range(0, len(rest), 1000)]
    facts = {"at": "2026-01-01T00:00:00+00:00", "by": "alice"}
    store.send(sha256=SHA, name=name, size=len(CONTENT), offset=offset, chunks=chunks, facts=facts, audit="{}")


def test_a_package_is_stored_whole_with_its_checksum(server: Hdfs, store: HdfsPackageStore) -> None:
    assert store.look([SHA]).packages == {}
    send(store)
    stored = store.look([SHA])
    assert stored.has(SHA, "a-1.jar", len(CONTENT))
    assert stored.packages[folder_of(SHA)].facts == {"at": "2026-01-01T00:00:00+00:00", "by": "alice"}
    assert stored.parts == {}
    assert server.files[f"{ROOT}/{folder_of(SHA)}/a-1.jar"] == CONTENT
    # Without it HDFS takes everybody for dr.who.
    assert server.users == {"alice"}


def test_a_cut_upload_is_resumed_where_it_ended(server: Hdfs, store: HdfsPackageStore) -> None:
    server.files[f"{ROOT}/.parts/{SHA}"] = CONTENT[:4096]
    part = store.look([SHA]).parts[SHA]
    assert (part.size, part.sha256) == (4096, hashlib.sha256(CONTENT[:4096]).hexdigest())
    send(store, offset=4096)
    assert store.look([SHA]).has(SHA, "a-1.jar", len(CONTENT))


@pytest.mark.parametrize("step", ["sha256", "facts"])
def test_an_upload_that_fails_when_it_is_about_to_be_stored_is_kept(
    server: Hdfs, store: HdfsPackageStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    set_attribute = WebHdfs.set_attribute

    def fail(hdfs: WebHdfs, path: str, name: str, value: str) -> None:
        if name == step:
            raise Unreachable("HDFS does not answer")
        set_attribute(hdfs, path, name, value)

    monkeypatch.setattr(WebHdfs, "set_attribute", fail)
    with pytest.raises(Unreachable):
        send(store)
    assert store.look([SHA]).parts[SHA].size == len(CONTENT)
    monkeypatch.undo()
    send(store, offset=len(CONTENT))
    assert store.look([SHA]).has(SHA, "a-1.jar", len(CONTENT))
    assert set(store.look().packages[folder_of(SHA)].facts) == {"at", "by"}


def test_what_differs_is_deleted_and_not_published(server: Hdfs, store: HdfsPackageStore) -> None:
    with pytest.raises(OperationFailed, match="differs from the local file"):
        send(store, CONTENT[:-1] + b"x")
    assert not server.under(f"{ROOT}/{folder_of(SHA)}")
    assert f"{ROOT}/.parts/{SHA}" not in server.files


def test_two_uploads_of_one_file_both_succeed(server: Hdfs, store: HdfsPackageStore) -> None:
    send(store)
    send(store)
    assert server.under(f"{ROOT}/{folder_of(SHA)}") == [f"{ROOT}/{folder_of(SHA)}/a-1.jar"]
    assert [name for name in server.under(f"{ROOT}/.parts") if "new-" in name] == []


def test_a_file_with_other_content_is_a_conflict(server: Hdfs, store: HdfsPackageStore) -> None:
    server.files[f"{ROOT}/{folder_of(SHA)}/a-1.jar"] = b"something else"
    with pytest.raises(Conflict, match="has another content"):
        send(store)
    assert server.files[f"{ROOT}/{folder_of(SHA)}/a-1.jar"] == b"something else"


def test_pruning_removes_complete_packages_and_is_logged(server: Hdfs, store: HdfsPackageStore) -> None:
    send(store)
    assert store.prune([folder_of(SHA)], '{"action": "prune"}') == 0
    assert store.look().packages == {}
    assert server.files[f"{ROOT}/audit.log"] == b'{}\n{"action": "prune"}\n'


def test_nothing_is_pruned_without_a_line_in_the_log(
    server: Hdfs, store: HdfsPackageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replayctl.clients.webhdfs._PAUSES_S", (0.0, 0.0))
    send(store)
    server.busy = 3
    with pytest.raises(Conflict, match=r"audit.log in HDFS is being written by someone else"):
        store.prune([folder_of(SHA)], "{}")
    assert folder_of(SHA) in store.look().packages
    server.busy = 2
    store.prune([folder_of(SHA)], "{}")
    assert store.look().packages == {}


def test_only_our_own_old_leftovers_are_swept(server: Hdfs, store: HdfsPackageStore) -> None:
    ages = {"old": 8, "new-old": 8, "of-bob": 8, "young": 6}
    server.ages = {name: days * 86400.0 for name, days in ages.items()}
    server.owners = {"of-bob": "bob"}
    server.files |= {f"{ROOT}/.parts/{name}": b"x" for name in ages if name != "new-old"}
    server.files[f"{ROOT}/.parts/new-old/a-1.jar"] = b"x"
    assert store.prune([], "{}") == 2
    assert server.under(f"{ROOT}/.parts") == [f"{ROOT}/.parts/of-bob", f"{ROOT}/.parts/young"]
    assert f"{ROOT}/audit.log" not in server.files


def test_a_listing_names_what_was_uploaded_in_part(server: Hdfs, store: HdfsPackageStore) -> None:
    server.files[f"{ROOT}/.parts/{SHA}"] = CONTENT[:4096]
    stored = store.look()
    assert stored.may_have(SHA)
    assert not stored.may_have("0" * 64)
    assert stored.parts == {}


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        ("SafeModeException", Unreachable),
        ("ConnectException", Unreachable),
        ("AccessControlException", AuthFailed),
        ("InvalidPathException", OperationFailed),
    ],
)
def test_refusals_have_errors_of_their_own(
    server: Hdfs, store: HdfsPackageStore, refusal: str, error: type[Exception]
) -> None:
    server.refusal = refusal
    with pytest.raises(error):
        send(store)


def test_a_server_that_is_away_is_unreachable() -> None:
    hdfs = WebHdfs("http://127.0.0.1:1", "alice", lambda host, port: "")
    with pytest.raises(Unreachable, match="does not answer"):
        hdfs.entries("/")
