"""A real OpenSSH server with its own host key, on a free port, and people without root who may sign in there.

As root each person is a system user of their own; otherwise everybody is the user who runs the tests.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SSHD = shutil.which("sshd") or next((path for path in ("/usr/sbin/sshd",) if Path(path).exists()), None)
WHY_NOT = None if SSHD and shutil.which("ssh") else "no sshd on this machine (Debian: apt-get install openssh-server)"


@dataclass
class SshServer:
    """One server with its folder: keys, configuration, log, and `share`, which everybody there may write to."""

    folder: Path
    port: int = 0
    process: subprocess.Popen | None = None
    people: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, *people: str) -> "SshServer":
        folder = Path(tempfile.mkdtemp(prefix="rctl-sshd-", dir="/tmp"))  # short, and open to other users
        folder.chmod(0o755)
        server = cls(folder)
        for person in people:
            server.add(person)
        server.new_host_key()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        (folder / "authorized_keys").chmod(0o644)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            server.port = probe.getsockname()[1]
        server.run()
        server.make_share()
        return server

    def add(self, person: str) -> None:
        """A user of the system, in one group with the others; needs root."""
        if os.geteuid() == 0:
            subprocess.run(["groupadd", "-f", "rctl-tests"], check=True)
            shell = ["-M", "-N", "-g", "rctl-tests", "-s", "/bin/sh", "-d", str(self.folder), "-p", "*"]
            subprocess.run(["useradd", *shell, person], check=True)
            self.people.append(person)

    def login(self, person: str) -> str:
        return person if os.geteuid() == 0 else getpass.getuser()

    def new_host_key(self) -> None:
        for old in self.folder.glob("host_key*"):
            old.unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "host_key"], check=True)

    def make_share(self) -> None:
        share = self.folder / "share"
        for path in (share, share / "dags", share / "files"):
            path.mkdir()
            if os.geteuid() == 0:
                shutil.chown(path, group="rctl-tests")
            path.chmod(0o2775)

    def run(self, *options: str) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        # The first word on an option counts.
        lines = [
            *options,
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder}/host_key",
            f"AuthorizedKeysFile {self.folder}/authorized_keys",
            f"PidFile {self.folder}/sshd.pid",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "LogLevel VERBOSE",
            "MaxStartups 100:30:200",
            "MaxSessions 20",
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        assert SSHD
        argv = [SSHD, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "sshd.log")]
        self.process = subprocess.Popen(argv, start_new_session=True)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def halt(self) -> None:
        """Ends the server and the connections that it has."""
        if self.process is None:
            return
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        for pid in (self.process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self.process.wait(10)
        self.process = None

    def stop(self) -> None:
        self.halt()
        for person in self.people:
            listing = subprocess.run(["ps", "-o", "pid=", "-u", person], capture_output=True, text=True, check=False)
            for pid in map(int, listing.stdout.split()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for _ in range(20):
                if subprocess.run(["userdel", person], check=False, capture_output=True).returncode == 0:
                    break
                time.sleep(0.2)
        shutil.rmtree(self.folder, ignore_errors=True)

    def client_config(self, path: Path, *, alias: str = "cluster", trusted: bool = True, options: str = "") -> Path:
        """An ssh configuration as people have it: an alias with port, key and known hosts."""
        known_hosts = path.with_name("known_hosts")
        key = (self.folder / "host_key.pub").read_text()
        known_hosts.write_text(f"[127.0.0.1]:{self.port} {key}" if trusted else "")
        shutil.copy(self.folder / "key", path.with_name("key"))
        path.with_name("key").chmod(0o600)
        path.write_text(
            f"{options}\nHost {alias}\n  HostName 127.0.0.1\n"
            f"  Port {self.port}\n  IdentityFile {path.with_name('key')}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {known_hosts}\n"
        )
        return path

    def connections(self) -> int:
        """How many people it has let in so far."""
        return (self.folder / "sshd.log").read_text().count("Accepted publickey for ")
