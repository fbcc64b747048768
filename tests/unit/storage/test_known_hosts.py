"""Files of known host keys: which hosts are listed, under which names, and which of their keys count."""

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.errors import SettingsError
from replayctl.storage.known_hosts import Verdict, host_keys, is_listed_as_revoked, verdict_on

KEY, OTHER = b"\0\0\0\x0bssh-ed25519-one", b"\0\0\0\x0bssh-ed25519-two"
TEXT, OTHER_TEXT = (base64.b64encode(blob).decode() for blob in (KEY, OTHER))


def hashed(host: str) -> str:
    salt = b"01234567890123456789"
    digest = hmac.digest(salt, host.encode(), hashlib.sha1)
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def verdict(tmp_path: Path, text: str, host: str = "cluster.example", blob: bytes = KEY) -> Verdict:
    path = tmp_path / "known_hosts"
    path.write_text(text)
    return verdict_on(blob, host_keys(host, [tmp_path / "missing", path]))


@pytest.mark.parametrize(
    ("names", "host", "is_listed"),
    [
        ("cluster.example", "cluster.example", True),
        ("Cluster.Example", "CLUSTER.example", True),
        ("other,cluster.example,third", "cluster.example", True),
        ("*.example", "cluster.example", True),
        ("clust?r.example", "cluster.example", True),
        ("*.example,!cluster.example", "cluster.example", False),
        ("!cluster.*,*.example", "other.example", True),
        ("cluster.example", "cluster.example.org", False),
        ("clusterxexample", "cluster.example", False),
        ("cluster.example", "[cluster.example]:2222", False),
        ("[cluster.example]:2222", "[cluster.example]:2222", True),
        ("[cluster.example]:2222", "cluster.example", False),
        ("[*.example]:2222", "[cluster.example]:2222", True),
        ("[cl]uster", "custer", False),
        (hashed("cluster.example"), "cluster.example", True),
        (hashed("cluster.example"), "Cluster.Example", True),
        (hashed("[cluster.example]:2222"), "[cluster.example]:2222", True),
        (hashed("other"), "cluster.example", False),
        ("|1|not|hashed", "cluster.example", False),
        ("|1|", "cluster.example", False),
    ],
)
def test_names_match_as_in_ssh(tmp_path: Path, names: str, host: str, is_listed: bool) -> None:
    expected = Verdict.KNOWN if is_listed else Verdict.UNKNOWN
    assert verdict(tmp_path, f"{names} ssh-ed25519 {TEXT} a comment\n", host) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Verdict.UNKNOWN),
        (f"# cluster.example ssh-ed25519 {TEXT}\n", Verdict.UNKNOWN),
        (f"\tcluster.example   ssh-ed25519\t{TEXT}", Verdict.KNOWN),
        (f"cluster.example ssh-ed25519 {OTHER_TEXT}\n", Verdict.CHANGED),
        (f"cluster.example ssh-rsa {OTHER_TEXT}\n", Verdict.CHANGED),
        (f"cluster.example ssh-ed25519 {OTHER_TEXT}\ncluster.example ssh-ed25519 {TEXT}\n", Verdict.KNOWN),
        (f"@revoked * ssh-ed25519 {TEXT}\n", Verdict.REVOKED),
        (f"cluster.example ssh-ed25519 {TEXT}\n@revoked cluster.example ssh-ed25519 {TEXT}\n", Verdict.REVOKED),
        (f"@revoked * ssh-ed25519 {OTHER_TEXT}\n", Verdict.UNKNOWN),
        (f"@cert-authority * ssh-ed25519 {TEXT}\n", Verdict.UNKNOWN),
        (f"@another * ssh-ed25519 {TEXT}\n", Verdict.UNKNOWN),
        ("cluster.example ssh-ed25519 no-base64!\n", Verdict.UNKNOWN),
        ("cluster.example\n@revoked\n\n", Verdict.UNKNOWN),
    ],
)
def test_markers_and_lines_that_say_nothing(tmp_path: Path, text: str, expected: Verdict) -> None:
    assert verdict(tmp_path, text) is expected


@given(content=st.binary(max_size=300), host=st.text(max_size=20))
def test_no_file_makes_an_unlisted_key_known(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, host: str
) -> None:
    path = tmp_path_factory.mktemp("known") / "known_hosts"
    path.write_bytes(content)
    assert verdict_on(KEY, host_keys(host, [path])) is not Verdict.KNOWN


def test_the_line_of_a_key_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"# first\n\ncluster.example ssh-ed25519 {TEXT}\n")
    assert [(key.path, key.line) for key in host_keys("cluster.example", [path])] == [(path, 3)]


def test_lists_of_revoked_keys(tmp_path: Path) -> None:
    path = tmp_path / "revoked"
    path.write_text(f"ssh-ed25519 {OTHER_TEXT} gone\n")
    assert is_listed_as_revoked(OTHER, path)
    assert not is_listed_as_revoked(KEY, path)
    path.write_bytes(b"SSHKRL\n\0\0")
    with pytest.raises(SettingsError, match="is binary"):
        is_listed_as_revoked(KEY, path)
    path.unlink()
    with pytest.raises(SettingsError, match="does not exist"):
        is_listed_as_revoked(KEY, path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the host keys"):
        host_keys("cluster.example", [tmp_path])
