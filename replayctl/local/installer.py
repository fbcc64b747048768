"""Makes virtual environments and installs pinned lists with uv, from the indexes that pip is configured for.

uv takes a fifth of pip's time, but does not read pip's configuration; who has set up a mirror, a proxy or a certificate
for pip should not have to do it twice.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path

from replayctl import process, shipped
from replayctl.errors import NotFound, RemoteCommandFailed, ReplayctlError, TimedOut

# Bounds the wait for a program that hangs.
_CONFIGURATION_DEADLINE_S = 20.0
# pip's option → uv's variable, and what separates several values there.
_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "client-cert": ("SSL_CLIENT_CERT", " "),
    "proxy": ("ALL_PROXY", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}
# In pip, a later one takes precedence.
_SECTIONS = ("global", "install", ":env:")


def cache_of_uv() -> Path | None:
    """uv's cache, which all projects of this user share; None if there is none, or no uv."""
    try:
        answer = process.run([shipped.uv_program(), "cache", "dir"], timeout_s=10.0)
    except ReplayctlError:
        return None
    folder = Path(answer.tail.strip())
    return folder if folder.is_dir() else None


def create(python: Path, path: Path, env: Mapping[str, str]) -> None:
    """A virtual environment of this Python, without pip; raises RemoteCommandFailed with uv's words."""
    argv = [shipped.uv_program(), "venv", "--quiet", "--clear", "--no-project", "--python", str(python), str(path)]
    process.run(argv, env=env, cwd=path.parent)


def install(
    python: Path,
    arguments: list[str],
    env: Mapping[str, str],
    *,
    configured_by: Path,
    without_cache: bool = False,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Installs packages without their dependencies into the environment of `python`.

    `configured_by` is a Python whose pip knows the indexes. With `without_cache`, uv's cache is not used, because its
    files may be hard links to those of a damaged environment. Raises RemoteCommandFailed with uv's message.
    """
    argv = [shipped.uv_program(), "pip", "install", "--no-deps", "--python", str(python)]
    if without_cache:
        argv.append("--no-cache")
    # A project's own configuration in the current folder must not count.
    cwd = python.parent
    process.run([*argv, *arguments], env={**pip_variables(configured_by), **env}, cwd=cwd, on_line=on_line)


def pip_variables(python: Path) -> dict[str, str]:
    """uv's variables for pip's configuration; empty if this Python has no pip."""
    try:
        listing = process.run([str(python), "-m", "pip", "config", "list"], timeout_s=_CONFIGURATION_DEADLINE_S).tail
    except (RemoteCommandFailed, NotFound, TimedOut):
        return {}
    return read_configuration(listing)


def read_configuration(listing: str) -> dict[str, str]:
    """The variables of uv for the answer of `pip config list`."""
    options: dict[str, str] = {}
    for section in _SECTIONS:
        for line in listing.splitlines():
            name, equals, value = line.partition("=")
            option = name.removeprefix(f"{section}.")
            if equals and option != name and option in _VARIABLES:
                options[option] = str(ast.literal_eval(value))
    variables = {}
    for option, value in options.items():
        variable, separator = _VARIABLES[option]
        # Some have a value that may contain spaces.
        several = option in ("extra-index-url", "find-links", "trusted-host")
        variables[variable] = separator.join(value.split()) if several else value
    if variables:
        # As pip: the best version of all indexes, not of the first that has the package.
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return variables
