"""Stubs, the files that Airflow discovers: one per DAG module and owner. Each loads the published release."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from replayctl.bundle.release import STORE

_HEADER = re.compile(
    r"^# replayctl-stub: owner=(?P<owner>\S+) module=(?P<module>\S+) text=(?P<digest>[0-9a-f]+)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class StubHeader:
    """The owner and module of a stub; `edited` if its text differs from what was written."""

    owner: str
    module: str
    edited: bool


def stub_name(module: str, suffix: str) -> str:
    """File name of the stub of one DAG module: `dag_two_stage_scenarios_alice.py`."""
    return f"{module}{suffix}.py"


def stubs_of(modules: Iterable[str], suffix: str, owner: str) -> dict[str, str]:
    """The stubs of several modules: file name → text, in the order of the modules."""
    return {stub_name(module, suffix): stub_text(module, owner) for module in modules}


def read_header(text: str) -> StubHeader | None:
    """The header of a stub; None for a file that is not a stub."""
    match = _HEADER.search(text)
    if match is None:
        return None
    plain = text.replace(f" text={match['digest']}", " text=", 1)
    return StubHeader(match["owner"], match["module"], edited=_digest(plain) != match["digest"])


def is_edited(text: str) -> bool:
    """Whether a stub was edited by hand."""
    header = read_header(text)
    return header is not None and header.edited


def stub_text(module: str, owner: str) -> str:
    """The text of the stub of one DAG module; it does not depend on the release."""
    plain = _STUB.replace("@MODULE@", module).replace("@OWNER@", owner).replace("@STORE@", STORE)
    return plain.replace(" text=\n", f" text={_digest(plain)}\n", 1)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_STUB = '''\
"""Loads the DAGs of @MODULE@ from the release that is named in @STORE@/@OWNER@/current."""
# replayctl-stub: owner=@OWNER@ module=@MODULE@ text=
# Written by `replayctl sync-dags`, which detects edits by hand.
import importlib
import importlib.util
import sys
import types
from pathlib import Path

# The DAG processor imports in advance only what this file names.
import airflow.sdk


def _current_release(store):
    # A process that loads several stubs uses one release for all of them, even if another is published meanwhile,
    # and even before the first publish. When a stub is loaded again, a new pass begins.
    parse = sys.modules.setdefault("replayctl_pass_@OWNER@", types.SimpleNamespace(release=None, stubs=set()))
    is_removed = parse.release is not None and not (store / parse.release).is_dir()
    if is_removed or not parse.stubs or __file__ in parse.stubs:
        try:
            parse.release = (store / "current").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            # Not published yet, or withdrawn.
            parse.release = None
        parse.stubs = set()
    parse.stubs.add(__file__)
    return parse.release


def _release_dags():
    store = Path(__file__).parent / "@STORE@" / "@OWNER@"
    release = _current_release(store)
    if release is None:
        return {}
    writes_bytecode = sys.dont_write_bytecode
    # The release is read-only for Airflow, and no process may leave bytecode in it.
    sys.dont_write_bytecode = True
    try:
        if release not in sys.modules:
            folder = store / release
            spec = importlib.util.spec_from_file_location(
                release, folder / "__init__.py", submodule_search_locations=[str(folder)]
            )
            package = importlib.util.module_from_spec(spec)
            sys.modules[release] = package
            spec.loader.exec_module(package)
        return importlib.import_module(f"{release}.dag_release").load_dags("@MODULE@")
    finally:
        sys.dont_write_bytecode = writes_bytecode


globals().update(_release_dags())
'''
