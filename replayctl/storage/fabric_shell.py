"""ssh by a library, for machines without an ssh program and for people who type a password or a passphrase.

It honours the user's ssh configuration as far as paramiko does, and accepts only known host keys.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from replayctl.errors import AuthFailed, ReplayctlError, SettingsError, TimedOut
from replayctl.process import Exchanged
from replayctl.storage.fabric_channel import exchange
from replayctl.storage.fabric_sign_in import Ask, Memory, SignIn
from replayctl.storage.fabric_troubles import KnownHostsPolicy, trouble_of
from replayctl.storage.shell import GREETING, REMOTE_COMMAND, SILENCE_S, answer_of, script_text, stream_of
from replayctl.storage.ssh_config import HostOptions, SshAddress, SshConfig
from replayctl.storage.ssh_troubles import account_trouble, connection_lost, last_lines, no_session

_MOST_PRINTED = 4096
_MOST_JUMPS = 8
_ACCOUNT_HINT = "ask its administrator for an account with a shell"
_KEEPALIVE_S = 10
# A peer that acknowledges nothing for so long is gone; as ServerAliveInterval and ServerAliveCountMax for ssh.
_UNACKNOWLEDGED_MS = 30_000
# Authenticated by themselves: they cost one pass over the data and not two.
_FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")


def nobody(_question: str, _is_secret: bool) -> None:
    """Answers nothing: for calls that have no terminal."""


class FabricShell:
    """A shell on another machine. Raises Unreachable, AuthFailed and TimedOut besides the errors of every `Shell`."""

    def __init__(
        self,
        address: SshAddress,
        *,
        ask: Ask = nobody,
        connect_timeout_s: float = 15.0,
        timeout_s: float = 600.0,
    ) -> None:
        self._address = address
        self._ask = ask
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._memory = Memory()
        self._connections: list[Any] = []
        self._proxy: subprocess.Popen[bytes] | None = None
        # What was refused once is not asked for again, such as when the lock is released after an error.
        self._refusal: ReplayctlError | None = None

    @property
    def name(self) -> str:
        """The machine, for messages."""
        return str(self._address)

    def run(
        self,
        script: str,
        variables: Mapping[str, str],
        words: Sequence[str] = (),
        data: bytes = b"",
        *,
        timeout_s: float | None = None,
    ) -> bytes:
        """Runs a script, see `Shell`."""
        timeout_s = timeout_s or self._timeout_s
        chunks = (script_text(script, variables, words, timeout_s), data)
        try:
            done = self._exchange(chunks, limit_s=timeout_s)
        except TimedOut as error:
            raise TimedOut(f"{self.name} did not answer within {timeout_s:g} s") from error
        return self._answer(done)

    def stream(
        self,
        script: str,
        variables: Mapping[str, str],
        words: Sequence[str],
        chunks: Iterable[bytes],
        *,
        silence_s: float = SILENCE_S,
    ) -> bytes:
        """Runs a script on a stream of data, see `Shell`."""
        sent = stream_of(script, variables, words, chunks)
        try:
            done = self._exchange(sent, limit_s=silence_s, is_limit_of_silence=True)
        except TimedOut as error:
            raise TimedOut(f"{self.name} did not read or write anything for {silence_s:g} s") from error
        return self._answer(done)

    def close(self) -> None:
        """Closes the connection, and those to jump hosts."""
        for connection in reversed(self._connections):
            # Also one that was refused half-way, which fabric does not take for open.
            connection.client.close()
        self._connections.clear()
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait()
            self._proxy = None

    def _exchange(self, chunks: Iterable[bytes], *, limit_s: float, is_limit_of_silence: bool = False) -> Exchanged:
        import paramiko

        transport = self._transport()
        try:
            return exchange(transport, REMOTE_COMMAND, chunks, limit_s=limit_s, is_limit_of_silence=is_limit_of_silence)
        except (paramiko.SSHException, EOFError) as error:
            if isinstance(error, paramiko.ChannelException) or self._is_connected:
                raise no_session(self.name, self._user, str(getattr(error, "text", error)), _ACCOUNT_HINT) from error
            raise connection_lost(self.name, str(error)) from error

    def _answer(self, done: Exchanged) -> bytes:
        is_begun = GREETING in done.stdout
        if is_begun and done.returncode >= 0:
            return answer_of(done, self.name)
        if is_begun or (done.returncode < 0 and not done.stdout):
            raise connection_lost(self.name, done.stderr.strip())
        printed = last_lines(done.stdout[-_MOST_PRINTED:].decode("utf-8", "replace"))
        raise account_trouble(self.name, self._user, done.returncode, done.stderr.strip(), printed, _ACCOUNT_HINT)

    @property
    def _user(self) -> str:
        return str(self._connections[-1].user) if self._connections else str(self._address.user or "you")

    @property
    def _is_connected(self) -> bool:
        return bool(self._connections) and all(connection.is_connected for connection in self._connections)

    def _transport(self) -> Any:
        """The open connection; a lost one is opened again."""
        if self._refusal is not None:
            raise self._refusal
        if not self._is_connected:
            self.close()
            try:
                self._connect()
            except BaseException as error:
                self.close()
                if isinstance(error, (AuthFailed, SettingsError)):
                    self._refusal = error
                elif not isinstance(error, Exception):
                    self._refusal = AuthFailed(f"signing in to {self.name} was interrupted")
                raise
        return self._connections[-1].transport

    def _connect(self) -> None:
        import paramiko

        # Its messages go nowhere unless someone asks for them; without a handler Python prints them.
        log = logging.getLogger("paramiko")
        if not log.handlers:
            log.addHandler(logging.NullHandler())
        config = SshConfig(self._address)
        options = config.options_of(self._address.host)
        hops = self._way_to(config, options)
        for hop in hops:
            machine = self.name if hop is options else f"jump host {hop.alias}"
            connection = self._connection(hop, self._connections[-1] if self._connections else None)
            self._connections.append(connection)
            try:
                connection.open()
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise trouble_of(error, machine) from error
            connection.transport.set_keepalive(_KEEPALIVE_S)
            connection.transport.channel_timeout = self._timeout_s
            _expect_acknowledgements(connection.transport.sock)

    def _way_to(self, config: SshConfig, options: HostOptions) -> list[HostOptions]:
        """The hosts to pass, the target last. The first jump host may have jump hosts of its own, as in ssh."""
        hops = [options]
        while jumps := hops[0].jumps:
            hops[:0] = [config.options_of(jump) for jump in jumps]
            if len(hops) > _MOST_JUMPS:
                raise SettingsError(f"ssh's configuration has too many jump hosts before {self.name}, or a loop")
        return hops

    def _connection(self, options: HostOptions, gateway: Any) -> Any:
        import fabric
        import paramiko

        policy = KnownHostsPolicy(options)

        def transport_of(sock: Any, **more: Any) -> Any:
            transport = paramiko.Transport(sock, **more)
            security = transport.get_security_options()
            supported = [kind for kind in policy.kinds if kind in security.key_types]
            # A host with several keys presents one that is recorded.
            security.key_types = [*supported, *(kind for kind in security.key_types if kind not in supported)]
            security.ciphers = [*_FAST_CIPHERS, *(name for name in security.ciphers if name not in _FAST_CIPHERS)]
            return transport

        kwargs: dict[str, Any] = {
            "transport_factory": transport_of,
            "banner_timeout": self._connect_timeout_s,
            "auth_strategy": SignIn(options, self._ask, self._memory),
        }
        if gateway is None and options.proxy_command:
            kwargs["sock"], self._proxy = _proxy(options.proxy_command)
        connection = fabric.Connection(
            options.host,
            user=options.user,
            port=options.port,
            # All that is configured is in `options` already; fabric's own files are not read.
            config=fabric.Config(ssh_config=paramiko.SSHConfig(), lazy=True),
            gateway=gateway or False,
            forward_agent=False,
            connect_timeout=max(1, int(self._connect_timeout_s)),
            connect_kwargs=kwargs,
        )
        connection.client.set_missing_host_key_policy(policy)
        return connection


def _proxy(command: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A ProxyCommand and a socket to it. paramiko's own proxy does not notice that its command has ended."""
    ours, theirs = socket.socketpair()
    with theirs:
        # In a session of its own: Ctrl-C ends us, and we end it.
        child = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return ours, child


def _expect_acknowledgements(sock: Any) -> None:
    """Lets the system end a connection whose other end has vanished, where it can."""
    if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
