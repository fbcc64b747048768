"""Whether an environment is still what was made: its Python runs, and its packages are those of the pinned list."""

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
    """What is wrong with an environment, in a few words; None when nothing is.

    Cheap: names and versions by the folders that pip writes, and the top of each package by the inventory that was
    written when the environment was made. `thorough` looks for every file that pip has installed.
    """
    try:
        process.run([str(python), "-I", "-S", "-c", "pass"], timeout_s=_INTERPRETER_DEADLINE_S)
    except ReplayctlError as error:
        return f"its Python does not run: {error}"
    try:
        present = {path.name for path in site_packages.iterdir()}
    except OSError as error:
        return f"its packages cannot be read: {error.strerror}"
    installed = _installed(present)
    wrong = [name for name, version in read_pins(pinned).items() if installed.get(name) != version]
    if wrong:
        return f"packages are missing or of another version: {_listed(wrong)}"
    missing = sorted(_read_inventory(inventory) - present)
    if missing:
        return f"packages are missing: {_listed(missing)}"
    if thorough:
        missing = [str(path) for path in _recorded_files(site_packages) if not path.exists()]
        if missing:
            return f"files of packages are missing: {_listed(missing)}"
    return None


def write_inventory(site_packages: Path, inventory: Path) -> None:
    """Notes what the environment holds at its top; OSError when that cannot be written."""
    inventory.write_text(
        json.dumps(sorted(path.name for path in site_packages.iterdir() if path.name != "__pycache__"))
    )


def read_pins(pinned: Path) -> dict[str, str]:
    """Normalised name → version of a complete list; lines that only some machines install are left out."""
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
    """Empty for an environment that was made before there were inventories."""
    try:
        return set(json.loads(inventory.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return set()


def _recorded_files(site_packages: Path) -> Iterator[Path]:
    for record in site_packages.glob("*.dist-info/RECORD"):
        with record.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.reader(file):
                # Bytecode comes and goes, and what lies outside is programs that nobody here calls.
                if row and "__pycache__" not in row[0] and not row[0].startswith((".", "/")):
                    yield site_packages / row[0]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
