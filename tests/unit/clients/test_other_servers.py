"""Another server at the address of MLflow or YARN is an error of that address, not a bug."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from replayctl.clients.mlflow import MlflowApi
from replayctl.clients.resource_manager import ResourceManager
from replayctl.errors import OperationFailed, ReplayctlError
from tests.http_server import serving

APPLICATION = "application_1700000000000_0001"
REQUESTS: list[Callable[[str], object]] = [
    lambda url: MlflowApi(url).experiment_id("x"),
    lambda url: list(MlflowApi(url).experiments()),
    lambda url: list(MlflowApi(url).runs("1")),
    lambda url: MlflowApi(url).create_experiment("x"),
    lambda url: ResourceManager(url).applications(),
    lambda url: ResourceManager(url).application(APPLICATION),
]
# Without an object, and with one in which each name that is looked for has a wrong value.
NAMES = ("experiment", "experiments", "runs", "apps", "app", "experiment_id", "next_page_token")
ANSWERS = [
    "[]",
    "null",
    "1",
    '"x"',
    "[" * 100_000,
    *(json.dumps(dict.fromkeys(NAMES, value)) for value in ([1], "x", 1)),
]


class Handler(BaseHTTPRequestHandler):
    status = 200
    body = ""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body.encode())

    do_GET = do_POST


@pytest.fixture
def server() -> Iterator[str]:
    with serving(Handler) as address:
        yield f"http://{address}"


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("body", ANSWERS, ids=lambda body: str(body)[:20])
@pytest.mark.parametrize("request_of", REQUESTS)
def test_an_answer_of_another_kind_is_an_error(
    server: str, monkeypatch: pytest.MonkeyPatch, request_of: Callable[[str], object], body: str, status: int
) -> None:
    monkeypatch.setattr(Handler, "status", status)
    monkeypatch.setattr(Handler, "body", body)
    try:
        request_of(server)
    except ReplayctlError:
        return
    # `create_experiment` takes any text for an id.
    assert status == 200
    assert "experiment_id" in body


def test_the_address_is_named(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "body", '{"experiment": []}')
    with pytest.raises(OperationFailed, match=f"{server} did not answer experiments/get-by-name as MLflow does"):
        MlflowApi(server).experiment_id("x")
