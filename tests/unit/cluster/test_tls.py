"""Whom a cluster's TLS trusts, on every way to the API server: what kubectl trusts, and nobody else."""

import base64
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from replayctl.cluster.api import Kubernetes, Pod
from replayctl.cluster.kubeconfig import find_cluster
from replayctl.cluster.streams import execute
from replayctl.errors import AuthFailed, OperationFailed, SettingsError, Unreachable

from .authority import Pair, Served, issue, make_authority, serve, serve_proxy

POD = Pod("ns", "pod", ("main",), True, "Running", {})


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("keys")
    ours, theirs = make_authority(folder, "ours"), make_authority(folder, "theirs")
    return {
        "ours": ours,
        "theirs": theirs,
        "server": issue(ours, folder, "server", "IP:127.0.0.1"),
        "named": issue(ours, folder, "named", "DNS:api.example.org"),
        "common name": issue(ours, folder, "127.0.0.1", None),
        "client": issue(ours, folder, "client", None),
    }


@pytest.fixture
def served(keys: dict[str, Pair]) -> Iterator[Served]:
    with serve(keys["server"]) as server:
        yield server


def kubernetes(folder: Path, url: str, user: dict[str, Any] | None = None, **cluster: object) -> Kubernetes:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url, **cluster}}],
        "users": [{"name": "u", "user": user or {"token": "a-token"}}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(document))
    return Kubernetes(find_cluster(path, None, {}))


def plain(cluster: Kubernetes) -> None:
    assert cluster.get("/api", "the API") == {"items": []}


def websocket(cluster: Kubernetes) -> None:
    # The server answers the handshake with a document: so far TLS was fine.
    with pytest.raises(OperationFailed, match="status 200"):
        execute(cluster, POD, "main", ["true"], on_stdout=lambda _: None, on_stderr=lambda _: None)


WAYS = pytest.mark.parametrize("way", [plain, websocket])
Way = Callable[[Kubernetes], None]


def plugin(folder: Path) -> dict[str, Any]:
    program = folder / "plugin"
    program.write_text(
        '#!/bin/sh\necho \'{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", '
        '"status": {"token": "from-a-plugin"}}\'\n'
    )
    program.chmod(0o700)
    execute = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
    return {"exec": execute}


@WAYS
@pytest.mark.parametrize("by_plugin", [False, True])
def test_with_an_authority_of_its_own_only_that_one_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Pair], served: Served, way: Way, by_plugin: bool
) -> None:
    # The system trusts the server's authority, the kubeconfig another one.
    monkeypatch.setenv("SSL_CERT_FILE", str(keys["ours"].certificate))
    user = plugin(tmp_path) if by_plugin else None
    way(kubernetes(tmp_path, served.url, user))
    with pytest.raises(Unreachable, match="certificate is not trusted: "):
        way(kubernetes(tmp_path, served.url, user, **{"certificate-authority": str(keys["theirs"].certificate)}))
    way(kubernetes(tmp_path, served.url, user, **{"certificate-authority": str(keys["ours"].certificate)}))


@WAYS
def test_without_an_authority_the_systems_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Pair], served: Served, way: Way
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(keys["theirs"].certificate))
    with pytest.raises(Unreachable, match="not trusted"):
        way(kubernetes(tmp_path, served.url))


@WAYS
def test_a_certificate_that_is_not_a_root_is_trusted_as_in_go(
    tmp_path: Path, keys: dict[str, Pair], served: Served, way: Way
) -> None:
    data = base64.b64encode(b"a comment: \xff\n" + keys["server"].certificate.read_bytes()).decode()
    way(kubernetes(tmp_path, served.url, **{"certificate-authority-data": data}))


@WAYS
def test_names_are_looked_for_in_the_alternative_names_alone(tmp_path: Path, keys: dict[str, Pair], way: Way) -> None:
    authority = {"certificate-authority": str(keys["ours"].certificate)}
    with serve(keys["common name"]) as served, pytest.raises(Unreachable, match="not trusted"):
        way(kubernetes(tmp_path, served.url, **authority))
    with serve(keys["named"]) as served:
        with pytest.raises(Unreachable, match="mismatch"):
            way(kubernetes(tmp_path, served.url, **authority))
        way(kubernetes(tmp_path, served.url, **authority, **{"tls-server-name": "api.example.org"}))
        with pytest.raises(Unreachable, match="mismatch"):
            way(kubernetes(tmp_path, served.url, **authority, **{"tls-server-name": "other.example.org"}))


@WAYS
def test_insecure_is_insecure_without_a_warning(
    tmp_path: Path, served: Served, way: Way, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        way(kubernetes(tmp_path, served.url, **{"insecure-skip-tls-verify": True}))
    assert capfd.readouterr() == ("", "")


def test_insecure_with_an_authority_and_words_for_booleans_are_refused(tmp_path: Path, keys: dict[str, Pair]) -> None:
    authority = {"certificate-authority": str(keys["ours"].certificate)}
    with pytest.raises(SettingsError, match="only one of them is allowed"):
        kubernetes(tmp_path, "https://127.0.0.1:1", **authority, **{"insecure-skip-tls-verify": True})
    with pytest.raises(SettingsError, match="insecure-skip-tls-verify is neither true nor false"):
        kubernetes(tmp_path, "https://127.0.0.1:1", **{"insecure-skip-tls-verify": "false"})
    (tmp_path / "empty").write_text("")
    with pytest.raises(SettingsError, match="no PEM certificate"):
        kubernetes(tmp_path, "https://127.0.0.1:1", **{"certificate-authority": "empty"})


@WAYS
def test_a_client_certificate_is_shown_to_the_server(tmp_path: Path, keys: dict[str, Pair], way: Way) -> None:
    authority = {"certificate-authority": str(keys["ours"].certificate)}
    pair = {"client-certificate": str(keys["client"].certificate), "client-key": str(keys["client"].key)}
    with serve(keys["server"], clients=keys["ours"]) as served:
        way(kubernetes(tmp_path, served.url, pair, **authority))
        with pytest.raises(Unreachable):
            way(kubernetes(tmp_path, served.url, **authority))


@WAYS
def test_without_tls_no_secret_is_sent_but_whom_to_act_as_is(tmp_path: Path, way: Way) -> None:
    with serve(None) as served:
        way(kubernetes(tmp_path, served.url, {"token": "a-token", "as": "eve", "as-groups": ["a", "b"]}))
    ((_, headers),) = served.requests
    assert "a-token" not in str(headers)
    assert [value for name, value in headers if name.lower().startswith("impersonate")] == ["eve", "a", "b"]


@WAYS
def test_a_proxy_leads_to_the_server_whose_certificate_counts(tmp_path: Path, keys: dict[str, Pair], way: Way) -> None:
    authority = {"certificate-authority": str(keys["ours"].certificate)}
    with serve(keys["server"]) as served, serve_proxy() as (proxy, requests):
        way(kubernetes(tmp_path, served.url, **authority, **{"proxy-url": f"http://u:p%40w@{proxy}"}))
        assert requests == [(served.url.removeprefix("https://"), base64.b64encode(b"u:p@w").decode())]
        other = {"certificate-authority": str(keys["theirs"].certificate)}
        with pytest.raises(Unreachable, match="not trusted"):
            way(kubernetes(tmp_path, served.url, **other, **{"proxy-url": f"http://{proxy}"}))
    with serve(keys["named"]) as served, serve_proxy() as (proxy, _):
        names = {"tls-server-name": "api.example.org", "proxy-url": f"http://{proxy}"}
        way(kubernetes(tmp_path, served.url, **authority, **names))
    with pytest.raises(Unreachable, match="refused"):
        way(kubernetes(tmp_path, served.url, **authority, **{"proxy-url": "http://127.0.0.1:1"}))


@WAYS
def test_rejected_credentials_are_renewed_once(tmp_path: Path, keys: dict[str, Pair], way: Way) -> None:
    count = tmp_path / "count"
    user = plugin(tmp_path)
    with (tmp_path / "plugin").open("a") as program:
        program.write(f"echo asked >> {count}\n")
    with serve(keys["server"]) as served:
        cluster = kubernetes(tmp_path, served.url, user, **{"certificate-authority": str(keys["ours"].certificate)})
        served.status = 401
        with pytest.raises(AuthFailed, match="does not accept your credentials"):
            way(cluster)
    assert count.read_text().split() == ["asked"] * 2
    assert len(served.requests) == 2
