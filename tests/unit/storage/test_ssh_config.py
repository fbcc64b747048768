"""The library's reading of ssh's configuration: which file and which line apply to a host."""

from pathlib import Path

import pytest

from replayctl.errors import SettingsError
from replayctl.storage import ssh_config
from replayctl.storage.ssh_config import HostOptions, SshAddress, SshConfig


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ssh_config, "SYSTEM_CONFIG", tmp_path / "system" / "ssh_config")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / "system").mkdir()
    return tmp_path


def options(text: str, name: str = "cluster", *, user: str | None = None, port: int | None = None) -> HostOptions:
    path = Path.home() / ".ssh" / "config"
    path.write_text(text)
    return SshConfig(SshAddress(name, user, port, None)).options_of(name)


def test_an_alias_sets_host_user_port_and_files(home: Path) -> None:
    text = """
    Host cluster
      HostName node1.example
      User alice
      Port 2222
      IdentityFile ~/.ssh/one
      IdentityFile ~/.ssh/two
      UserKnownHostsFile ~/.ssh/mine "%d/with space"
      GlobalKnownHostsFile none
    """
    cluster = options(text)
    assert (cluster.host, cluster.user, cluster.port) == ("node1.example", "alice", 2222)
    assert cluster.keys == (home / ".ssh" / "one", home / ".ssh" / "two")
    assert cluster.known_hosts == (home / ".ssh" / "mine", home / "with space")
    assert cluster.name_of_key == "[node1.example]:2222"
    assert cluster.uses_agent
    assert not cluster.only_these_keys


@pytest.mark.parametrize(
    "line", ["Include more", "Include\tmore", "include \t more", "Include=more", "Include\t= more"]
)
def test_spaces_and_tabs_separate_alike(home: Path, line: str) -> None:
    (home / ".ssh" / "more").write_text("Host cluster\n\tHostName\tnode1\n")
    assert options(f"{line}\n").host == "node1"
    # In a block for another host it does not count.
    assert options(f"Host\tother\n\t{line}\n").host == "cluster"
    assert options(f"Host\t*\n\t{line}\n").host == "node1"


def test_settings_of_replayctl_take_precedence_in_proxy_commands_too(home: Path) -> None:
    cluster = options("Host *\n  User bob\n  Port 2\n  ProxyCommand nc %h %p %r\n", user="alice", port=2222)
    assert (cluster.user, cluster.port, cluster.proxy_command) == ("alice", 2222, "nc cluster 2222 alice")


def test_defaults(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "carol")
    cluster = options("")
    assert (cluster.host, cluster.user, cluster.port, cluster.name_of_key) == ("cluster", "carol", 22, "cluster")
    assert cluster.own_known_hosts == home / ".ssh" / "known_hosts"
    assert home / ".ssh" / "id_ed25519" in cluster.keys
    assert (cluster.jumps, cluster.proxy_command, cluster.revoked_keys) == ((), None, None)


def test_none_switches_things_off(home: Path) -> None:
    text = "ProxyJump none\nProxyCommand none\nIdentityAgent none\nIdentityFile none\nUserKnownHostsFile none\n"
    cluster = options(f"{text}HostKeyAlias none\nRevokedHostKeys none\n")
    assert (cluster.jumps, cluster.proxy_command, cluster.keys, cluster.own_known_hosts) == ((), None, (), None)
    assert (cluster.uses_agent, cluster.name_of_key, cluster.revoked_keys) == (False, "cluster", None)


def test_a_key_alias_stands_alone(home: Path) -> None:
    assert options("HostKeyAlias the-cluster\nPort 2222\n").name_of_key == "the-cluster"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bob@outer", ("outer", "bob", 2200)),
        ("outer:22", ("outer", "eve", 22)),
        ("ssh://bob@outer:23", ("outer", "bob", 23)),
        ("bob@[::1]:24", ("::1", "bob", 24)),
        ("::1", ("::1", "carol", 22)),
    ],
)
def test_jump_hosts_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: tuple[str, str, int]
) -> None:
    monkeypatch.setenv("LOGNAME", "carol")
    (home / ".ssh" / "config").write_text("Host outer\n  User eve\n  Port 2200\n")
    cluster = SshConfig(SshAddress("cluster", "mallory", 1, None)).options_of(name)
    assert (cluster.alias, cluster.user, cluster.port) == expected


def test_jump_hosts_go_before_a_proxy_command(home: Path) -> None:
    cluster = options("ProxyJump a, bob@b:2\nProxyCommand nc %h %p\n")
    assert (cluster.jumps, cluster.proxy_command) == (("a", "bob@b:2"), None)


def test_included_files_count_where_they_stand(home: Path) -> None:
    (home / ".ssh" / "more").mkdir()
    (home / ".ssh" / "more" / "1").write_text("Host other\n  User nobody\nHost cluster\n  User alice\n")
    (home / ".ssh" / "more" / "2").write_text("Include deeper\n")
    (home / ".ssh" / "deeper").write_text("Port 2222\n")
    (home / "system" / "ssh_config").write_text("Include more.conf\nHost *\n  User system\n  HostName system\n")
    (home / "system" / "more.conf").write_text("HostName node1\n")
    cluster = options("Include more/*\nHost cluster\n  User bob\n  Port 1\n")
    assert (cluster.user, cluster.port, cluster.host) == ("alice", 2222, "node1")


def test_an_include_inside_a_block_does_not_spread(home: Path) -> None:
    (home / ".ssh" / "more").write_text("User nobody\n")
    assert options("Host other\n  Include more\nHost *\n  User alice\n").user == "alice"


@pytest.mark.parametrize(
    "text", ["Include config\n", "Include\n", "Port many\n", 'Include "open\n', "Match\n", "UserKnownHostsFile 'a\n"]
)
def test_what_cannot_be_used_is_an_error(home: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="ssh's configuration"):
        _ = options(text).known_hosts


@pytest.mark.parametrize(
    ("host", "user"), [("-oProxyCommand=x", None), ("a b", None), ("a\nHost b", None), ("a", "-l")]
)
def test_names_that_would_be_options_are_refused(host: str, user: str | None) -> None:
    with pytest.raises(SettingsError, match=r"ssh\.host or ssh\.user"):
        SshAddress(host, user, None, None)
