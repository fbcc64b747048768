"""A registry by its HTTP API: pages of tags, digests, and the ways of signing in."""

import base64
import json
import os
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from replayctl.errors import AuthFailed, NotFound, OperationFailed, Unreachable, UsageProblem
from replayctl.images.digests import pin
from replayctl.images.reference import Reference, parse_reference
from replayctl.images.registry import Registry
from tests.http_server import serving

DIGEST = "sha256:" + "a" * 64


class Handler(BaseHTTPRequestHandler):
    scheme = "open"
    body: object = None
    login = b"lab:secret"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        signed = self.headers.get("Authorization") or ""
        basic = "Basic " + base64.b64encode(self.login).decode()
        host = self.headers["Host"]
        if self.path.startswith("/token"):
            assert "scope=repository%3Aworker%3Apull" in self.path
            ok = signed == basic
            return self.answer(200 if ok else 401, {"token": "t0k3n"} if ok else {})
        challenge = {"bearer": f'Bearer realm="http://{host}/token",service="reg"', "basic": 'Basic realm="r"'}
        expected = {"bearer": "Bearer t0k3n", "basic": basic}
        if self.scheme != "open" and signed != expected[self.scheme]:
            return self.answer(401, {}, {"WWW-Authenticate": challenge[self.scheme]})
        if self.path == "/v2/worker/tags/list?n=1000":
            return self.answer(200, {"tags": ["b", "a"]}, {"Link": '</v2/worker/tags/list?last=b&n=2>; rel="next"'})
        if self.path == "/v2/worker/tags/list?last=b&n=2":
            return self.answer(200, {"tags": ["c"]})
        if self.path == "/v2/absolute/tags/list?n=1000":
            return self.answer(200, {"tags": ["a"]}, {"Link": f"<http://{host}/v2/worker/tags/list?last=b&n=2>"})
        if self.path.startswith("/v2/other/"):
            return self.answer(200, self.body)
        if self.path == "/v2/worker/manifests/a":
            return self.answer(200, {}, {"Docker-Content-Digest": DIGEST})
        return self.answer(404, {})

    def do_POST(self) -> None:
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        assert (self.path, form["scope"], form["service"]) == ("/token", "repository:worker:pull", "reg")
        ok = (form["grant_type"], form["refresh_token"]) == ("refresh_token", "id/t0k3n+")
        self.answer(200 if ok else 401, {"access_token": "t0k3n"} if ok else {})

    def answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(Handler) as address:
        yield address


def log_in(home: Path, registry: str, password: str, user: str = "lab") -> None:
    (home / ".docker").mkdir(exist_ok=True)
    entry = base64.b64encode(f"{user}:{password}".encode()).decode()
    # A helper of another registry that is broken hinders nothing.
    document = {"auths": {registry: {"auth": entry}}, "credHelpers": {"elsewhere.example": "is-not-there"}}
    (home / ".docker" / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize("scheme", ["open", "basic", "bearer"])
def test_tags_and_digests(server: str, monkeypatch: pytest.MonkeyPatch, clean_environment: Path, scheme: str) -> None:
    monkeypatch.setattr(Handler, "scheme", scheme)
    log_in(clean_environment, server, "secret")
    registry = Registry(server)
    assert registry.tags("worker") == ["a", "b", "c"]
    assert registry.tags("unknown") == [] if scheme != "bearer" else True
    assert registry.digest(parse_reference(f"{server}/worker:a")) == DIGEST
    assert registry.digest(parse_reference(f"{server}/worker:none")) is None


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_a_wrong_login_says_what_to_type(
    server: str, monkeypatch: pytest.MonkeyPatch, clean_environment: Path, scheme: str
) -> None:
    monkeypatch.setattr(Handler, "scheme", scheme)
    log_in(clean_environment, server, "wrong")
    with pytest.raises(AuthFailed) as excinfo:
        Registry(server).tags("worker")
    assert excinfo.value.hint == f"docker login {server}"


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_a_login_may_have_any_letters(
    server: str, monkeypatch: pytest.MonkeyPatch, clean_environment: Path, scheme: str
) -> None:
    monkeypatch.setattr(Handler, "scheme", scheme)
    monkeypatch.setattr(Handler, "login", "алиса:пароль".encode())
    log_in(clean_environment, server, "пароль", user="алиса")
    assert Registry(server).tags("worker") == ["a", "b", "c"]


@pytest.mark.parametrize("by_helper", [False, True])
@pytest.mark.parametrize("token", ["id/t0k3n+", "expired"])
def test_a_login_may_be_an_identity_token(
    server: str, monkeypatch: pytest.MonkeyPatch, clean_environment: Path, by_helper: bool, token: str
) -> None:
    monkeypatch.setattr(Handler, "scheme", "bearer")
    (clean_environment / ".docker").mkdir()
    nobody = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
    document: dict[str, object] = {"auths": {server: {"auth": nobody, "identitytoken": token}}}
    if by_helper:
        helper = clean_environment / "docker-credential-cloud"
        helper.write_text(
            f"""#!/bin/sh\necho '{{"ServerURL": "{server}", "Username": "<token>", "Secret": "{token}"}}'\n"""
        )
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{clean_environment}:{os.environ['PATH']}")
        document = {"credHelpers": {server: "cloud"}}
    (clean_environment / ".docker" / "config.json").write_text(json.dumps(document))
    if token != "expired":
        assert Registry(server).tags("worker") == ["a", "b", "c"]
        return
    with pytest.raises(AuthFailed) as excinfo:
        Registry(server).tags("worker")
    assert excinfo.value.hint == f"docker login {server}"


def test_the_next_page_may_be_named_with_its_host(server: str) -> None:
    assert Registry(server).tags("absolute") == ["a", "c"]


@pytest.mark.parametrize("body", [[1], "<html>", None])
def test_another_server_is_named(server: str, monkeypatch: pytest.MonkeyPatch, body: object) -> None:
    monkeypatch.setattr(Handler, "body", body)
    with pytest.raises(OperationFailed, match=f"{server} does not answer as a registry: its answer to /v2/other"):
        Registry(server).tags("other")
    with pytest.raises(OperationFailed, match=f"it names no digest of {server}/other:a"):
        Registry(server).digest(parse_reference(f"{server}/other:a"))


def test_an_endless_answer_is_not_read_to_its_end(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "body", {"tags": ["a" * (9 << 20)]})
    with pytest.raises(OperationFailed, match="is longer than"):
        Registry(server).tags("other")


def test_nobody_answers() -> None:
    with pytest.raises(Unreachable):
        Registry("127.0.0.1:1").tags("worker")


@pytest.fixture
def worker(server: str, monkeypatch: pytest.MonkeyPatch) -> Reference:
    monkeypatch.setattr("replayctl.images.digests.find_engine", _no_engine)
    return parse_reference(f"{server}/worker")


def _no_engine() -> None:
    raise Unreachable("no engine")


def test_an_image_is_named_by_its_digest(worker: Reference) -> None:
    pinned = f"{worker}@{DIGEST}"
    assert pin("a", worker) == pin(f"{worker}:a", worker) == pin(pinned, worker) == pinned


def test_a_tag_that_is_not_there_is_named(worker: Reference) -> None:
    with pytest.raises(NotFound, match=f"has no image {worker}:none"):
        pin("none", worker)


@pytest.mark.parametrize(
    ("image", "words"),
    [("team/worker:a", "names no registry"), ("example.org/worker", "names no tag"), ("A:b", "is not an image name")],
)
def test_an_incomplete_name_is_rejected(worker: Reference, image: str, words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        pin(image, worker)
