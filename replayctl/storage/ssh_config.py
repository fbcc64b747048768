"""ssh's configuration for the library that replaces the ssh program: its files, and what they say about one host."""

from __future__ import annotations

import getpass
import glob
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from replayctl.errors import SettingsError

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_USER_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")
# As in ssh: files that include each other are an error.
_MOST_NESTED = 16
_SSH_PORT = 22
# `Keyword value` or `Keyword=value`.
_OPTION = re.compile(r"([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)")


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Where to connect: a host or an alias of the configuration; None leaves a value to the configuration."""

    host: str
    user: str | None
    port: int | None
    config: Path | None

    def __post_init__(self) -> None:
        for word in (self.host, self.user or ""):
            # ssh would read the first as an option; the others would end a line of its configuration.
            if word.startswith("-") or any(character.isspace() for character in word):
                raise SettingsError(f"ssh.host or ssh.user starts with '-' or contains a space: {word!r}")

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of ssh, without the configuration."""
        user = ("-l", self.user) if self.user else ()
        return (*user, *(("-p", str(self.port)) if self.port else ()), self.host)

    def __str__(self) -> str:
        return f"{f'{self.user}@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"


def config_files(own: Path | None) -> tuple[Path, ...]:
    """The existing files of a configuration: the user's and the system's.

    Raises SettingsError when the user's is set and not a file, or when one cannot be read.
    """
    path = own or Path.home() / ".ssh" / "config"
    if own is not None and not _is_readable(own):
        raise SettingsError(f"ssh.config is set to {own}, which is not a file")
    return tuple(path for path in (path, SYSTEM_CONFIG) if _is_readable(path))


def _is_readable(path: Path) -> bool:
    """Whether the configuration exists; SettingsError when it does and cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb"):
            return True
    except OSError as error:
        raise SettingsError(
            f"cannot read ssh's configuration {path}: {error.strerror}", hint=f"ls -l {shlex.quote(str(path))}"
        ) from error


@dataclass(frozen=True)
class HostOptions:
    """What the configuration says about one host, with ssh's defaults; `alias` is the name that was looked up."""

    alias: str
    user: str
    port: int
    options: Mapping[str, Any]

    @property
    def host(self) -> str:
        """The host name or address to connect to."""
        return str(self.options["hostname"])

    @property
    def name_of_key(self) -> str:
        """The name under which the host's key is recorded."""
        alias = self._option("hostkeyalias")
        if alias:
            return alias
        return self.host if self.port == _SSH_PORT else f"[{self.host}]:{self.port}"

    @property
    def known_hosts(self) -> tuple[Path, ...]:
        """The files of known host keys, the user's first."""
        user = self._paths("userknownhostsfile", _USER_KNOWN_HOSTS)
        return (*user, *self._paths("globalknownhostsfile", _SYSTEM_KNOWN_HOSTS))

    @property
    def own_known_hosts(self) -> Path | None:
        """The user's file of known host keys to which new ones belong; None when the configuration sets none."""
        return next(iter(self._paths("userknownhostsfile", _USER_KNOWN_HOSTS)), None)

    @property
    def revoked_keys(self) -> Path | None:
        """The file of revoked host keys, if one is set."""
        return next(iter(self._paths("revokedhostkeys", "none")), None)

    @cached_property
    def keys(self) -> tuple[Path, ...]:
        """The files of private keys to offer, of which some may not exist."""
        names = [str(name) for name in self.options.get("identityfile", ())]
        if not names:
            return tuple(Path.home() / ".ssh" / name for name in _DEFAULT_KEYS)
        return tuple(Path(name).expanduser() for name in names if name.lower() != "none")

    @property
    def only_these_keys(self) -> bool:
        """Whether an agent's other keys are not to be offered."""
        return self._option("identitiesonly") == "yes"

    @property
    def uses_agent(self) -> bool:
        """Whether an agent may be asked."""
        return str(self.options.get("identityagent", "")).lower() != "none"

    @property
    def jumps(self) -> tuple[str, ...]:
        """The jump hosts, in the order in which they are passed."""
        return tuple(jump.strip() for jump in (self._option("proxyjump") or "").split(",") if jump.strip())

    @property
    def proxy_command(self) -> str | None:
        """The command whose input and output are the connection. ProxyJump takes precedence, as it does in ssh."""
        return None if self.jumps else self._option("proxycommand")

    def _option(self, key: str) -> str | None:
        value = self.options.get(key)
        return None if value is None or str(value).lower() == "none" else str(value)

    def _paths(self, key: str, default: str) -> tuple[Path, ...]:
        try:
            names = shlex.split(str(self.options.get(key, default)))
        except ValueError as error:
            raise SettingsError(f"ssh's configuration has a malformed {key}: {error}") from error
        home = str(Path.home())
        return tuple(Path(name.replace("%d", home)).expanduser() for name in names if name.lower() != "none")


class SshConfig:
    """The configuration of one address and of the hosts on the way to it.

    Raises SettingsError when its files cannot be read or parsed.
    """

    def __init__(self, address: SshAddress) -> None:
        import paramiko

        # The first value of an option wins.
        own = [f"Host {address.host}"]
        own += [f"Port {address.port}"] if address.port else []
        own += [f"User {address.user}"] if address.user else []
        files = [_text(path, is_users=path != SYSTEM_CONFIG) for path in config_files(address.config)]
        try:
            self._parsed = paramiko.SSHConfig.from_text("\n".join([*own, "Host *", *files]))
        except paramiko.ConfigParseError as error:
            raise SettingsError(f"cannot parse ssh's configuration: {error}") from error

    def options_of(self, name: str) -> HostOptions:
        """What the configuration says about a host or an alias; a jump host may be named `user@host:port`."""
        import paramiko

        name = name.removeprefix("ssh://")
        user, _, host = name.rpartition("@")
        match = re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+):(\d+)", host)
        host, port = (match[1] or match[3], match[2] or match[4]) if match else (host, None)
        try:
            options = self._parsed.lookup(host)
            number = int(port or options.get("port", _SSH_PORT))
        except (paramiko.SSHException, ValueError, KeyError) as error:
            raise SettingsError(f"ssh's configuration of {host} is not usable: {error}") from error
        return HostOptions(host, user or options.get("user") or getpass.getuser(), number, options)


def _text(path: Path, *, is_users: bool, nested: int = 0) -> str:
    """A file's text with the files that it includes at its top level; it ends in a block for all hosts.

    paramiko does not know Include. One inside a block for some hosts would apply to these only, and is left out.
    """
    if nested > _MOST_NESTED:
        raise SettingsError(f"ssh's configuration {path} is included too deeply")
    lines = []
    is_top_level = True
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _OPTION.fullmatch(line.strip())
        keyword, rest = (match[1], match[2]) if match else ("", "")
        if keyword.lower() == "include" and rest.strip():
            if is_top_level:
                lines += [_text(file, is_users=is_users, nested=nested + 1) for file in _included(rest, is_users)]
            continue
        if keyword.lower() in ("host", "match"):
            is_top_level = rest.strip().lower() in ("*", "all")
        lines.append(line)
    return "\n".join([*lines, "Host *", ""])


def _included(words: str, is_users: bool) -> list[Path]:
    try:
        patterns = shlex.split(words)
    except ValueError as error:
        raise SettingsError(f"ssh's configuration has a malformed Include: {words.strip()}") from error
    base = Path.home() / ".ssh" if is_users else SYSTEM_CONFIG.parent
    paths = (path for pattern in patterns for path in sorted(glob.glob(str(base / Path(pattern).expanduser()))))
    return [path for path in map(Path, paths) if _is_readable(path)]
