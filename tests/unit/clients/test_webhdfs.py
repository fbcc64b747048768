"""What stands between us and HDFS, or in its place: answers that end early, and those of another server."""

from http.server import BaseHTTPRequestHandler

import pytest

from replayctl.clients.webhdfs import WebHdfs
from replayctl.errors import OperationFailed, Unreachable
from tests.http_server import serving


def handler(status: int, body: bytes, length: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def hdfs(address: str) -> WebHdfs:
    return WebHdfs(f"http://{address}", "alice", lambda host, port: f"http://{host}:{port}")


@pytest.mark.parametrize("status", [200, 307, 403])
def test_an_answer_that_is_cut_off_is_no_answer(status: int) -> None:
    with serving(handler(status, b'{"FileStatuses"', 1000)) as address:
        with pytest.raises(Unreachable, match="does not answer"):
            hdfs(address).entries("/x")
        with pytest.raises(Unreachable, match="does not answer"):
            hdfs(address).digest("/x")


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"null", b"{}", b'{"FileStatuses": []}'])
def test_another_server_in_its_place_is_not_taken_for_hdfs(body: bytes) -> None:
    with serving(handler(200, body, len(body))) as address, pytest.raises(OperationFailed, match="as HDFS does"):
        hdfs(address).entries("/x")
