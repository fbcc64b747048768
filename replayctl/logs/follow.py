"""Follows the logs of a running application: each byte is shown once and none is omitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

from replayctl.clients.patience import wait_until
from replayctl.clients.resource_manager import Application, forgotten
from replayctl.clients.waiting import Waiting
from replayctl.console.events import Reporter
from replayctl.errors import NotFound, NotReady, OperationFailed, RemoteCommandFailed, TimedOut, Unreachable
from replayctl.logs.sources import Yarn
from replayctl.logs.stream import LogFile
from replayctl.logs.view import LogSelection, last_lines

_LOOK_EVERY_S = 1.0
# Growth of a log between two requests that needs no third request.
_GROWTH = 1 << 16
_LONGEST_LINE = 1 << 20
# How long the ResourceManager may be unavailable. One that has forgotten the application is available.
_AWAY_FOR_S = 300.0
_AWAY = (NotReady, OperationFailed, TimedOut, Unreachable)
# A container that has not started or has just ended; its logs are aggregated at the end.
_PASSING = (*_AWAY, NotFound, RemoteCommandFailed)


@dataclass
class _Progress:
    """How many bytes of a log file were read, and its incomplete last line."""

    seen: int = 0
    incomplete: bytearray = field(default_factory=bytearray)


def follow(
    cluster: Yarn,
    app: Application,
    selection: LogSelection,
    write: Callable[[bytes, bool], None],
    reporter: Reporter,
    *,
    raw: bool,
    wait_s: float,
) -> Application:
    """Show new log lines while the application runs, then the rest once YARN has aggregated it.

    With `selection.tail`, each log file begins with that many of its last lines. Returns the final application.
    """
    following = _Following(cluster, selection, write, reporter, app, raw=raw, wait_s=wait_s)
    ended = wait_until(following.look, poll_s=_LOOK_EVERY_S, reporter=reporter, away=_AWAY, away_for_s=_AWAY_FOR_S)
    following.show(ended)
    following.show_incomplete_lines()
    return ended


@dataclass
class _Following:
    """What was shown of an application's logs so far."""

    cluster: Yarn
    selection: LogSelection
    write: Callable[[bytes, bool], None]
    reporter: Reporter
    app: Application
    _: KW_ONLY
    raw: bool
    wait_s: float
    progress: dict[tuple[str, str], _Progress] = field(default_factory=dict)
    reported: Waiting | None = None

    def look(self) -> Application | None:
        """Shows what is new while the application runs; once it has ended, returns it."""
        try:
            self.app = app = self.cluster.manager.application(self.app.id)
        except NotFound as error:
            # A restarted ResourceManager has forgotten all applications and ends their containers.
            self.reporter.step(f"{error}, so the application has ended; showing its aggregated logs")
            return forgotten(self.app.id, self.app)
        if app.is_final:
            return app
        if app.is_waiting and app.waits_for is not None and app.waits_for != self.reported:
            self.reported = app.waits_for
            self.reporter.step(f"{app.id} is waiting: {self.reported}")
        self.show(app)
        return None

    def show(self, app: Application) -> None:
        """Shows all that is new; what a running application lacks for the moment is no error."""
        files = _files(self.cluster, app, self.selection, self.reporter, wait_s=self.wait_s)
        unread = max((_unread_bytes(file, self.progress) for file in files), default=0)
        self.cluster.expect(app, files, tail=_GROWTH + unread)
        for file in files:
            try:
                for data in _new_bytes(self.cluster, app, file, self.selection, self.progress):
                    self.write(data, self.raw)
            except _PASSING as error:
                if app.is_final:
                    raise
                self.reporter.status(f"waiting: {error}")

    def show_incomplete_lines(self) -> None:
        """Shows last lines without an end, of logs that do not grow any more."""
        for state in self.progress.values():
            if state.incomplete and self.selection.has_line(bytes(state.incomplete)):
                self.write(bytes(state.incomplete), self.raw)


def _files(
    cluster: Yarn, app: Application, selection: LogSelection, reporter: Reporter, *, wait_s: float
) -> Sequence[LogFile]:
    if app.is_waiting and app.am_container is None:
        reporter.status(f"waiting until {app.id} starts")
        return []
    try:
        files = cluster.files(app, wait_s=wait_s if app.is_final else 0, driver_only=selection.driver_only)
    except _PASSING as error:
        if app.is_final:
            raise
        reporter.status(f"waiting: {error}")
        return []
    try:
        return selection.of(files, app)
    except NotFound:
        # Not yet, or never: an application may end without output.
        return []


def _unread_bytes(file: LogFile, progress: Mapping[tuple[str, str], _Progress]) -> int:
    known = progress.get((file.container, file.name))
    return file.size - known.seen if known and known.seen <= file.size else file.size


def _new_bytes(
    cluster: Yarn,
    app: Application,
    file: LogFile,
    selection: LogSelection,
    progress: dict[tuple[str, str], _Progress],
) -> Iterator[bytes]:
    state = progress.get((file.container, file.name))
    if state is None:
        state = _Progress()
        if selection.tail is not None and file.size:
            text, length = last_lines(cluster, app, file, selection.tail)
            state.seen = length - len(text)
            # The file may have grown since it was listed.
            file = replace(file, size=length)
        progress[file.container, file.name] = state
    if file.size < state.seen:
        # The log was rolled over.
        state.seen = 0
        state.incomplete.clear()
    if file.size == state.seen:
        return
    for data in _since(cluster, app, file, state.seen):
        state.seen += len(data)
        if selection.pattern is None:
            yield data
            continue
        state.incomplete += data
        *lines, rest = state.incomplete.split(b"\n")
        if len(rest) > _LONGEST_LINE:
            # A line that does not fit into memory is cut.
            lines.append(rest)
            rest = bytearray()
        state.incomplete = rest
        yield from (bytes(line) + b"\n" for line in lines if selection.has_line(bytes(line)))


def _since(cluster: Yarn, app: Application, file: LogFile, start: int) -> Iterator[bytes]:
    """The bytes of a log file from an offset on. YARN only serves the last bytes of a file, with its length."""
    tail, growth = file.size - start + _GROWTH, _GROWTH
    while True:
        skip: int | None = None
        for piece in cluster.pieces(app, file, tail=tail):
            if skip is None:
                first = max(0, piece.length - tail)
                if first > start:
                    # Request more each time to catch up with a log that grows fast.
                    growth *= 4
                    tail = piece.length - start + growth
                    break
                skip = start - first
            data, skip = piece.data[skip:], max(0, skip - len(piece.data))
            if data:
                yield data
        else:
            return
