"""What a Python environment is made of, and the name that follows from it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from replayctl.bundle.package_files import ENVIRONMENT_SUFFIX, Runtime
from replayctl.bundle.python_list import environment_prefix
from replayctl.errors import SettingsError

# Change this to have all environments built again.
_RECIPE = "2"
_DIGITS = 12
# They come from Spark on the cluster: its jars are hundreds of megabytes, and its Python has to be of the same version.
FROM_SPARK = ("pyspark", "py4j")
STANDALONE = "standalone"
_STANDALONE = re.compile(r"(?P<source>.+)#sha256=(?P<sha256>[0-9a-f]{64})")


def version_of(text: str) -> tuple[int, ...]:
    """A version such as `2.28` as numbers, which compare as versions do."""
    return tuple(int(part) for part in text.split("."))


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Where the interpreter comes from: `files` are addresses or paths, each with its sha256.

    `glibc` is the C library that it requires, where that is known before it is unpacked.
    """

    kind: str
    files: tuple[tuple[str, str], ...]
    glibc: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """All inputs of one environment; `requirements` are pinned, as pip reads them."""

    requirements_file: Path
    requirements: tuple[str, ...]
    runtime: Runtime
    interpreter: Interpreter

    @property
    def inputs(self) -> str:
        """The sha256 of all inputs, in hex."""
        parts = {
            "recipe": _RECIPE,
            "requirements": self.requirements,
            "python": self.runtime.python,
            "glibc": self.runtime.glibc,
            "machine": self.runtime.machine,
            # Names of files without the mirror that they are fetched from; a standalone may be named in any way.
            "interpreter": [
                [Path(name).name if self.interpreter.kind != STANDALONE else STANDALONE, sha256]
                for name, sha256 in self.interpreter.files
            ],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """The archive's name: `environment_prefix`, and a digest of all inputs."""
        prefix = environment_prefix(self.requirements_file, self.requirements, self.runtime.python)
        return f"{prefix}{self.inputs[:_DIGITS]}{ENVIRONMENT_SUFFIX}"

    @property
    def packed(self) -> tuple[str, ...]:
        """The requirements that go into the archive."""
        return tuple(line for line in self.requirements if _name_of(line) not in FROM_SPARK)

    @property
    def from_spark(self) -> tuple[str, ...]:
        """The requirements that Spark brings."""
        return tuple(line for line in self.requirements if _name_of(line) in FROM_SPARK)


def parse_standalone(text: str) -> tuple[str, str]:
    """Address or path and sha256 of a standalone CPython; SettingsError for anything but `SOURCE#sha256=HEX`."""
    match = _STANDALONE.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"packages.standalone_python is {text!r}, expected URL#sha256=<64 hex digits>",
            hint="take a cpython-…-install_only.tar.gz of https://github.com/astral-sh/python-build-standalone",
        )
    return match["source"], match["sha256"]


def _name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", requirement.partition("==")[0]).lower()
