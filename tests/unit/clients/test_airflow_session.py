"""The session with Airflow, against a server whose tokens expire."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from replayctl.clients.airflow import AirflowApi
from replayctl.clients.airflow_runs import TaskInfo
from replayctl.clients.airflow_session import _ahead
from replayctl.errors import AuthFailed, OperationFailed, ServerTrouble

LOG = [
    {"event": "::group::Log message source details"},
    {"event": "/logs/attempt=1.log"},
    {"event": "::endgroup::"},
    {"event": "Traceback (most recent call last):\n  File x\n    raise ValueError"},
    {
        "event": "Task failed with exception",
        "error_detail": [
            {
                "exc_type": "AirflowException",
                "exc_value": "input split has moved",
                "frames": [
                    {"filename": "/x/site-packages/airflow/sdk/task_runner.py", "lineno": 1, "name": "run"},
                    {"filename": "dag_operators.py", "lineno": 7, "name": "make"},
                ],
            }
        ],
    },
]


class Server(ThreadingHTTPServer):
    """Answers with JSON; `valid` tokens are good for one request each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.signed_in = 0
        self.may_sign_in = True
        self.page: bytes | None = None
        self.status = 200
        self.valid: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *words: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.may_sign_in:
            self._say(401, {"detail": "no"})
            return
        if self.server.page is not None:
            self._send(200, self.server.page)
            return
        self.server.signed_in += 1
        token = f"t{self.server.signed_in}"
        self.server.valid.add(token)
        self._say(201, {"access_token": token})

    def do_GET(self) -> None:
        token = self.headers["Authorization"].removeprefix("Bearer ")
        if token not in self.server.valid:
            self._say(401, {"detail": "expired"})
            return
        self.server.valid.remove(token)
        self._say(self.server.status, {"value": {"outcome": "reused"}, "content": LOG})

    def _say(self, status: int, document: object) -> None:
        self._send(status, json.dumps(document).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def api(server: Server) -> AirflowApi:
    return AirflowApi(f"http://127.0.0.1:{server.server_port}", username="u", password="p")


def test_an_expired_token_is_replaced(server: Server, api: AirflowApi) -> None:
    for _ in range(3):
        assert api.note("d", "r", "t") == {"outcome": "reused"}
    assert server.signed_in == 3


def test_a_password_that_is_not_accepted_any_more_ends_it(server: Server, api: AirflowApi) -> None:
    api.task_log("d", "r", TaskInfo("t", "failed", 1, -1, None))
    server.may_sign_in = False
    with pytest.raises(AuthFailed, match="refused user 'u'"):
        api.task_log("d", "r", TaskInfo("t", "failed", 1, -1, None))


@pytest.mark.parametrize("page", [b"<html>sign in</html>", b"{}", b"[]", b"\xff"])
def test_another_server_at_its_address_is_not_airflow(server: Server, api: AirflowApi, page: bytes) -> None:
    server.page = page
    with pytest.raises(OperationFailed, match="is it Airflow"):
        api.find_dag("d")


def test_a_failing_server_is_distinguished_from_a_rejection(server: Server, api: AirflowApi) -> None:
    server.status = 503
    with pytest.raises(ServerTrouble, match="HTTP 503"):
        api.task_log("d", "r", TaskInfo("t", "failed", 1, -1, None))


def test_a_log_keeps_its_indentation_its_exception_and_its_place(server: Server, api: AirflowApi) -> None:
    log = api.task_log("d", "r", TaskInfo("t", "failed", 1, -1, None))
    assert log.source == "/logs/attempt=1.log"
    assert log.lines[4:6] == ("  File x", "    raise ValueError")
    assert log.lines[-2:] == ('  File "dag_operators.py", line 7, in make', "AirflowException: input split has moved")


@pytest.mark.parametrize("date", [None, "", "yesterday", "Thu, 26 Nov 2026 11:00:00 -0000"])
def test_a_server_without_a_usable_clock_has_ours(date: str | None) -> None:
    assert not _ahead(date)
