"""kubeconfig files: read here where they are plain, else by the official client, and refused with a reason."""

import base64
import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

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


def test_a_token_is_read_and_never_shown(tmp_path: Path) -> None:
    found = find_cluster(write(tmp_path / "config", config()), None, {})
    assert (found.server, found.context, found.namespace) == ("https://127.0.0.1:6443", "one", "n")
    assert found.headers() == {"Authorization": "Bearer a-secret-token"}
    assert "a-secret-token" not in repr(found)


def test_a_token_file_is_read_anew_each_time(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    found = find_cluster(write(tmp_path / "config", config({"tokenFile": "token"})), None, {})
    assert found.headers() == {"Authorization": "Bearer first"}
    (tmp_path / "token").write_text("second\n")
    assert found.headers() == {"Authorization": "Bearer second"}
    (tmp_path / "token").unlink()
    with pytest.raises(AuthFailed, match="token file"):
        found.headers()


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
    found = find_cluster(write(tmp_path / "config", config(data)), None, {})
    assert found.tls is not None
    assert found.headers() == {}
    assert list(scratch.iterdir()) == []
    with pytest.raises(SettingsError, match="cannot be used"):
        find_cluster(
            write(tmp_path / "config", config({**data, "client-key-data": data["client-certificate-data"]})), None, {}
        )


def test_a_program_that_gives_credentials_is_asked(tmp_path: Path) -> None:
    program = tmp_path / "give"
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-a-program"},
    }
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    execute = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
    found = find_cluster(write(tmp_path / "config", config({"exec": execute})), None, {})
    assert found.headers() == {"Authorization": "Bearer from-a-program"}
    assert found.namespace == "n"


def test_several_files_are_merged(tmp_path: Path) -> None:
    whole = config()
    one = write(tmp_path / "one", {**whole, "users": [], "apiVersion": "v1", "kind": "Config"})
    two = write(
        tmp_path / "two",
        {"apiVersion": "v1", "kind": "Config", "users": whole["users"], "contexts": [], "clusters": []},
    )
    found = find_cluster(None, None, {"KUBECONFIG": f"{one}:{two}:{tmp_path / 'missing'}"})
    assert found.headers() == {"Authorization": "Bearer a-secret-token"}


@pytest.mark.parametrize(
    ("document", "context", "words"),
    [
        ([], None, "is no kubeconfig"),
        ({}, None, "no current-context"),
        (config(), "three", "no entry 'three' in contexts; there are: one, two"),
        (config(), "two", "no entry 'nowhere' in clusters"),
        (config(cluster={"server": "127.0.0.1"}), None, "has no server"),
        (config(cluster={"certificate-authority-data": "not base64!"}), None, "is not base64"),
        (config(cluster={"certificate-authority": "missing"}), None, "missing cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, document: object, context: str | None, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        find_cluster(write(tmp_path / "config", document), context, {})


def test_no_file_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no kubeconfig"):
        find_cluster(None, None, {"KUBECONFIG": str(tmp_path / "missing")})
