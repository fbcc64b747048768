"""kubeconfig files: read by the rules of kubectl, and refused with a reason."""

import base64
import json
import stat
import subprocess
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from replayctl.cluster.api import Kubernetes
from replayctl.cluster.kubeconfig import find_cluster
from replayctl.errors import AuthFailed, SettingsError


def config(user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "n"}},
            {"name": "two", "context": {"cluster": "nowhere", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {"token": "a-secret-token"}}],
    }


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("token", ["a-secret-token\n", "a-secret-tokéн"])
@pytest.mark.parametrize("by_plugin", [False, True])
def test_a_token_that_no_header_can_have_is_refused_and_never_shown(
    tmp_path: Path, token: str, by_plugin: bool
) -> None:
    user: dict[str, Any] = {"token": token}
    if by_plugin:
        version = "client.authentication.k8s.io/v1"
        answer = {"kind": "ExecCredential", "apiVersion": version, "status": {"token": token}}
        print_answer = ["-c", 'printf %s "$0"', json.dumps(answer)]
        user = {"exec": {"apiVersion": version, "command": "sh", "args": print_answer, "interactiveMode": "Never"}}
    cluster = find_cluster(write(tmp_path / "config", config(user)), None, {})
    with pytest.raises(AuthFailed, match="printable ASCII") as excinfo:
        Kubernetes(cluster).get("/version", "the version")
    assert "a-secret" not in "".join(traceback.format_exception(excinfo.value))


def test_a_token_is_read_and_never_shown(tmp_path: Path) -> None:
    cluster = find_cluster(write(tmp_path / "config", config()), None, {})
    assert (cluster.server, cluster.context, cluster.namespace) == ("https://127.0.0.1:6443", "one", "n")
    assert cluster.headers() == [("Authorization", "Bearer a-secret-token")]
    assert "a-secret-token" not in repr(cluster)


def test_a_token_file_is_read_again_for_each_request(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    cluster = find_cluster(write(tmp_path / "config", config({"tokenFile": "token"})), None, {})
    assert cluster.headers() == [("Authorization", "Bearer first")]
    (tmp_path / "token").write_text("second\n")
    assert cluster.headers() == [("Authorization", "Bearer second")]
    (tmp_path / "token").unlink()
    with pytest.raises(AuthFailed, match="cannot read the token file"):
        cluster.headers()


def test_a_client_certificate_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = ["-subj", "/CN=alice", "-days", "1", "-nodes"]
    keys = ["-keyout", tmp_path / "key", "-out", tmp_path / "certificate"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject, *keys], check=True, capture_output=True)
    data = {
        f"client-{name}-data": base64.b64encode((tmp_path / name).read_bytes()).decode()
        for name in ("certificate", "key")
    }
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    cluster = find_cluster(write(tmp_path / "config", config(data)), None, {})
    assert cluster.tls is not None
    assert cluster.headers() == []
    assert list(scratch.iterdir()) == []
    with pytest.raises(SettingsError, match="cannot use the client certificate"):
        find_cluster(
            write(tmp_path / "config", config({**data, "client-key-data": data["client-certificate-data"]})), None, {}
        )


EXEC = "client.authentication.k8s.io/v1"


def plugin(folder: Path, body: str) -> dict[str, Any]:
    program = folder / "plugin"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": EXEC, "command": str(program), "interactiveMode": "Never"}}


def gives(**status: object) -> str:
    return f"echo '{json.dumps({'apiVersion': EXEC, 'kind': 'ExecCredential', 'status': status})}'"


def test_a_program_that_gives_credentials_is_asked_once_and_again_when_they_expire(tmp_path: Path) -> None:
    count = f"echo >> {tmp_path}/count; "
    user = plugin(tmp_path, count + gives(token="from-a-program"))
    cluster = find_cluster(write(tmp_path / "config", config(user)), None, {})
    assert cluster.headers() == cluster.headers() == [("Authorization", "Bearer from-a-program")]
    assert cluster.namespace == "n"
    assert (tmp_path / "count").read_text() == "\n"
    cluster.forget()
    assert cluster.headers() == [("Authorization", "Bearer from-a-program")]
    assert (tmp_path / "count").read_text() == "\n\n"
    plugin(tmp_path, count + gives(token="stale", expirationTimestamp="2020-01-01T00:00:00Z"))
    cluster.forget()
    assert cluster.headers() == cluster.headers() == [("Authorization", "Bearer stale")]
    assert (tmp_path / "count").read_text() == "\n" * 4


def test_a_program_is_found_beside_the_file_and_gets_its_input(tmp_path: Path) -> None:
    user = plugin(
        tmp_path,
        f'echo "$KUBERNETES_EXEC_INFO" > {tmp_path}/info; echo "$1 $OWN" > {tmp_path}/words; '
        + gives(token="t-o-k-e-n"),
    )
    user["exec"] |= {
        **{"command": "./plugin", "args": ["first"], "env": [{"name": "OWN", "value": "own"}]},
        "provideClusterInfo": True,
    }
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}
    find_cluster(write(tmp_path / "config", config(user, {"extensions": [extension]})), None, {})
    assert (tmp_path / "words").read_text() == "first own\n"
    info = json.loads((tmp_path / "info").read_text())
    assert info["apiVersion"] == EXEC
    assert info["spec"] == {
        "interactive": False,
        "cluster": {"server": "https://127.0.0.1:6443/", "config": {"audience": "x"}},
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo no login >&2; exit 3", "ended with status 3"),
        ("exit 0", "did not print an ExecCredential"),
        ("echo '{}'", "did not print an ExecCredential"),
        ("echo '[1]'", "did not print an ExecCredential"),
        (gives(), "neither a token nor a certificate"),
        (gives(token=""), "neither a token nor a certificate"),
        (gives(clientCertificateData="x"), "only one of certificate and key"),
        (gives(clientCertificateData="x", clientKeyData="y-y-y"), "certificate cannot be used"),
        (gives(token="t-o-k", expirationTimestamp="soon"), "expirationTimestamp is not a time"),
        (
            gives(token="t-o-k").replace("/v1", "/v1beta1"),
            "printed ExecCredential client.authentication.k8s.io/v1beta1",
        ),
    ],
)
def test_a_program_that_gives_none_is_an_error_and_nobody_goes_on_anonymously(
    tmp_path: Path, body: str, words: str
) -> None:
    path = write(tmp_path / "config", config(plugin(tmp_path, body)))
    with pytest.raises(AuthFailed, match=words) as excinfo:
        find_cluster(path, None, {})
    assert "exec plugin of user 'u'" in str(excinfo.value)
    if "no login" in body:
        assert excinfo.value.details == "no login"


def test_a_program_that_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    user = {"exec": {"apiVersion": EXEC, "command": "no-such-program", "installHint": "apt install it"}}
    with pytest.raises(AuthFailed, match="cannot run no-such-program") as excinfo:
        find_cluster(write(tmp_path / "config", config(user)), None, {})
    assert excinfo.value.hint == "apt install it"


def jwt(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


def test_an_id_token_counts_until_it_expires(tmp_path: Path) -> None:
    def user(**claims: object) -> dict[str, Any]:
        return {"auth-provider": {"name": "oidc", "config": {"id-token": jwt(**claims)}}}

    cluster = find_cluster(write(tmp_path / "config", config(user(exp=time.time() + 100))), None, {})
    assert cluster.headers()[0][1].startswith("Bearer e30.")
    with pytest.raises(AuthFailed, match="has expired") as excinfo:
        find_cluster(write(tmp_path / "config", config(user(exp=time.time() - 100))), None, {})
    assert "kubectl get" in (excinfo.value.hint or "")


def test_whom_to_act_as_is_sent(tmp_path: Path) -> None:
    user = {
        **{"token": "a-secret-token", "as": "eve", "as-uid": "7", "as-groups": ["a", "b c"]},
        "as-user-extra": {"Reason/x": ["one", "two"]},
    }
    assert find_cluster(write(tmp_path / "config", config(user)), None, {}).headers() == [
        ("Authorization", "Bearer a-secret-token"),
        ("Impersonate-User", "eve"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b c"),
        ("Impersonate-Extra-reason%2Fx", "one"),
        ("Impersonate-Extra-reason%2Fx", "two"),
    ]


def test_a_name_and_a_password(tmp_path: Path) -> None:
    cluster = find_cluster(write(tmp_path / "config", config({"username": "u", "password": "p:w"})), None, {})
    assert cluster.headers() == [("Authorization", "Basic " + base64.b64encode(b"u:p:w").decode())]


CERTIFICATE = base64.b64encode(b"anything").decode()


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"extensions": []}, "has no credentials"),
        ({"client-certificate-data": CERTIFICATE}, "has a client-certificate without its client-key"),
        ({"client-key-data": CERTIFICATE}, "has a client-key without its client-certificate"),
        ({"client-certificate-data": CERTIFICATE, "token": "t-o-k"}, "client-certificate without its client-key"),
        ({"username": "u"}, "has a username without a password"),
        ({"password": "hunter2"}, "has a password without a username"),
        ({"token": 12345}, "token is not a string"),
        ({"token": "t-o-k", "username": "u", "password": "hunter2"}, "has token and username; only one"),
        ({"token": "t-o-k", "exec": {"command": "x"}}, "has token and exec; only one"),
        ({"auth-provider": {"name": "azure", "config": {}}}, "does not support the auth-provider 'azure'"),
        ({"auth-provider": {"name": "gcp"}}, "does not support the auth-provider 'gcp'"),
        ({"auth-provider": {"name": "oidc"}}, "has no id-token"),
        ({"token": "t-o-k", "as-groups": ["a"]}, "without as, the user to impersonate"),
        ({"token": "t-o-k", "as": "a\nb"}, "cannot impersonate"),
        ({"token": "t-o-k", "as": "Дима"}, "cannot impersonate"),
        ({"token": "t-o-k", "as-user-extra": {"a": "b"}, "as": "c"}, "is not a list of strings"),
        ({"token": "t-o-k", "as-nobody-knows": "x"}, "does not support as-nobody-knows"),
        (
            {"exec": {"command": "x", "apiVersion": "client.authentication.k8s.io/v1alpha1"}},
            "apiVersion must be one of",
        ),
        ({"exec": {"apiVersion": EXEC}}, "has no command"),
        ({"exec": {"apiVersion": EXEC, "command": "x", "shell": True}}, "does not support shell of exec"),
        ({"exec": {"apiVersion": EXEC, "command": "x", "interactiveMode": "Always"}}, "stdin is not one"),
    ],
)
def test_users_that_cannot_be_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SettingsError, match=words) as excinfo:
        find_cluster(write(tmp_path / "config", config(user)), None, {})
    assert "hunter2" not in str(excinfo.value)
    assert "user 'u'" in str(excinfo.value)


def test_a_context_without_a_user_is_refused(tmp_path: Path) -> None:
    document = config()
    document["contexts"][0]["context"].pop("user")
    with pytest.raises(SettingsError, match="context 'one' has no user"):
        find_cluster(write(tmp_path / "config", document), None, {})


def test_no_secret_is_quoted_out_of_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("users:\n- name: u\n  user: {token: hunter2: [}\n")
    with pytest.raises(SettingsError, match="it is not YAML in line 3") as excinfo:
        find_cluster(tmp_path / "config", None, {})
    assert "hunter2" not in "".join(traceback.format_exception(excinfo.value))


def test_of_several_files_the_first_one_counts(tmp_path: Path) -> None:
    """As kubectl does it; tests/integration asks kubectl itself the same."""
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "token").write_text(f"token-of-{name}")
        document = config({"tokenFile": "token"}, {"server": f"https://{name}.example.org"})
        document["current-context"] = name
        document["contexts"] += [{"name": name, "context": {"cluster": "c", "user": "u", "namespace": name}}]
        document["users"] += [{"name": f"only-{name}", "user": {"token": f"of-only-{name}"}}]
        write(folder / "config", document)
    (tmp_path / "empty").write_text("")
    without = write(tmp_path / "without", {"contexts": [{"name": "x", "context": {"cluster": "c", "user": "only-b"}}]})
    parts = [
        tmp_path / "missing",
        tmp_path / "empty",
        without,
        tmp_path / "a" / "config",
        "",
        tmp_path / "b" / "config",
    ]
    environ = {"KUBECONFIG": ":".join(map(str, parts))}
    cluster = find_cluster(None, None, environ)
    assert (cluster.context, cluster.server) == ("a", "https://a.example.org")
    assert cluster.headers() == [("Authorization", "Bearer token-of-a")]
    cluster = find_cluster(None, "b", environ)
    assert (cluster.namespace, cluster.server) == ("b", "https://a.example.org")
    # What the first file leaves out is not filled from the second one.
    cluster = find_cluster(None, "x", environ)
    assert (cluster.namespace, cluster.headers()) == ("default", [("Authorization", "Bearer of-only-b")])


@pytest.mark.parametrize(
    ("server", "environ", "proxy"),
    [
        ("https://a.example.org", {}, None),
        ("https://a.example.org", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.example.org", {"https_proxy": "p:1"}, "http://p:1"),
        ("https://a.example.org", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://a.example.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x, example.org"}, None),
        ("https://a.example.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example.org:443"}, None),
        ("https://a.example.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example.org:80"}, "http://p:1"),
        ("https://example.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example.org"}, "http://p:1"),
        ("https://aexample.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example.org"}, "http://p:1"),
        ("https://10.1.2.3:6443", {"HTTPS_PROXY": "http://p:1", "no_proxy": "10.0.0.0/8"}, None),
        ("https://11.1.2.3:6443", {"HTTPS_PROXY": "http://p:1", "no_proxy": "10.0.0.0/8,*.x"}, "http://p:1"),
        ("https://11.1.2.3:6443", {"HTTPS_PROXY": "http://p:1", "no_proxy": "11.1.2.3"}, None),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://[::1]:6443", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}, None),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "[fd00::1]:6443"}, None),
        ("https://a.example.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
    ],
)
def test_proxies_of_the_environment_by_the_rules_of_kubectl(
    tmp_path: Path, server: str, environ: dict[str, str], proxy: str | None
) -> None:
    path = write(tmp_path / "config", config(cluster={"server": server}))
    assert find_cluster(path, None, environ).proxy == proxy


@pytest.mark.parametrize(
    ("document", "context", "words"),
    [
        ([], None, "is not a kubeconfig"),
        ({}, None, "no current-context"),
        ({"current-context": 7}, None, "current-context is not a string"),
        ({"contexts": {}, "users": [3]}, None, "an entry of users must have a name and a user"),
        ({"users": [{"name": "u"}, {"name": "u"}]}, None, "users has two entries 'u'"),
        (
            config(cluster={"proxy-url": "socks5://u:hunter2@p:1"}),
            None,
            "proxy-url: replayctl cannot use the proxy 'socks5://p:1'",
        ),
        (config(cluster={"something-new": "x"}), None, "cluster 'c': replayctl does not support something-new"),
        (config(), "three", "contexts has no entry 'three'; it has: one, two"),
        (config(), "two", "clusters has no entry 'nowhere'"),
        (config(cluster={"server": "127.0.0.1"}), None, "has no server that begins"),
        (config(cluster={"certificate-authority-data": "not base64!"}), None, "is not base64"),
        (
            config(cluster={"certificate-authority": "missing"}),
            None,
            "cannot read certificate-authority .*missing: No such file",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, document: object, context: str | None, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        find_cluster(write(tmp_path / "config", document), context, {})


def test_no_file_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot find a kubeconfig"):
        find_cluster(None, None, {"KUBECONFIG": str(tmp_path / "missing")})
