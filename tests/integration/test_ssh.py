"""ssh as people configure it, with the program and the library: keys, aliases, jump hosts, rejections."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dags.dag_entities import Namespace
from replayctl import process
from replayctl.errors import AuthFailed, Conflict, NotFound, OperationFailed, SettingsError, TimedOut, Unreachable
from replayctl.storage.shell import BOOTSTRAP, END_OF_SCRIPT, LocalShell, Shell, answer_of, script_text
from replayctl.storage.ssh import SshShell
from replayctl.storage.ssh_config import SshAddress
from replayctl.storage.target import Modes, Target
from tests.conftest import ROOT
from tests.publishing import CLIENTS, deploy, release_of, roll_back, target_of, write_dags
from tests.sshd import WHY_NOT, SshServer

pytestmark = [pytest.mark.integration, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]

ALICE = f"rctl-{os.getpid()}-s"


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    server = SshServer.start(ALICE)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return request.param


def shell_for(server: SshServer, config: Path, client: str, host: str = "cluster", **options: float) -> Shell:
    return CLIENTS[client](SshAddress(host, server.login(ALICE), None, config), **options)


def inspect(server: SshServer, shell: Shell) -> None:
    share = server.folder / "share"
    try:
        Target(shell, str(share / "dags"), str(share / "files"), "alice", Modes()).inspect()
    finally:
        shell.close()


def test_one_connection_serves_a_whole_deploy_and_ends_with_it(server: SshServer, tmp_path: Path, client: str) -> None:
    config = server.client_config(tmp_path / "config")
    share = server.folder / "share"
    words = {"dags": str(share / "dags"), "files": str(share / "files"), "owner": f"one{client}", "host": "cluster"}
    words["client"] = client
    target = target_of({**words, "user": server.login(ALICE), "config": str(config)})
    before = server.connections()
    deploy(target, Namespace(words["owner"]), release_of(write_dags(tmp_path / "dags", 1), words["owner"]))
    deploy(target, Namespace(words["owner"]), release_of(write_dags(tmp_path / "dags", 2), words["owner"]))
    assert server.connections() - before == 1
    folder = getattr(target.shell, "_folder", None)
    target.shell.close()
    if folder is not None:
        assert not folder.exists()
        process_list = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert str(folder) not in process_list
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("paramiko"):
            thread.join(5)
            assert not thread.is_alive()


def test_an_unknown_host_key_is_refused_with_the_next_step(server: SshServer, tmp_path: Path, client: str) -> None:
    # What people put there to be asked less must not open the door.
    config = server.client_config(tmp_path / "config", trusted=False, options="StrictHostKeyChecking no")
    with pytest.raises(AuthFailed, match="is unknown") as excinfo:
        inspect(server, shell_for(server, config, client))
    hint = excinfo.value.hint or ""
    assert (tmp_path / "known_hosts").read_text() == ""
    if client == "openssh":
        assert f"ssh -F {config} -l {server.login(ALICE)} cluster" in hint
    else:
        subprocess.run(["sh", "-ec", hint.rpartition("then run: ")[2]], check=True)
        inspect(server, shell_for(server, config, "openssh"))
        inspect(server, shell_for(server, config, client))


def test_a_changed_host_key_is_refused_with_the_next_step(server: SshServer, tmp_path: Path, client: str) -> None:
    config = server.client_config(tmp_path / "config")
    server.halt()
    server.new_host_key()
    server.run()
    with pytest.raises(AuthFailed, match="has changed") as excinfo:
        inspect(server, shell_for(server, config, client))
    assert f"-R '[127.0.0.1]:{server.port}'" in (excinfo.value.hint or "")
    command = (excinfo.value.hint or "").rpartition("on purpose: ")[2]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert f"[127.0.0.1]:{server.port} " not in (tmp_path / "known_hosts").read_text()


def test_a_refused_key_never_asks_for_a_password(server: SshServer, tmp_path: Path, client: str) -> None:
    config = server.client_config(tmp_path / "config")
    (tmp_path / "key").unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "a passphrase", "-f", tmp_path / "key"], check=True)
    started = time.monotonic()
    with pytest.raises(AuthFailed, match="denied access") as excinfo:
        inspect(server, shell_for(server, config, client))
    assert "ssh-add" in f"{excinfo.value.hint} {excinfo.value.details}"
    assert time.monotonic() - started < 20


def test_names_and_ports_that_lead_nowhere_are_unreachable(server: SshServer, tmp_path: Path, client: str) -> None:
    config = server.client_config(tmp_path / "config")
    with pytest.raises(Unreachable, match=r"nowhere\.invalid cannot be reached"):
        inspect(server, CLIENTS[client](SshAddress("nowhere.invalid", None, None, config)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unreachable, match="cannot be reached"):
        inspect(server, CLIENTS[client](SshAddress("127.0.0.1", None, port, config)))


def test_a_server_that_says_nothing_is_given_up(server: SshServer, tmp_path: Path, client: str) -> None:
    config = server.client_config(tmp_path / "config")
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = SshAddress("127.0.0.1", None, mute.getsockname()[1], config)
        with pytest.raises((Unreachable, TimedOut)):
            inspect(server, CLIENTS[client](address, connect_timeout_s=1, timeout_s=5))


def test_through_a_jump_host(server: SshServer, tmp_path: Path, client: str) -> None:
    user = server.login(ALICE)
    config = server.client_config(tmp_path / "config", alias="inner")
    text = config.read_text()
    config.write_text(f"{text}  ProxyJump {user}@outer\n\n{text.replace('Host inner', 'Host outer')}")
    before = server.connections()
    inspect(server, shell_for(server, config, client, "inner"))
    assert server.connections() - before == 2
    # The way there is held to the same rules as the host itself.
    empty = tmp_path / "empty"
    empty.touch()
    config.write_text(
        f"{text}  ProxyJump {user}@outer\n\n"
        + text.replace("Host inner", "Host outer").replace(str(tmp_path / "known_hosts"), str(empty))
    )
    with pytest.raises(AuthFailed, match="jump host.* is unknown|host key of outer is unknown"):
        inspect(server, shell_for(server, config, client, "inner"))


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="no ssh-agent on this machine")
def test_with_an_agent(server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str) -> None:
    config = server.client_config(tmp_path / "config")
    config.write_text(config.read_text().replace(f"  IdentityFile {tmp_path / 'key'}\n  IdentitiesOnly yes\n", ""))
    folder = server.folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(folder)], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(folder))
        for _ in range(50):
            if folder.exists():
                break
            time.sleep(0.1)
        subprocess.run(["ssh-add", "-q", str(tmp_path / "key")], check=True)
        inspect(server, shell_for(server, config, client))
    finally:
        agent.terminate()
        agent.wait(10)


def test_a_shell_that_talks_when_it_starts_is_listened_past(server: SshServer, tmp_path: Path, client: str) -> None:
    config = server.client_config(tmp_path / "config")
    server.halt()
    # What a .bashrc that prints does to every command.
    server.run("ForceCommand echo 'Welcome!'; echo 'phase publish'; eval \"$SSH_ORIGINAL_COMMAND\"")
    try:
        inspect(server, shell_for(server, config, client))
    finally:
        server.halt()
        server.run()


def test_an_account_without_a_shell_does_not_look_like_an_empty_target(
    server: SshServer, tmp_path: Path, client: str
) -> None:
    config = server.client_config(tmp_path / "config")
    server.halt()
    server.run("ForceCommand /bin/false")
    try:
        with pytest.raises(AuthFailed, match="runs another command instead"):
            inspect(server, shell_for(server, config, client))
    finally:
        server.halt()
        server.run()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("MaxSessions 0", "opens no session for commands"),
        ("ForceCommand echo 'Deploys are closed until Monday' >&2; exit 3", "it ended with status 3"),
        ("ForceCommand echo 'This account is currently not available.'; exit 1", r"no shell \(nologin\)"),
        ('ForceCommand /bin/bash -r -c "$SSH_ORIGINAL_COMMAND"', "shell is restricted"),
        ("ForceCommand echo 'This service allows sftp connections only.'; exit 1", "only for sftp"),
        ("ForceCommand internal-sftp", "runs another command|only for sftp"),
    ],
)
@pytest.mark.parametrize(("client", "level"), [("openssh", ""), ("openssh", "LogLevel QUIET"), ("fabric", "")])
def test_accounts_that_run_no_commands_say_which_kind_they_are(
    server: SshServer, tmp_path: Path, option: str, message: str, client: str, level: str
) -> None:
    config = server.client_config(tmp_path / "config", options=level)
    server.halt()
    server.run(option)
    try:
        with pytest.raises(AuthFailed, match=message) as excinfo:
            inspect(server, shell_for(server, config, client, timeout_s=30))
    finally:
        server.halt()
        server.run()
    assert "accepts" in str(excinfo.value)
    if "Monday" in option:
        assert "Deploys are closed until Monday" in (excinfo.value.details or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives an account another shell")
@pytest.mark.parametrize(
    ("shell", "message"),
    [
        ("/usr/sbin/nologin", r"no shell \(nologin\)"),
        ("/bin/rbash", "shell is restricted"),
        ("/bin/false", "it ended with status 1"),
        ("/bin/cat", "it ended with status 1"),
    ],
)
def test_accounts_with_another_shell(server: SshServer, tmp_path: Path, shell: str, message: str, client: str) -> None:
    if not Path(shell).exists():
        pytest.skip(f"no {shell} on this machine")
    config = server.client_config(tmp_path / "config")
    subprocess.run(["usermod", "-s", shell, ALICE], check=True)
    try:
        with pytest.raises(AuthFailed, match=message):
            inspect(server, shell_for(server, config, client))
    finally:
        subprocess.run(["usermod", "-s", "/bin/sh", ALICE], check=True)


@pytest.mark.parametrize("level", ["QUIET", "FATAL", "DEBUG3"])
def test_refusals_are_reported_at_every_log_level_of_the_user(server: SshServer, tmp_path: Path, level: str) -> None:
    config = server.client_config(tmp_path / "config", trusted=False, options=f"LogLevel {level}")
    with pytest.raises(AuthFailed, match="is unknown"):
        inspect(server, shell_for(server, config, "openssh"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unreachable, match="cannot be reached by ssh: .*Connection refused"):
        inspect(server, SshShell(SshAddress("127.0.0.1", None, port, config)))


def test_forwards_of_the_users_configuration_are_not_ours_to_open(server: SshServer, tmp_path: Path) -> None:
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        forward = f"LocalForward {occupant.getsockname()[1]} 127.0.0.1:80\nExitOnForwardFailure yes"
        inspect(server, shell_for(server, server.client_config(tmp_path / "config", options=forward), "openssh"))


def test_a_control_path_that_cannot_be_is_named(server: SshServer, tmp_path: Path) -> None:
    options = "ControlMaster auto\nControlPath /nowhere/at/all"
    with pytest.raises(SettingsError, match="ControlPath /nowhere/at/all") as excinfo:
        inspect(server, shell_for(server, server.client_config(tmp_path / "config", options=options), "openssh"))
    assert "ControlPath none" in (excinfo.value.hint or "")
    options = f"ControlMaster auto\nControlPath /tmp/{'x' * 120}"
    with pytest.raises(SettingsError, match="ControlPath"):
        inspect(server, shell_for(server, server.client_config(tmp_path / "config", options=options), "openssh"))


@pytest.mark.parametrize("how", ["alias", "second file"])
def test_the_hint_about_a_changed_host_key_removes_it(server: SshServer, tmp_path: Path, how: str, client: str) -> None:
    config = server.client_config(tmp_path / "config")
    known_hosts = tmp_path / "known_hosts"
    old = known_hosts.read_text()
    if how == "alias":
        config.write_text(f"{config.read_text()}  HostKeyAlias the-cluster\n")
        known_hosts.write_text(old.replace(f"[127.0.0.1]:{server.port}", "the-cluster"))
    else:
        (tmp_path / "first").touch()
        text = config.read_text()
        config.write_text(
            text.replace(f"UserKnownHostsFile {known_hosts}", f"UserKnownHostsFile {tmp_path / 'first'} {known_hosts}")
        )
    inspect(server, shell_for(server, config, client))
    server.halt()
    server.new_host_key()
    server.run()
    with pytest.raises(AuthFailed, match="has changed") as excinfo:
        inspect(server, shell_for(server, config, client))
    command = (excinfo.value.hint or "").rpartition("on purpose: ")[2]
    subprocess.run(["sh", "-ec", command], check=True, capture_output=True)
    assert known_hosts.read_text() == ""
    with pytest.raises(AuthFailed, match="is unknown"):
        inspect(server, shell_for(server, config, client))


@pytest.mark.parametrize("text", ["Nonsense yes\n", "Port many\n", "Host a\n  IdentityFile\n", "Include\n", "\0\n"])
def test_a_configuration_that_ssh_does_not_take_gives_one_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "config").write_text(text)
    shell = SshShell(SshAddress("127.0.0.1", None, 1, tmp_path / "config"))
    with pytest.raises((SettingsError, Unreachable)) as excinfo:
        Target(shell, "/dags", "/files", "alice", Modes()).inspect()
    assert isinstance(excinfo.value, SettingsError) == (text != "\0\n")
    shell.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_configuration_that_is_not_a_file_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "pipe"):
        shell = CLIENTS[client](SshAddress("127.0.0.1", None, 1, path))
        with pytest.raises(SettingsError, match="not a file"):
            Target(shell, "/dags", "/files", "alice", Modes()).inspect()
        shell.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_broken_connection_is_reported_and_the_next_deploy_recovers(
    server: SshServer, tmp_path: Path, client: str
) -> None:
    config = server.client_config(tmp_path / "config")
    share = server.folder / "share"
    words = {"dags": str(share / "dags"), "files": str(share / "files"), "owner": f"cut{client}", "host": "cluster"}
    words |= {"client": client, "user": server.login(ALICE), "config": str(config)}
    write_dags(tmp_path / "dags", 1, padding=40_000_000)
    (tmp_path / "publisher.json").write_text(json.dumps({**words, "folder": str(tmp_path / "dags")}))
    publisher = subprocess.Popen(
        [sys.executable, "-m", "tests.publishing", str(tmp_path / "publisher.json")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert publisher.stdout
    for line in publisher.stdout:
        if line == "phase upload\n":
            server.halt()
            break
    _, stderr = publisher.communicate(timeout=60)
    server.run()
    assert publisher.returncode == 1
    assert re.search(r"errors\.(Unreachable|OperationFailed): ", stderr), stderr
    target = target_of(words)
    assert not (share / "dags" / "replayctl_releases" / words["owner"] / "current").exists()
    deploy(target, Namespace(words["owner"]), release_of(write_dags(tmp_path / "dags2", 2), words["owner"]))
    target.shell.close()


def test_a_missing_folder_and_a_closed_one_are_named(server: SshServer, tmp_path: Path, client: str) -> None:
    config = server.client_config(tmp_path / "config")
    shell = shell_for(server, config, client)
    with pytest.raises(NotFound, match="/no such folder does not exist"):
        Target(shell, "/no such folder", "/x", "alice", Modes()).inspect()
    if os.geteuid() == 0:
        closed = server.folder / f"closed-{client}"
        closed.mkdir(mode=0o755)
        with pytest.raises(OperationFailed, match=r"cannot create the folder .*closed-.*/replayctl_releases"):
            Target(shell, str(closed), "/x", "alice", Modes()).lock("t", {})
    shell.close()


@pytest.mark.parametrize("program", ["dash", "bash --posix", "busybox sh", "mksh"])
def test_every_posix_shell_will_do(program: str, tmp_path: Path) -> None:
    """The whole way with another /bin/sh; with busybox also most other programs are busybox's."""
    words = program.split()
    path = shutil.which(words[0])
    if path is None:
        pytest.skip(f"no {words[0]} on this machine")
    tools = tmp_path / "tools"
    environ = dict(os.environ)
    if words[0] == "busybox":
        tools.mkdir()
        subprocess.run([path, "--install", "-s", str(tools)], check=True)
        environ["PATH"] = f"{tools}:{environ['PATH']}"

    class OtherShell(LocalShell):
        def run(
            self,
            script: str,
            variables: Mapping[str, str],
            words_: Sequence[str] = (),
            data: bytes = b"",
            *,
            timeout_s: float | None = None,
        ) -> bytes:
            argv = [path, *words[1:], "-c", BOOTSTRAP, END_OF_SCRIPT]
            result = process.exchange(argv, script_text(script, variables, words_) + data, env=environ, timeout_s=60)
            return answer_of(result, program)

    dags, files = tmp_path / "the dags", tmp_path / "files"
    dags.mkdir()
    target = Target(OtherShell(), str(dags), str(files), "alice", Modes())
    one = release_of(write_dags(tmp_path / "own", 1), "alice")
    assert deploy(target, Namespace("alice"), one)
    assert not deploy(target, Namespace("alice"), one)
    two = release_of(write_dags(tmp_path / "own", 2), "alice")
    assert deploy(target, Namespace("alice"), two)
    roll_back(target, Namespace("alice"), one.name)
    state = target.inspect(["dag_a_alice.py"], [one.name])
    assert state.pointer == one.name
    assert state.releases == state.submitted == {one.name, two.name}
    assert state.edited == {}
    history = target.history()
    assert [line["action"] for line in history.audit] == ["publish", "publish", "rollback"]
    stored_folder = dags / "replayctl_releases" / "alice" / one.name
    (stored_folder / "dag_a.py").write_text("VALUE = 'by hand'\n")
    (stored_folder / "more.py").write_text("")
    with pytest.raises(Conflict, match="by hand"):
        deploy(target, Namespace("alice"), two)
    assert deploy(target, Namespace("alice"), one, force=True)
    assert target.inspect([], [one.name]).edited == {}
    assert not (stored_folder / "more.py").exists()
