"""Entries of kubeconfig files: typed values, and files beside the one that names them."""

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
    """One named cluster, user or context of a kubeconfig, and the file that it stands in."""

    kind: str
    name: str
    values: Mapping[str, Any]
    path: Path

    def __str__(self) -> str:
        return f"{self.path}: {self.kind} {self.name!r}"

    def text(self, key: str) -> str | None:
        """A text; None where it is missing or empty. SettingsError for anything else, which is not repeated."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise SettingsError(f"{self}: {key} is not a text", hint="put it in quotes")
        return value or None

    def flag(self, key: str) -> bool:
        """A boolean, false where it is missing. SettingsError for anything else, `"false"` in quotes among it."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise SettingsError(f"{self}: {key} is neither true nor false")
        return bool(value)

    def texts(self, key: str) -> list[str]:
        """A list of texts, empty where it is missing."""
        value = self.values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise SettingsError(f"{self}: {key} is not a list of texts")
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        """A mapping, empty where it is missing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise SettingsError(f"{self}: {key} is not a mapping")
        return value or {}

    def file(self, key: str) -> Path | None:
        """The file that a key names, relative to the kubeconfig's own folder."""
        name = self.text(key)
        return self.path.parent / name if name else None

    def content(self, key: str) -> bytes | None:
        """Bytes that stand in the kubeconfig itself (`key-data`, which comes first) or in another file (`key`)."""
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
