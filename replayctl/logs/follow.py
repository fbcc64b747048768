"""The logs of an application while it is written: what is new at each look, nothing twice and nothing left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from replayctl.clients.resource_manager import Application, forgotten
from replayctl.clients.waiting import Waiting
from replayctl.console.events import Reporter
from replayctl.errors import NotFound, NotReady, OperationFailed, RemoteCommandFailed, TimedOut, Unreachable
from replayctl.logs.sources import Yarn
from replayctl.logs.stream import LogFile
from replayctl.logs.view import LogSelection, last_lines

_LOOK_EVERY_S = 1.0
# How much a log may grow between two questions without a third one.
_GROWTH = 1 << 16
_LONGEST_LINE = 1 << 20
# How long the ResourceManager may be away. One that does not know the application any more is not.
_AWAY_FOR_S = 300.0
_AWAY = (NotReady, OperationFailed, TimedOut, Unreachable)
# A container that is not there yet, or has just gone: at the end everything is gathered.
_PASSING = (*_AWAY, NotFound, RemoteCommandFailed)


@dataclass
class _Progress:
    """How many bytes of a file were seen, and the begun line that may still become one of those that are wanted."""

    seen: int = 0
    begun: bytearray = field(default_factory=bytearray)


def follow(
    cluster: Yarn,
    app: Application,
    wanted: LogSelection,
    write: Callable[[bytes, bool], None],
    reporter: Reporter,
    *,
    raw: bool,
    wait_s: float,
) -> Application:
    """Shows what is written while the application runs, then the rest once YARN has gathered it; its last state.

    With `wanted.tail` each file begins with so many of the lines that it has when it is seen first.
    """
    progress: dict[tuple[str, str], _Progress] = {}
    said: Waiting | None = None
    answered_at = time.monotonic()
    while True:
        try:
            app = cluster.manager.application(app.id)
            answered_at = time.monotonic()
        except NotFound as error:
            # A ResourceManager that begins anew has forgotten what ran, and its containers are ended.
            reporter.step(f"{error}, which it has ended if it was still running; its gathered logs follow")
            app = forgotten(app.id, app)
        except _AWAY as error:
            if time.monotonic() - answered_at > _AWAY_FOR_S:
                raise
            reporter.status(f"waiting: {error}")
            time.sleep(_LOOK_EVERY_S)
            continue
        if app.is_waiting and app.waits_for is not None and app.waits_for != said:
            said = app.waits_for
            reporter.step(f"{app.id} waits: {said}")
        files = _files(cluster, app, wanted, reporter, wait_s=wait_s)
        cluster.expect(app, files, tail=_GROWTH + max((_left(file, progress) for file in files), default=0))
        for file in files:
            try:
                for data in _news(cluster, app, file, wanted, progress):
                    write(data, raw)
            except _PASSING as error:
                if app.is_final:
                    raise
                reporter.status(f"waiting: {error}")
        if app.is_final:
            for each in progress.values():
                if each.begun and wanted.has_line(bytes(each.begun)):
                    write(bytes(each.begun), raw)
            return app
        time.sleep(_LOOK_EVERY_S)


def _files(
    cluster: Yarn, app: Application, wanted: LogSelection, reporter: Reporter, *, wait_s: float
) -> Sequence[LogFile]:
    if app.is_waiting and app.am_container is None:
        reporter.status(f"waiting until {app.id} starts")
        return []
    try:
        files = cluster.files(app, wait_s=wait_s if app.is_final else 0, driver_only=wanted.driver_only)
    except _PASSING as error:
        if app.is_final:
            raise
        reporter.status(f"waiting: {error}")
        return []
    try:
        return wanted.of(files, app)
    except NotFound:
        # Not yet, or never: an application may end without having said anything.
        return []


def _left(file: LogFile, progress: Mapping[tuple[str, str], _Progress]) -> int:
    known = progress.get((file.container, file.name))
    return file.size - known.seen if known and known.seen <= file.size else file.size


def _news(
    cluster: Yarn,
    app: Application,
    file: LogFile,
    wanted: LogSelection,
    progress: dict[tuple[str, str], _Progress],
) -> Iterator[bytes]:
    now = progress.get((file.container, file.name))
    if now is None:
        now = _Progress()
        if wanted.tail is not None and file.size:
            text, length = last_lines(cluster, app, file, wanted.tail)
            now.seen = length - len(text)
            # It may have grown since it was listed.
            file = replace(file, size=length)
        progress[file.container, file.name] = now
    if file.size < now.seen:
        # It began anew, as a log that is rolled does.
        now.seen = 0
        now.begun.clear()
    if file.size == now.seen:
        return
    for data in _since(cluster, app, file, now.seen):
        now.seen += len(data)
        if wanted.pattern is None:
            yield data
            continue
        now.begun += data
        *lines, rest = now.begun.split(b"\n")
        if len(rest) > _LONGEST_LINE:
            # In parts, like anything that does not fit into memory.
            lines.append(rest)
            rest = bytearray()
        now.begun = rest
        yield from (bytes(line) + b"\n" for line in lines if wanted.has_line(bytes(line)))


def _since(cluster: Yarn, app: Application, file: LogFile, start: int) -> Iterator[bytes]:
    """What a file has from a byte on. YARN only tells last bytes of a file that grows: its length comes with them."""
    tail, growth = file.size - start + _GROWTH, _GROWTH
    while True:
        skip: int | None = None
        for piece in cluster.pieces(app, file, tail=tail):
            if skip is None:
                first = max(0, piece.length - tail)
                if first > start:
                    # Ever more room, so that one which is written fast is caught up with.
                    growth *= 4
                    tail = piece.length - start + growth
                    break
                skip = start - first
            data, skip = piece.data[skip:], max(0, skip - len(piece.data))
            if data:
                yield data
        else:
            return
