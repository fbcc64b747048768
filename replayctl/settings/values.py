"""Converts text or YAML to the value of a setting. Each function raises a ValueError that says what was expected."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayctl.console.secret import Secret


class NotTextError(ValueError):
    """YAML has read a value that should be text as another type."""


def to_text(value: Any) -> str:
    """One line of text that is not blank; NotTextError for what YAML has read as a number, a date or a truth value."""
    text = _to_lines(value)
    odd = re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text)
    if odd is None:
        return text
    what = "a line end" if odd.group() in "\r\n" else "a byte that is not UTF-8" if odd.group() >= "\ud800" else None
    raise ValueError(f"has {what or f'the control character {odd.group()!r}'} in it, expected one line of text")


def _to_lines(value: Any) -> str:
    if value is None:
        raise ValueError("is empty; leave the line out to keep the default")
    if isinstance(value, (dict, list)):
        raise ValueError("is a mapping or a list, expected text")
    if not isinstance(value, str):
        raise NotTextError
    if not value.strip():
        raise ValueError("is empty")
    return value


def to_secret(value: Any) -> Secret:
    """Text that is never shown."""
    return Secret(to_text(value))


def to_path(value: Any) -> Path:
    """A path, with `~` for the home folder."""
    text = to_text(value)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"is {text!r}, but that user's home folder does not exist") from None


def to_folder(value: Any) -> Path | str:
    """A path, with `~` for the home folder, or an hdfs:// address without a slash at its end."""
    text = to_text(value)
    if "://" not in text:
        return to_path(text)
    address = text.rstrip("/")
    if not re.fullmatch(r"hdfs://[^/\s]*(/[^/\s]+)+", address) or {".", ".."} & set(address.split("/")):
        raise ValueError(f"is {value!r}, expected a path or hdfs://NAMENODE:PORT/FOLDER")
    return address


def to_source(value: Any) -> Path | str:
    """An address, or a path with `~` for the home folder."""
    text = to_text(value)
    return text if "://" in text else to_path(text)


def to_paths(value: Any) -> tuple[Path, ...]:
    """A path in each line."""
    return tuple(to_path(line.strip()) for line in _to_lines(value).splitlines() if line.strip())


def to_names(value: Any) -> tuple[str, ...]:
    """The name of a Kubernetes object in each line."""
    names = tuple(line.strip() for line in _to_lines(value).splitlines() if line.strip())
    for name in names:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
            raise ValueError(f"has the line {name!r}, expected the name of a Kubernetes object")
    return names


def to_version(value: Any) -> str:
    """A version of two numbers; only text, since YAML reads 3.10 as the number 3.1."""
    version = to_text(value)
    if not re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", version):
        raise ValueError(f"is {value!r}, expected two numbers in quotes, such as '3.11'")
    return version


def to_number(value: Any) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"is {value!r}, expected a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"is {value!r}, expected a number") from None
    except OverflowError:
        raise ValueError("is too large") from None
    if not 0 < number < float("inf"):
        raise ValueError(f"is {value!r}, expected a number above 0")
    return number


def to_count(value: Any) -> int:
    """A whole number above 0."""
    number = to_number(value)
    if number != int(number):
        raise ValueError(f"is {value!r}, expected a whole number")
    return int(number)


@dataclass(frozen=True, slots=True)
class PodSize:
    """What a pod requests: cores, and memory in GiB."""

    cores: int
    memory_gib: int

    def __str__(self) -> str:
        return f"{self.cores}/{self.memory_gib}"


def to_pod_size(value: Any) -> PodSize:
    """`CORES/GIB`."""
    text = to_text(value)
    match = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,4})", text)
    if match is None:
        raise ValueError(f"is {text!r}, expected cores and GiB of memory as CORES/GIB, such as 6/30")
    return PodSize(int(match[1]), int(match[2]))


def to_port(value: Any) -> int:
    """A TCP port."""
    port = to_count(value)
    if port > 65535:
        raise ValueError(f"is {value!r}, expected a port from 1 to 65535")
    return port


def to_mode(value: Any) -> str:
    """Permissions as octal text, not writable for everybody."""
    # Only text: YAML reads 0664 as the number 436.
    octal = to_text(value)
    if not re.fullmatch(r"[0-7]{3,4}", octal):
        raise ValueError(f"is {value!r}, expected octal permissions in quotes, such as '664'")
    if int(octal, 8) & 0o002:
        raise ValueError(
            f"is {value!r}, which would let everybody change code that runs with the cluster's permissions"
        )
    return octal


def to_engine(value: Any) -> str:
    """`embedded` or `spark`."""
    text = to_text(value)
    if text not in ("embedded", "spark"):
        raise ValueError(f"is {value!r}, expected embedded or spark")
    return text


def to_ssh_client(value: Any) -> str:
    """`auto`, `openssh` or `fabric`."""
    text = to_text(value)
    if text not in ("auto", "openssh", "fabric"):
        raise ValueError(f"is {value!r}, expected auto, openssh or fabric")
    return text


def to_flag(value: Any) -> bool:
    """`true` or `false`."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise ValueError(f"is {value!r}, expected true or false")


def to_store(value: Any) -> str:
    """`folder` or `hdfs`."""
    text = to_text(value)
    if text not in ("folder", "hdfs"):
        raise ValueError(f"is {value!r}, expected folder or hdfs")
    return text


def to_url(value: Any) -> str:
    """An http or https address without a slash at its end."""
    url = to_text(value).rstrip("/")
    if not re.match(r"https?://[^/\s]+", url) or not _has_address(url):
        raise ValueError(f"is {value!r}, expected http://host:port or https://…")
    return url


def to_filesystem(value: Any) -> str:
    """The address of an HDFS without a path, such as `hdfs://namenode:9000` or `hdfs://nameservice`."""
    address = to_text(value).rstrip("/")
    if not re.fullmatch(r"hdfs://[A-Za-z0-9._-]+(:[0-9]{1,5})?", address) or not _has_address(address):
        raise ValueError(f"is {value!r}, expected hdfs://host:port or hdfs://nameservice")
    return address


def to_hdfs_folder(value: Any) -> str:
    """An absolute folder in HDFS, without a scheme and a slash at its end."""
    folder = to_text(value).rstrip("/")
    # What WebHDFS, Spark's lists and YARN's links read otherwise stays out of paths.
    names = folder.split("/")[1:]
    if not folder.startswith("/") or not all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names):
        raise ValueError(
            f"is {value!r}, expected an absolute path of letters, digits, '_', '.' and '-', such as /shared"
        )
    if any(set(name) == {"."} for name in names):
        raise ValueError(f"is {value!r}, expected a path without '.' and '..'")
    return folder


def _has_address(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def to_servers(value: Any) -> dict[str, str]:
    """`NAME=URL` in each line."""
    servers = {}
    for line in filter(None, (line.strip() for line in _to_lines(value).splitlines())):
        name, separator, url = line.partition("=")
        if not separator or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name.strip()):
            raise ValueError(f"has the line {line!r}, expected NAME=http://host:port")
        servers[name.strip()] = to_url(url.strip())
    return servers


def to_outage(value: Any) -> str:
    """`fail` or `continue`."""
    text = to_text(value)
    if text not in ("fail", "continue"):
        raise ValueError(f"is {text!r}, expected fail or continue")
    return text


def to_properties(value: Any) -> dict[str, str]:
    """`NAME=VALUE` in each line, as in spark-defaults.conf."""
    properties = {}
    for line in filter(None, (line.strip() for line in _to_lines(value).splitlines())):
        name, separator, text = line.partition("=")
        if not separator or not re.fullmatch(r"spark\.[A-Za-z0-9._-]+", name.strip()):
            raise ValueError(f"has the line {line!r}, expected spark.NAME=VALUE")
        properties[name.strip()] = text.strip()
    return properties
