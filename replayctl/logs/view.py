"""Shows logs of an application: selects files and lines, diagnoses them, and writes them to files."""

from __future__ import annotations

import codecs
import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from replayctl.clients.resource_manager import Application
from replayctl.console.bars import last_state
from replayctl.console.events import Reporter
from replayctl.errors import NotFound, OperationFailed, UsageProblem
from replayctl.logs.diagnose import Cause, Diagnosis, add_diagnostics
from replayctl.logs.sources import Yarn
from replayctl.logs.stream import LogFile

# An estimate of the length of a line; enlarged until enough lines have been read.
_LINE_BYTES = 200
# For sources where a second request is expensive.
_LONG_LINE_BYTES, _LEAST_TAIL = 1000, 1 << 16
_LONGEST_LINE = 1 << 20
_MOST_CAUSES = 3
Advance = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class LogSelection:
    """Which containers, log files and lines are shown; by default those of the driver.

    The `pattern` is matched with the last state of a line, as a terminal shows it.
    """

    container: str | None
    executors: bool
    every: bool
    names: tuple[str, ...]
    tail: int | None
    pattern: re.Pattern[bytes] | None

    def has_line(self, line: bytes) -> bool:
        """Whether the line is selected."""
        return self.pattern is None or bool(self.pattern.search(last_state(line)))

    @property
    def driver_only(self) -> bool:
        """Whether only the driver's container is selected."""
        return self.container is None and not self.executors and not self.every

    def of(self, files: Sequence[LogFile], app: Application) -> list[LogFile]:
        """The selected log files of an application. Raises NotFound that lists the existing ones."""
        driver = app.am_container
        selected = [file for file in files if file.name in self.names and self._has(file.container, driver)]
        # The driver first; within a container, in the order of `names`.
        selected.sort(key=lambda file: (file.container != driver, file.container, self.names.index(file.name)))
        if not selected:
            names = sorted({file.name for file in files})
            containers = sorted({file.container for file in files})
            raise NotFound(
                f"no log file of {app.id} matches {', '.join(self.names)}; it has {', '.join(names)} "
                f"in {', '.join(containers[:5])}{' …' if len(containers) > 5 else ''}",
                hint=f"run `replayctl yarn-logs {app.id} --list`",
            )
        return selected

    def _has(self, container: str, driver: str | None) -> bool:
        if self.container is not None:
            return container == self.container
        return self.every or ((container != driver) if self.executors else (container == driver))


def pattern(text: str) -> re.Pattern[bytes]:
    """A regular expression for lines. Raises UsageProblem for an invalid one."""
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise UsageProblem(f"{text!r} is not a regular expression: {error}") from error


def shown(cluster: Yarn, app: Application, files: Sequence[LogFile], selection: LogSelection) -> Iterator[bytes]:
    """The log files one after another; several get a heading each."""
    expect(cluster, app, files, selection)
    for file in files:
        if len(files) > 1:
            yield f"==> {file.container} {file.name} ({file.size} bytes) <==\n".encode()
        yield from content(cluster, app, file, selection)


def expect(cluster: Yarn, app: Application, files: Sequence[LogFile], selection: LogSelection) -> None:
    """Announces which parts of the log files will be read."""
    tail = None if selection.tail is None else max(_LEAST_TAIL, selection.tail * _LONG_LINE_BYTES)
    cluster.expect(app, files, tail=tail)


def content(
    cluster: Yarn, app: Application, file: LogFile, selection: LogSelection, advance: Advance | None = None
) -> Iterator[bytes]:
    """The bytes of one log file, or only its selected lines; `advance` counts those read. Memory use is bounded."""
    if selection.tail is not None:
        chunks: Iterator[bytes] = iter([last_lines(cluster, app, file, selection.tail)[0]])
    else:
        chunks = _counted(cluster, app, file, advance)
    if selection.pattern is None:
        yield from chunks
        return
    for line in _lines(chunks):
        if selection.has_line(line):
            yield line


def last_lines(cluster: Yarn, app: Application, file: LogFile, count: int) -> tuple[bytes, int]:
    """The last `count` lines of a log file, in memory, and the size of the file in bytes at that time.

    Only a line feed ends a line, as for tail, so a progress bar is one line. A `count` of 0 only gets the size.
    """
    size = max(1, count) * _LINE_BYTES
    while True:
        text, length = bytearray(), file.size
        for piece in cluster.pieces(app, file, tail=size):
            text += piece.data
            length = piece.length
        lines = re.findall(rb"[^\n]*\n|[^\n]+", text)
        # The first line may be incomplete.
        if len(lines) > count or len(text) < size or size >= length:
            return b"".join(lines[max(0, len(lines) - count) :]), length
        size *= 4


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their line feeds; a line that does not fit into memory is cut."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        *whole, rest = rest.split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(rest) > _LONGEST_LINE:
            yield rest + b"\n"
            rest = b""
    if rest:
        yield rest + b"\n"


def causes(
    cluster: Yarn, app: Application, files: Sequence[LogFile], reporter: Reporter, *, again: Sequence[LogFile] = ()
) -> list[Cause]:
    """The probable causes of a failure, most probable first, from stdout and stderr of all containers.

    The log files `again` are shown afterwards.
    """
    diagnosis = Diagnosis()
    outputs = [file for file in files if file.name in ("stdout", "stderr") and file.size]
    cluster.expect(app, [*outputs, *(file for file in again if file not in outputs)], again=again)
    total = sum(file.size for file in outputs)
    with reporter.progress(f"looking for the cause in {_count(outputs)}", total, "bytes") as advance:
        for file in outputs:
            diagnosis.start_file(file.container, file.name)
            decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
            for line in _lines(_counted(cluster, app, file, advance)):
                diagnosis.feed(decoder.decode(last_state(line)))
    if app.diagnostics:
        add_diagnostics(diagnosis, app.diagnostics)
    return diagnosis.causes(limit=_MOST_CAUSES)


def _counted(cluster: Yarn, app: Application, file: LogFile, advance: Advance | None) -> Iterator[bytes]:
    for piece in cluster.pieces(app, file):
        if advance is not None:
            advance(len(piece.data))
        yield piece.data


def _count(files: Sequence[LogFile]) -> str:
    return f"{len(files)} log file{'' if len(files) == 1 else 's'}"


def save(
    cluster: Yarn,
    app: Application,
    files: Sequence[LogFile],
    target: str,
    selection: LogSelection,
    reporter: Reporter,
) -> list[tuple[Path, int]]:
    """Write a single log file to `target`, or several below the folder `target`; a trailing slash marks a folder.

    Returns paths and sizes in bytes. Each file is written completely or not at all. Raises OperationFailed.
    """
    folder = Path(target)
    paths = [folder / app.id / f"{file.container}.{file.name}" for file in files]
    if len(files) == 1 and not target.endswith("/") and not folder.is_dir():
        paths = [folder]
    expect(cluster, app, files, selection)
    written = []
    with reporter.progress(f"saving {_count(files)}", sum(file.size for file in files), "bytes") as advance:
        for file, path in zip(files, paths, strict=True):
            written.append((path, _write(path, content(cluster, app, file, selection, advance))))
    return written


def _write(path: Path, chunks: Iterator[bytes]) -> int:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    size = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for chunk in chunks:
                size += file.write(chunk)
        os.replace(temporary, path)
    except OSError as error:
        raise OperationFailed(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return size
