"""Checks that an environment is intact: its Python runs, and its packages match the pinned list."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

from replayctl import process
from replayctl.errors import ReplayctlError

_INTERPRETER_DEADLINE_S = 30.0
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*])?==([^\s;#]+)\s*(?:#.*)?")
_SHOWN = 3


def find_damage(python: Path, site_packages: Path, pinned: Path, inventory: Path, *, thorough: bool) -> str | None:
    """The damage of an environment in a few words; None when it is intact.

    Cheap: names and versions by the folders that pip writes, and the top of each package by the inventory that was
    written when the environment was created. `thorough` checks every file that pip has installed.
    """
    try:
        process.run([str(python), "-I", "-S", "-c", "pass"], timeout_s=_INTERPRETER_DEADLINE_S)
    except ReplayctlError as error:
        return f"its Python does not run: {error}"
    try:
        present = {path.name for path in site_packages.iterdir()}
    except OSError as error:
        return f"cannot read its packages: {error.strerror}"
    installed = _installed(present)
    mismatched = [name for name, version in read_pins(pinned).items() if installed.get(name) != version]
    if mismatched:
        return f"packages are missing or have another version: {_listed(mismatched)}"
    missing = sorted(_read_inventory(inventory) - present)
    if missing:
        return f"packages are missing: {_listed(missing)}"
    if thorough:
        missing = [str(path) for path in _recorded_files(site_packages) if not path.exists()]
        if missing:
            return f"files of packages are missing: {_listed(missing)}"
    return None


def write_inventory(site_packages: Path, inventory: Path) -> None:
    """Records the environment's top-level entries; raises OSError when the file cannot be written."""
    inventory.write_text(
        json.dumps(sorted(path.name for path in site_packages.iterdir() if path.name != "__pycache__"))
    )


def read_pins(pinned: Path) -> dict[str, str]:
    """Normalised name → version of a complete list; lines with environment markers are skipped."""
    pins = {}
    for line in pinned.read_text(encoding="utf-8").splitlines():
        pin = _PIN.fullmatch(line.strip())
        if pin:
            pins[_normalised(pin[1])] = pin[2]
    return pins


def _installed(entries: set[str]) -> dict[str, str]:
    """Normalised name → version by the names of pip's folders, `NAME-VERSION.dist-info`."""
    folders = (entry.removesuffix(".dist-info") for entry in entries if entry.endswith(".dist-info"))
    return {_normalised(name): version for name, _, version in (folder.rpartition("-") for folder in folders)}


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _read_inventory(inventory: Path) -> set[str]:
    """Empty for environments that were created before inventories existed."""
    try:
        return set(json.loads(inventory.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return set()


def _recorded_files(site_packages: Path) -> Iterator[Path]:
    for record in site_packages.glob("*.dist-info/RECORD"):
        with record.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.reader(file):
                # Bytecode may be missing, and entries outside are programs that are not used here.
                if row and "__pycache__" not in row[0] and not row[0].startswith((".", "/")):
                    yield site_packages / row[0]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
