"""An HDFS for tests of faults: NameNode and DataNode in one server of this process."""

import contextlib
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.http_server import serving

_BEGAN_MS = int(time.time() * 1000)


class FakeHdfs(BaseHTTPRequestHandler):
    """NameNode and DataNode in one, with what they answer; a fault is taken for one request of its operation."""

    files: dict[str, tuple[int, bytes | None]]
    faults: dict[str, list[Callable[["FakeHdfs", str], bool]]]
    operations: list[str]
    numbers: Iterator[int]
    lock: threading.RLock

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_request()

    do_PUT = do_DELETE = do_GET

    def handle_request(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(parts.query))
        operation, path = self.query["op"], urllib.parse.unquote(parts.path).removeprefix("/webhdfs/v1")
        with self.lock:
            self.operations.append(operation)
            faults = self.faults.get(operation)
            if faults and faults.pop(0)(self, path):
                return
            getattr(self, f"answer_{operation.lower()}")(path)

    def send(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, document: dict[str, Any], code: int = 200) -> None:
        self.send(code, json.dumps(document).encode())

    def refuse(self, kind: str, message: str = "no", code: int = 403) -> None:
        self.json({"RemoteException": {"exception": kind, "message": f"{message}\n\tat org.apache"}}, code)

    def redirected(self) -> bool:
        """Whether it was: the first request for data goes to the NameNode."""
        if "namenode" in self.query:
            return False
        self.send(307, Location=f"http://{self.headers['Host']}{self.path}&namenode=here")
        return True

    def row(self, path: str, name: str = "") -> dict[str, object]:
        number, content = self.files[path]
        kind = "DIRECTORY" if content is None else "FILE"
        return {
            **{"pathSuffix": name, "type": kind, "length": len(content or b"")},
            **{"modificationTime": number + _BEGAN_MS, "fileId": number},
        }

    def below(self, path: str) -> list[str]:
        return [other for other in self.files if other == path or other.startswith(f"{path}/")]

    def answer_getfilestatus(self, path: str) -> None:
        if path not in self.files:
            return self.refuse("FileNotFoundException", code=404)
        return self.json({"FileStatus": self.row(path)})

    def answer_liststatus(self, path: str) -> None:
        if path not in self.files:
            return self.refuse("FileNotFoundException", code=404)
        names = [other[len(path) + 1 :] for other in self.below(path) if other != path]
        rows = [self.row(f"{path}/{name}", name) for name in names if "/" not in name]
        return self.json({"FileStatuses": {"FileStatus": rows}})

    def answer_mkdirs(self, path: str) -> None:
        parts = path.split("/")
        for depth in range(2, len(parts) + 1):
            self.files.setdefault("/".join(parts[:depth]), (next(self.numbers), None))
        self.json({"boolean": True})

    def answer_delete(self, path: str) -> None:
        removed = self.below(path)
        for other in removed:
            del self.files[other]
        self.json({"boolean": bool(removed)})

    def answer_rename(self, path: str) -> None:
        target = self.query["destination"]
        assert self.query["renameoptions"] == "NONE"
        if path not in self.files:
            return self.refuse("FileNotFoundException", code=404)
        if target in self.files:
            return self.refuse("FileAlreadyExistsException")
        for other in self.below(path):
            self.files[target + other[len(path) :]] = self.files.pop(other)
        return self.send(200)

    def answer_create(self, path: str) -> None:
        if self.redirected():
            return None
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if path.rpartition("/")[0] not in self.files:
            return self.refuse("FileNotFoundException", code=404)
        self.files[path] = (next(self.numbers), content)
        return self.send(201)

    def answer_open(self, path: str) -> None:
        if self.redirected():
            return None
        if path.startswith("/.reserved/.inodes/"):
            number = int(path.rpartition("/")[2])
            path = next((name for name, (other, _) in self.files.items() if other == number), path)
        if path not in self.files:
            return self.refuse("FileNotFoundException", code=404)
        content = self.files[path][1] or b""
        start, length = int(self.query["offset"]), int(self.query["length"])
        return self.send(200, content[start : start + length])

    def answer_getfilechecksum(self, path: str) -> None:
        if self.redirected():
            return
        content = self.files[path][1] or b""
        self.json({"FileChecksum": {"algorithm": "sum", "bytes": content.hex()[:64], "length": 28}})


@contextlib.contextmanager
def fake_hdfs() -> Iterator[Any]:
    """The class of its handler, with its `url`, files and faults."""
    server_of: dict[str, Any] = {"files": {}, "faults": {}, "operations": [], "numbers": iter(range(1, 1 << 30))}
    handler = type("Handler", (FakeHdfs,), {**server_of, "lock": threading.RLock()})
    with serving(handler) as address:
        handler.url = f"http://{address}"
        yield handler
