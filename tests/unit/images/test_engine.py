"""The engine: where it is, as Docker's own client finds it."""

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from replayctl.errors import OperationFailed, Unreachable
from replayctl.images import engine
from replayctl.images.engine import find_engine
from tests.http_server import serving


@pytest.fixture(autouse=True)
def no_docker_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)


class Handler(BaseHTTPRequestHandler):
    """An engine that only tells its version."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        data = json.dumps({"ApiVersion": "1.44", "Arch": "arm64"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def address() -> Iterator[str]:
    with serving(Handler) as address:
        yield f"tcp://{address}"


def add_context(home: Path, name: str, host: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()
    folder = home / ".docker" / "contexts" / "meta" / digest
    folder.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    (folder / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    return home / ".docker" / "contexts" / "tls" / digest


def choose_context(home: Path, name: str) -> None:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text(json.dumps({"currentContext": name}))


def test_the_current_context_is_that_of_dockers_client(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    add_context(clean_environment, "configured", address)
    add_context(clean_environment, "nowhere", "tcp://127.0.0.1:1")
    choose_context(clean_environment, "configured")
    assert find_engine().address == address
    choose_context(clean_environment, "nowhere")
    monkeypatch.setenv("DOCKER_CONTEXT", "configured")
    assert find_engine().address == address
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    monkeypatch.setenv("DOCKER_HOST", address)
    assert find_engine().address == address


def test_the_processor_is_named_as_this_machine_names_its_own(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    assert find_engine().architecture() == "aarch64"


def test_a_context_that_does_not_exist_is_not_replaced_by_another_engine(clean_environment: Path) -> None:
    choose_context(clean_environment, "gone")
    with pytest.raises(OperationFailed, match="current context does not exist") as excinfo:
        find_engine()
    assert excinfo.value.hint == "run `docker context ls`"


def test_a_contexts_certificates_are_used(clean_environment: Path) -> None:
    certificates = add_context(clean_environment, "safe", "tcp://127.0.0.1:1") / "docker"
    certificates.mkdir(parents=True)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (certificates / name).write_text("")
    choose_context(clean_environment, "safe")
    assert engine._current_context()["tls"].cert == (str(certificates / "cert.pem"), str(certificates / "key.pem"))


@pytest.mark.parametrize("by_context", [True, False])
def test_an_engine_behind_ssh_that_is_away(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch, by_context: bool
) -> None:
    if by_context:
        add_context(clean_environment, "remote", "ssh://127.0.0.1:1")
        choose_context(clean_environment, "remote")
    else:
        monkeypatch.setenv("DOCKER_HOST", "ssh://127.0.0.1:1")
    with pytest.raises(Unreachable, match="at ssh://127.0.0.1:1 does not answer.*Unable to connect"):
        find_engine()
