"""Which forwards are meant, and those that run in the background, each noted with its process and addresses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from replayctl import process
from replayctl.errors import NotFound, OperationFailed, TimedOut, UsageProblem
from replayctl.forward import Listener
from replayctl.k8s import Kubernetes, parse_target
from replayctl.kubeconfig import find_cluster
from replayctl.settings import Settings, TargetSettings

AUTO = "auto"
_START_DEADLINE_S = 30.0
_STOP_DEADLINE_S = 10.0
# Pages that link to host names of the cluster all the time.
_WITH_LINKS = frozenset({"yarn", "history", "jobhistory", "hdfs"})
_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Background:
    """One process that forwards in the background: its addresses by name."""

    id: str
    pid: int
    started_unix_s: float
    profile: str
    addresses: Mapping[str, str]
    log: Path


def find_kubernetes(settings: Settings, environ: Mapping[str, str]) -> Kubernetes:
    """The profile's cluster; SettingsError when no kubeconfig tells how to reach it."""
    return Kubernetes(find_cluster(settings.kubernetes.kubeconfig, settings.kubernetes.context, environ))


def target_names(settings: Settings) -> dict[str, str]:
    """The services that the profile knows by name: name → target."""
    found = {each.name: getattr(settings.targets, each.name) for each in fields(TargetSettings)}
    # What names no port is there to run programs in.
    return {name: target for name, target in found.items() if target is not None and ":" in target}


def namespaces(settings: Settings) -> list[str]:
    """The namespaces of the profile's services: those that their pages link to."""
    given = (getattr(settings.targets, each.name) for each in fields(TargetSettings))
    return list(dict.fromkeys(parse_target(target).namespace for target in given if target is not None))


def direct_link(name: str, settings: Settings) -> str | None:
    """The address at which a page can be opened without a forward, where the profile names one."""
    link = getattr(settings.links, name, None)
    return link if isinstance(link, str) else None


def listeners(
    words: Sequence[str], settings: Settings, *, every: bool, port: str | None, links: bool | None
) -> list[Listener]:
    """What to forward: `NAME`, `NAMESPACE/KIND/NAME:PORT`, each with `=LOCAL_PORT` where another one is wanted.

    A local port is the target's own unless `port` says another one or `auto`. `links` says of all whether links of
    their pages lead through forwards; None leaves it to what the pages are. Raises UsageProblem for anything else.
    """
    known = target_names(settings)
    wanted = list(words) if words or not every else list(known)
    if not wanted:
        raise UsageProblem("forward what?", hint=f"name some of: {', '.join(known)}, or say --all")
    if port not in (None, AUTO) and len(wanted) > 1:
        raise UsageProblem("one --port for several targets", hint="write NAME=PORT for each, or --port auto")
    return [_listener(word, known, port, links) for word in wanted]


def _listener(word: str, known: Mapping[str, str], port: str | None, links: bool | None) -> Listener:
    name, _, own = word.partition("=")
    if name not in known and "/" not in name:
        raise UsageProblem(
            f"there is no target {name!r}", hint=f"known: {', '.join(known)}; or write NAMESPACE/KIND/NAME:PORT"
        )
    target = parse_target(known.get(name, name))
    if target.port is None:
        raise UsageProblem(f"{target} names no port", hint=f"write {target}:PORT")
    with_links = name in _WITH_LINKS if links is None else links
    local = own or port or (target.port if target.port.isdigit() else AUTO)
    if local == AUTO:
        return Listener(name, target, 0, with_links)
    if not local.isdigit() or not 0 < int(local) < 65536:
        raise UsageProblem(f"{local!r} is no port", hint=f"a number from 1 to 65535, or {AUTO}")
    return Listener(name, target, int(local), with_links)


def start(words: Sequence[str], options: Sequence[str], settings: Settings) -> Background:
    """Starts `port-forward` in the background and returns when its listeners are open.

    Raises OperationFailed with its last words when it ends instead, TimedOut when it says nothing.
    """
    import psutil

    folder = _folder(settings)
    name = secrets.token_hex(4)
    log = folder / f"{name}.log"
    argv = [sys.executable, "-m", "replayctl", "--profile", settings.profile, "--output", "json"]
    with process.signals_deferred():
        pid = process.spawn_detached(
            [*argv, "port-forward", *options, *words], env=os.environ, cwd=Path.cwd(), log_path=log
        )
        started = psutil.Process(pid).create_time()
    deadline = time.monotonic() + _START_DEADLINE_S
    while True:
        answer = _first_document(log)
        if answer is not None and answer.get("status") == "ok":
            break
        ended = answer is not None or not _runs(pid, started)
        if ended or time.monotonic() > deadline:
            _end(pid, started)
            log.unlink(missing_ok=True)
            raise _not_started(answer, ended)
        time.sleep(0.05)
    made = Background(name, pid, started, settings.profile, answer["data"]["forwards"], log)
    document = {"pid": pid, "started": started, "profile": made.profile, "addresses": dict(made.addresses)}
    temporary = folder / f"{name}.tmp"
    temporary.write_text(json.dumps(document), encoding="utf-8")
    temporary.rename(folder / f"{name}.json")
    return made


def running(settings: Settings) -> list[Background]:
    """The background forwards that run; notes of those that do not are cleared away."""
    found = []
    for path in sorted(_folder(settings).glob("*.json")):
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
            made = Background(
                path.stem,
                noted["pid"],
                noted["started"],
                noted["profile"],
                noted["addresses"],
                path.with_suffix(".log"),
            )
        except (OSError, ValueError, KeyError):
            continue
        if _runs(made.pid, made.started_unix_s):
            found.append(made)
        else:
            _forget(path)
    return found


def stop(names: Sequence[str], settings: Settings, *, every: bool, dry_run: bool = False) -> list[Background]:
    """Ends background forwards by id; NotFound for one that does not run."""
    there = {each.id: each for each in running(settings)}
    for name in names:
        if not _ID.fullmatch(name) or name not in there:
            raise NotFound(f"no background forward {name!r} runs", hint="list them: replayctl forwards list")
    if not names and not every:
        raise UsageProblem("stop which?", hint=f"name an id ({', '.join(there) or 'none runs'}), or say --all")
    chosen = [there[name] for name in names] if names else list(there.values())
    if not dry_run:
        for each in chosen:
            _end(each.pid, each.started_unix_s)
            _forget(_folder(settings) / f"{each.id}.json")
    return chosen


def _folder(settings: Settings) -> Path:
    folder = settings.state_dir / "forwards"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _forget(note: Path) -> None:
    note.unlink(missing_ok=True)
    note.with_suffix(".log").unlink(missing_ok=True)


def _first_document(log: Path) -> dict[str, Any] | None:
    """The first JSON document among what it has said; None while there is none, or only a part of it."""
    with contextlib.suppress(OSError, ValueError):
        text = log.read_text(encoding="utf-8", errors="replace")
        begin = 0 if text.startswith("{") else text.index("\n{") + 1
        return dict(json.JSONDecoder().raw_decode(text, begin)[0])
    return None


def _not_started(answer: Mapping[str, object] | None, ended: bool) -> OperationFailed | TimedOut:
    if not ended:
        return TimedOut(f"the forward did not open its ports within {_START_DEADLINE_S:.0f} s")
    errors = answer.get("errors") if answer else None
    first = errors[0] if isinstance(errors, list) and errors else {}
    return OperationFailed(first.get("message") or "the forward ended while it started", hint=first.get("hint"))


def _runs(pid: int, started: float) -> bool:
    """Whether that very process runs: its number may be another's by now."""
    import psutil

    try:
        found = psutil.Process(pid)
        return bool(abs(found.create_time() - started) < 1.0 and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _end(pid: int, started: float) -> None:
    import psutil

    if not _runs(pid, started):
        return
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid)
        found.terminate()
        try:
            found.wait(_STOP_DEADLINE_S)
        except psutil.TimeoutExpired:
            found.kill()
