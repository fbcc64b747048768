"""Entries of kubeconfig files, with typed access to their values and to the files they name."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayctl.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Entry:
    """One named cluster, user or context of a kubeconfig, with the path of its file."""

    kind: str
    name: str
    values: Mapping[str, Any]
    path: Path

    def __str__(self) -> str:
        return f"{self.path}: {self.kind} {self.name!r}"

    def text(self, key: str) -> str | None:
        """A string; None if it is missing or empty. Raises SettingsError, without the value, for anything else."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise SettingsError(f"{self}: {key} is not a string", hint="put it in quotes")
        return value or None

    def flag(self, key: str) -> bool:
        """A boolean, false if it is missing. Raises SettingsError for anything else, including a quoted `"false"`."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise SettingsError(f"{self}: {key} is neither true nor false")
        return bool(value)

    def texts(self, key: str) -> list[str]:
        """A list of strings, empty if it is missing."""
        value = self.values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise SettingsError(f"{self}: {key} is not a list of strings")
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        """A mapping, empty if it is missing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise SettingsError(f"{self}: {key} is not a mapping")
        return value or {}

    def file(self, key: str) -> Path | None:
        """The file that a key names, relative to the kubeconfig's folder."""
        name = self.text(key)
        return self.path.parent / name if name else None

    def content(self, key: str) -> bytes | None:
        """Bytes from the kubeconfig itself (`key-data`, which has priority) or from another file (`key`)."""
        if inline := self.text(f"{key}-data"):
            try:
                return base64.b64decode("".join(inline.split()), validate=True)
            except (binascii.Error, ValueError) as error:
                raise SettingsError(f"{self}: {key}-data is not base64") from error
        if (path := self.file(key)) is None:
            return None
        try:
            return path.read_bytes()
        except OSError as error:
            raise SettingsError(f"{self}: cannot read {key} {path}: {error.strerror}") from error
