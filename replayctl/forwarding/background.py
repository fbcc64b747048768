"""Forwards that run in the background; the process and addresses of each are recorded in a file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayctl import process
from replayctl.errors import NotFound, OperationFailed, ReplayctlError, TimedOut, UsageProblem, error_of
from replayctl.settings.declared import Settings

_START_DEADLINE_S = 30.0
_STOP_DEADLINE_S = 10.0
_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Background:
    """One background process with its forwards: addresses by name."""

    id: str
    pid: int
    started_s: float
    profile: str
    addresses: Mapping[str, str]
    log: Path


def start(words: Sequence[str], options: Sequence[str], settings: Settings) -> Background:
    """Starts `port-forward` in the background and returns when its listeners are open.

    Raises the process's error if it ends, TimedOut if it does not answer. An early end of this call, such as by Ctrl-C,
    also ends the process.
    """
    folder = _created_folder(settings)
    name = secrets.token_hex(4)
    log = folder / f"{name}.log"
    argv = [sys.executable, "-m", "replayctl", "--profile", settings.profile, "--output", "json"]
    pid, started = 0, 0.0
    try:
        with process.signals_deferred():
            pid = process.spawn_detached(
                [*argv, "port-forward", *options, *words], env=os.environ, cwd=Path.cwd(), log_path=log
            )
            started = process.start_of(pid)
        addresses = _wait_until_open(log, pid, started)
        background = Background(name, pid, started, settings.profile, addresses, log)
        document = {"pid": pid, "started": started, "profile": background.profile, "addresses": dict(addresses)}
        temporary = folder / f"{name}.tmp"
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.rename(folder / f"{name}.json")
    except BaseException:
        with process.signals_deferred():
            if pid:
                _end(pid, started)
            _forget(folder / f"{name}.json")
        raise
    return background


def _wait_until_open(log: Path, pid: int, started: float) -> Mapping[str, str]:
    """The addresses of the process's listeners, once they are open. Raises the error of `start`."""
    deadline = time.monotonic() + _START_DEADLINE_S
    while True:
        answer = _first_document(log)
        if answer is not None and answer.get("status") == "ok":
            addresses: Mapping[str, str] = answer["data"]["forwards"]
            return addresses
        ended = answer is not None or not _runs(pid, started)
        if ended or time.monotonic() > deadline:
            raise _not_started(answer, ended)
        time.sleep(0.05)


def running(settings: Settings) -> list[Background]:
    """The background forwards that are running; removes the records of those that are not."""
    backgrounds = []
    for path in sorted(_folder(settings).glob("*.json")):
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
            background = Background(
                path.stem,
                noted["pid"],
                noted["started"],
                noted["profile"],
                noted["addresses"],
                path.with_suffix(".log"),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if _runs(background.pid, background.started_s):
            backgrounds.append(background)
        else:
            _forget(path)
    return backgrounds


def stop(names: Sequence[str], settings: Settings, *, every: bool, dry_run: bool = False) -> list[Background]:
    """Stops background forwards by ID. Raises NotFound for one that is not running."""
    there = {background.id: background for background in running(settings)}
    for name in names:
        if not _ID.fullmatch(name) or name not in there:
            raise NotFound(f"forward {name!r} is not running", hint="run `replayctl forwards list` to list forwards")
    if not names and not every:
        raise UsageProblem(
            "no forward is selected", hint=f"pass an ID ({', '.join(there) or 'none is running'}), or --all"
        )
    selected = [there[name] for name in names] if names else list(there.values())
    if not dry_run:
        for background in selected:
            _end(background.pid, background.started_s)
            _forget(_folder(settings) / f"{background.id}.json")
    return selected


def _folder(settings: Settings) -> Path:
    return settings.state_dir / "forwards"


def _created_folder(settings: Settings) -> Path:
    folder = _folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OperationFailed(
            f"cannot create folder {folder}: {error.strerror}",
            hint="choose another folder: export REPLAYCTL_STATE_DIR=<folder>",
        ) from error
    return folder


def _forget(note: Path) -> None:
    # In a folder that has become read-only, they stay.
    with contextlib.suppress(OSError):
        note.unlink(missing_ok=True)
        note.with_suffix(".tmp").unlink(missing_ok=True)
        note.with_suffix(".log").unlink(missing_ok=True)


def _first_document(log: Path) -> dict[str, Any] | None:
    """The first JSON document in the log; None if there is none, or only a part of it."""
    with contextlib.suppress(OSError, ValueError):
        text = log.read_text(encoding="utf-8", errors="replace")
        begin = 0 if text.startswith("{") else text.index("\n{") + 1
        return dict(json.JSONDecoder().raw_decode(text, begin)[0])
    return None


def _not_started(answer: Mapping[str, object] | None, ended: bool) -> ReplayctlError:
    """The process's error, with the same class and exit code as in the foreground."""
    if not ended:
        return TimedOut(f"the forward did not open its ports within {_START_DEADLINE_S:.0f} s")
    errors = answer.get("errors") if answer else None
    problem = errors[0] if isinstance(errors, list) and errors else {}
    message = problem.get("message") or "the forward ended while it started"
    return error_of(problem.get("code"), message, hint=problem.get("hint"), details=problem.get("details"))


def _runs(pid: int, started: float) -> bool:
    """Whether this process is still running, and not another one with the same PID."""
    import psutil

    try:
        return process.start_of(pid) == started and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end(pid: int, started: float) -> None:
    import psutil

    if not _runs(pid, started):
        return
    with contextlib.suppress(psutil.Error):
        running = psutil.Process(pid)
        running.terminate()
        try:
            running.wait(_STOP_DEADLINE_S)
        except psutil.TimeoutExpired:
            running.kill()
