"""Features of the library only: typed passwords and passphrases, its own check of host keys, deadlines, connections."""

import contextlib
import fcntl
import json
import logging
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from replayctl.errors import AuthFailed, ReplayctlError, SettingsError, TimedOut, Unreachable
from replayctl.storage.fabric_shell import FabricShell
from replayctl.storage.shell import Shell
from replayctl.storage.ssh_config import SshAddress
from replayctl.storage.target import Modes, Target
from tests.conftest import ROOT
from tests.sshd import WHY_NOT, SshServer

pytestmark = [pytest.mark.integration, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]

ALICE = f"rctl-{os.getpid()}-f"
PASSWORD = "open Sesame"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives an account a password")


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    server = SshServer.start(ALICE)
    if os.geteuid() == 0:
        subprocess.run(["chpasswd"], input=f"{ALICE}:{PASSWORD}\n", text=True, check=True)
    server.halt()
    server.run("PasswordAuthentication yes")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def config(server: SshServer, tmp_path: Path) -> Path:
    return server.client_config(tmp_path / "config")


class Person:
    """Answers questions in order, and remembers them."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.questions: list[tuple[str, bool]] = []

    def __call__(self, question: str, is_secret: bool) -> str | None:
        self.questions.append((question, is_secret))
        return self.answers.pop(0)


def shell_of(server: SshServer, config: Path, ask: Callable[[str, bool], str | None] | None = None) -> FabricShell:
    return FabricShell(SshAddress("cluster", server.login(ALICE), None, config), ask=ask or Person())


def look(server: SshServer, shell: Shell) -> None:
    share = server.folder / "share"
    Target(shell, str(share / "dags"), str(share / "files"), "alice", Modes()).inspect()


def without_key(config: Path) -> None:
    config.write_text(config.read_text().replace(f"IdentityFile {config.with_name('key')}", "IdentityFile none"))


@as_root
def test_a_password_is_asked_for_and_remembered_in_this_process_alone(
    server: SshServer, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without_key(config)
    person = Person("wrong", PASSWORD)
    shell = shell_of(server, config, person)
    with caplog.at_level(logging.DEBUG):
        look(server, shell)
        shell.close()
        # As after a connection that was lost: nothing is asked again.
        look(server, shell)
    assert person.questions == [
        (f"{ALICE}@cluster's password: ", True),
        (f"{ALICE}@cluster's password, try again: ", True),
    ]
    assert PASSWORD not in caplog.text
    shell.close()


@as_root
def test_a_key_and_then_a_password_where_both_are_required(server: SshServer, config: Path) -> None:
    server.halt()
    server.run("AuthenticationMethods publickey,password", "PasswordAuthentication yes")
    person = Person(PASSWORD)
    shell = shell_of(server, config, person)
    try:
        look(server, shell)
    finally:
        shell.close()
        server.halt()
        server.run("PasswordAuthentication yes")
    assert len(person.questions) == 1


@as_root
def test_wrong_passwords_are_refused_once_and_for_all(server: SshServer, config: Path) -> None:
    without_key(config)
    person = Person("one", "two", "three")
    shell = shell_of(server, config, person)
    for _ in range(2):
        with pytest.raises(AuthFailed, match=f"denied access to {ALICE}") as excinfo:
            look(server, shell)
    assert len(person.questions) == 3
    assert "password" in (excinfo.value.details or "")


def test_without_anybody_to_ask_the_hint_is_a_terminal(server: SshServer, config: Path) -> None:
    without_key(config)
    with pytest.raises(AuthFailed, match="denied access") as excinfo:
        look(server, shell_of(server, config, Person(None)))
    assert "in a terminal" in (excinfo.value.hint or "")


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_key_with_a_passphrase(server: SshServer, config: Path, kind: str) -> None:
    key = config.with_name("key")
    key.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "päss word", "-f", key], check=True)
    accepted = server.folder / "authorized_keys"
    before = accepted.read_text()
    accepted.write_text(f"{before}{key.with_name('key.pub').read_text()}")
    person = Person("wrong", "päss word")
    shell = shell_of(server, config, person)
    try:
        look(server, shell)
        shell.close()
        look(server, shell)
    finally:
        accepted.write_text(before)
        shell.close()
    assert person.questions == [
        (f"Enter passphrase for key '{key}': ", True),
        (f"Enter passphrase for key '{key}', try again: ", True),
    ]


def test_a_key_that_others_can_read_is_not_used(server: SshServer, config: Path) -> None:
    config.with_name("key").chmod(0o644)
    with pytest.raises(AuthFailed, match="denied access") as excinfo:
        look(server, shell_of(server, config, Person(None)))
    assert "others can read it" in (excinfo.value.details or "")


def test_host_keys_that_are_hashed_or_of_another_type_than_preferred(server: SshServer, config: Path) -> None:
    known_hosts = config.with_name("known_hosts")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known_hosts], check=True, capture_output=True)
    assert "|1|" in known_hosts.read_text()
    look(server, shell_of(server, config))
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", server.folder / "rsa"], check=True)
    server.halt()
    server.run(f"HostKey {server.folder}/rsa", "PasswordAuthentication yes")
    try:
        known_hosts.write_text(f"[127.0.0.1]:{server.port} {(server.folder / 'rsa.pub').read_text()}")
        look(server, shell_of(server, config))
    finally:
        server.halt()
        server.run("PasswordAuthentication yes")
    # Now the server has none of the recorded keys.
    with pytest.raises(AuthFailed, match="has changed"):
        look(server, shell_of(server, config))


@pytest.mark.parametrize("how", ["@revoked", "RevokedHostKeys"])
def test_a_revoked_host_key_is_refused(server: SshServer, config: Path, how: str) -> None:
    key = (server.folder / "host_key.pub").read_text()
    if how == "@revoked":
        known_hosts = config.with_name("known_hosts")
        known_hosts.write_text(f"{known_hosts.read_text()}@revoked * {key}")
    else:
        config.with_name("revoked").write_text(key)
        config.write_text(f"RevokedHostKeys {config.with_name('revoked')}\n{config.read_text()}")
    with pytest.raises(AuthFailed, match="is revoked"):
        look(server, shell_of(server, config))


def children() -> str:
    return "\n".join(" ".join(child.cmdline()) for child in psutil.Process().children())


def test_a_proxy_command_carries_the_connection_and_ends_with_it(server: SshServer, config: Path) -> None:
    script = config.with_name("proxy.py")
    script.write_text(
        "import socket, sys, threading, os\n"
        "sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def back():\n"
        "    while data := sock.recv(65536): os.write(1, data)\n"
        "    os._exit(0)\n"
        "threading.Thread(target=back, daemon=True).start()\n"
        "while data := os.read(0, 65536): sock.sendall(data)\n"
    )
    text = config.read_text()
    config.write_text(f"{text}  ProxyCommand {sys.executable} {script} %h %p\n")
    shell = shell_of(server, config)
    look(server, shell)
    assert str(script) in children()
    shell.close()
    assert str(script) not in children()
    config.write_text(f"{text}  ProxyCommand exit 3\n")
    with pytest.raises(Unreachable, match="cannot be reached"):
        look(server, shell_of(server, config))


def test_jump_hosts_in_a_circle_are_an_error(server: SshServer, config: Path) -> None:
    config.write_text(f"{config.read_text()}  ProxyJump cluster\n")
    with pytest.raises(SettingsError, match="loop"):
        look(server, shell_of(server, config))


def variables(server: SshServer) -> dict[str, str]:
    modes = {"dir_mode": "755", "file_mode": "644", "package_mode": "444"}
    upload = {"token": f"t{time.monotonic_ns()}", "sha": "0" * 64, "name": "a.jar", "size_sent": "9", "offset": "0"}
    folders = {"submit": str(server.folder / "share" / "files"), "owner": "silent", "team": "0"}
    return {**folders, **modes, **upload, "facts_text": "{}", "audit": "{}"}


def test_a_far_side_that_falls_silent_is_given_up_and_the_next_call_connects_again(
    server: SshServer, config: Path
) -> None:
    shell = shell_of(server, config)
    look(server, shell)
    assert server.process
    sessions = psutil.Process(server.process.pid).children(recursive=True)
    for session in sessions:
        session.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(TimedOut, match="did not read or write anything for 1 s"):
            shell.stream(
                "packages+packages_send", variables(server), (), (b"x" * 65536 for _ in range(4096)), silence_s=1
            )
    finally:
        for session in sessions:
            session.send_signal(signal.SIGCONT)
    look(server, shell)
    shell.close()


def test_data_that_cannot_be_read_ends_the_upload_with_its_own_error(server: SshServer, config: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ReplayctlError("the file has changed meanwhile")

    shell = shell_of(server, config)
    with pytest.raises(ReplayctlError, match="the file has changed"):
        shell.stream("packages+packages_send", variables(server), (), chunks())
    look(server, shell)
    shell.close()


def test_the_error_of_a_script_that_fails_early_is_reported(server: SshServer, config: Path) -> None:
    shell = shell_of(server, config)
    bad_variables = {**variables(server), "submit": "/no/such/folder"}
    with pytest.raises(ReplayctlError, match="/no/such/folder does not exist"):
        shell.stream("packages+packages_send", bad_variables, (), (b"x" * 65536 for _ in range(4096)))
    shell.close()


def test_the_program_needs_no_ssh_on_its_path(server: SshServer, config: Path, tmp_path: Path) -> None:
    share = server.folder / "share"
    (tmp_path / "tools").mkdir()
    settings = {
        "HOME": str(tmp_path),
        "PATH": str(tmp_path / "tools"),
        "PYTHONPATH": str(ROOT),
        "REPLAYCTL_PROFILE": "lab",
        "REPLAYCTL_USER": "nossh",
        "REPLAYCTL_SSH_HOST": "cluster",
        "REPLAYCTL_SSH_USER": server.login(ALICE),
        "REPLAYCTL_SSH_CONFIG": str(config),
        "REPLAYCTL_FOLDERS_DAGS": str(share / "dags"),
        "REPLAYCTL_FOLDERS_SPARK_SUBMIT_FILES": str(share / "files"),
    }
    argv = [sys.executable, "-m", "replayctl", "releases"]
    result = subprocess.run(argv, cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    openssh = {**settings, "REPLAYCTL_SSH_CLIENT": "openssh"}
    result = subprocess.run(argv, cwd=tmp_path, env=openssh, capture_output=True, text=True, check=False)
    assert result.returncode == 6, result.stderr
    assert "REPLAYCTL_SSH_CLIENT=fabric" in result.stderr


class Terminal:
    """The program at a terminal of its own."""

    def __init__(self, cwd: Path, *argv: str) -> None:
        self._ours, theirs = pty.openpty()
        self.output = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "replayctl", *argv],
            cwd=cwd,
            env={"HOME": str(cwd), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no other thread runs here
        )
        os.close(theirs)

    def read_until(self, words: bytes) -> None:
        deadline = time.monotonic() + 60
        while words not in self.output:
            assert select.select([self._ours], [], [], deadline - time.monotonic())[0], self.output
            self.output += os.read(self._ours, 10_000)

    def has_echo(self) -> bool:
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def answer(self, text: bytes, *, to: bytes) -> None:
        """Types once the question is there and what is typed is not shown."""
        self.read_until(to)
        deadline = time.monotonic() + 60
        while self.has_echo():
            assert time.monotonic() < deadline, "what is typed would be shown"
            time.sleep(0.02)
        # A signal that comes before the program reads is noticed only after what it reads. No person is as quick.
        time.sleep(0.5)
        self.output = b""
        os.write(self._ours, text)

    def end(self) -> int:
        with contextlib.suppress(OSError):
            while data := os.read(self._ours, 10_000):
                self.output += data
        code = self._process.wait(60)
        os.close(self._ours)
        return code


@pytest.fixture
def workplace(server: SshServer, tmp_path: Path) -> Path:
    """A folder with a profile whose files are behind ssh, for someone who has no key."""
    folders = dict.fromkeys(("dags", "spark_submit_files", "artifacts", "artifacts_in_pods"), str(server.folder))
    config = server.client_config(tmp_path / "config")
    tmp_path.joinpath("key").unlink()
    profile = {
        "user": "alice",
        "ssh": {"host": "cluster", "user": ALICE, "config": str(config), "client": "fabric"},
        "folders": {**folders, "data_in_pods": "/data"},
    }
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"default_profile": "p", "profiles": {"p": profile}}))
    return tmp_path


@as_root
def test_at_a_terminal_a_password_is_typed_unseen_and_again_when_it_was_wrong(workplace: Path) -> None:
    terminal = Terminal(workplace, "mlflow-sync", "--dry-run")
    terminal.answer(b"wrong\n", to=b"cluster's password: ")
    terminal.answer(PASSWORD.encode() + b"\n", to=b"password, try again: ")
    assert (terminal.end(), b"no evaluations are stored" in terminal.output) == (0, True)
    assert PASSWORD.encode() not in terminal.output


@as_root
def test_ctrl_c_at_the_question_ends_at_once_with_the_terminal_as_it_was(workplace: Path) -> None:
    terminal = Terminal(workplace, "mlflow-sync", "--dry-run")
    terminal.answer(b"\x03", to=b"cluster's password: ")
    terminal.read_until(b"error: interrupted")
    assert terminal.output.count(b"password") == 0
    assert terminal.has_echo()
    assert terminal.end() == 130


@as_root
def test_ctrl_d_is_an_empty_answer_and_the_error_has_a_line_of_its_own(workplace: Path) -> None:
    terminal = Terminal(workplace, "mlflow-sync", "--dry-run")
    for question in (b"cluster's password: ", b"try again: ", b"try again: "):
        terminal.answer(b"\x04", to=question)
    assert terminal.end() == 4
    assert b"\nerror: cluster denied access" in terminal.output
    assert b"check ssh.user, your password" in terminal.output


@as_root
@pytest.mark.parametrize("argv", [("--output", "json"), ()], ids=["json", "no terminal"])
def test_elsewhere_nothing_is_asked(workplace: Path, argv: tuple[str, ...]) -> None:
    environ = {"HOME": str(workplace), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "replayctl", *argv, "mlflow-sync", "--dry-run"]
    done = subprocess.run(command, cwd=workplace, env=environ, input=b"x\n", capture_output=True, check=False)
    assert done.returncode == 4
    assert b"in a terminal" in done.stdout + done.stderr
    assert b"password:" not in done.stdout + done.stderr
