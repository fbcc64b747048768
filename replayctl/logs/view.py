"""What of an application's logs is shown: which files, which lines, and their probable cause."""

from __future__ import annotations

import codecs
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from replayctl.clients.resource_manager import Application
from replayctl.console.bars import last_state
from replayctl.errors import NotFound, OperationFailed, UsageProblem
from replayctl.logs.diagnose import Cause, Diagnosis, add_diagnostics
from replayctl.logs.sources import Yarn
from replayctl.logs.stream import LogFile

# A guess at a line's length; doubled until there are lines enough.
_LINE_BYTES = 200
# Where asking again is dear.
_LONG_LINE_BYTES, _LEAST_TAIL = 1000, 1 << 16
_LONGEST_LINE = 1 << 20
_MOST_CAUSES = 3


@dataclass(frozen=True, slots=True)
class LogSelection:
    """Which containers, files and lines: the driver's unless others are asked for.

    A `pattern` is looked for in what a screen shows of a line.
    """

    container: str | None
    executors: bool
    every: bool
    names: tuple[str, ...]
    tail: int | None
    pattern: re.Pattern[bytes] | None

    def has_line(self, line: bytes) -> bool:
        """Whether the line is wanted."""
        return self.pattern is None or bool(self.pattern.search(last_state(line)))

    @property
    def driver_only(self) -> bool:
        """Whether it is the driver's container alone."""
        return self.container is None and not self.executors and not self.every

    def of(self, files: Sequence[LogFile], app: Application) -> list[LogFile]:
        """The chosen ones of an application's files; NotFound that says what there is instead."""
        driver = app.am_container
        found = [each for each in files if each.name in self.names and self._has(each.container, driver)]
        # In the order in which they were asked for, container by container.
        found.sort(key=lambda each: (each.container != driver, each.container, self.names.index(each.name)))
        if not found:
            there = sorted({each.name for each in files})
            containers = sorted({each.container for each in files})
            raise NotFound(
                f"{app.id} has no such log; files: {', '.join(there)}",
                hint=f"containers: {', '.join(containers[:5])}; see: replayctl yarn-logs {app.id} --list",
            )
        return found

    def _has(self, container: str, driver: str | None) -> bool:
        if self.container is not None:
            return container == self.container
        return self.every or ((container != driver) if self.executors else (container == driver))


def pattern(text: str) -> re.Pattern[bytes]:
    """A regular expression over lines; UsageProblem for one that is none."""
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise UsageProblem(f"{text!r} is no regular expression: {error}") from error


def shown(cluster: Yarn, app: Application, files: Sequence[LogFile], wanted: LogSelection) -> Iterator[bytes]:
    """The files one after the other, each with its name in front where there are several."""
    expect(cluster, app, files, wanted)
    for file in files:
        if len(files) > 1:
            yield f"==> {file.container} {file.name} ({file.size} bytes) <==\n".encode()
        yield from content(cluster, app, file, wanted)


def expect(cluster: Yarn, app: Application, files: Sequence[LogFile], wanted: LogSelection) -> None:
    """Says what will be read of the files."""
    tail = None if wanted.tail is None else max(_LEAST_TAIL, wanted.tail * _LONG_LINE_BYTES)
    cluster.expect(app, files, tail=tail)


def content(cluster: Yarn, app: Application, file: LogFile, wanted: LogSelection) -> Iterator[bytes]:
    """One file's bytes, or only the lines that are wanted of it. Memory stays flat."""
    if wanted.tail is not None:
        chunks: Iterator[bytes] = iter([last_lines(cluster, app, file, wanted.tail)[0]])
    else:
        chunks = (piece.data for piece in cluster.pieces(app, file))
    if wanted.pattern is None:
        yield from chunks
        return
    for line in _lines(chunks):
        if wanted.has_line(line):
            yield line


def last_lines(cluster: Yarn, app: Application, file: LogFile, count: int) -> tuple[bytes, int]:
    """The last `count` lines of a file, in memory, and how many bytes the file has with them.

    A line ends with a line feed alone, as for tail: progress bars are one line. None are wanted of a file that is
    followed from its end.
    """
    size = max(1, count) * _LINE_BYTES
    while True:
        text, length = bytearray(), file.size
        for piece in cluster.pieces(app, file, tail=size):
            text += piece.data
            length = piece.length
        lines = re.findall(rb"[^\n]*\n|[^\n]+", text)
        # The first one may have lost its beginning.
        if len(lines) > count or len(text) < size or size >= length:
            return b"".join(lines[max(0, len(lines) - count) :]), length
        size *= 4


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their ends; one without an end is cut at a length that fits into memory."""
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


def causes(cluster: Yarn, app: Application, files: Sequence[LogFile], *, again: Sequence[LogFile] = ()) -> list[Cause]:
    """The probable causes of a failure, the most probable first, from all containers' stdout and stderr.

    Those `again` will be shown afterwards.
    """
    diagnosis = Diagnosis()
    outputs = [file for file in files if file.name in ("stdout", "stderr") and file.size]
    cluster.expect(app, [*outputs, *(file for file in again if file not in outputs)], again=again)
    for file in outputs:
        diagnosis.start_file(file.container, file.name)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for line in _lines(piece.data for piece in cluster.pieces(app, file)):
            diagnosis.feed(decoder.decode(last_state(line)))
    if app.diagnostics:
        add_diagnostics(diagnosis, app.diagnostics)
    return diagnosis.causes(limit=_MOST_CAUSES)


def save(
    cluster: Yarn, app: Application, files: Sequence[LogFile], target: str, wanted: LogSelection
) -> list[tuple[Path, int]]:
    """Writes the files: a single one into `target` itself unless that is a folder or ends like one, else below it.

    Returns paths and bytes. Each file is there whole or not at all. Raises OperationFailed when one cannot be written.
    """
    folder = Path(target)
    if len(files) == 1 and not target.endswith("/") and not folder.is_dir():
        return [(folder, _write(folder, content(cluster, app, files[0], wanted)))]
    expect(cluster, app, files, wanted)
    written = []
    for file in files:
        path = folder / app.id / f"{file.container}.{file.name}"
        written.append((path, _write(path, content(cluster, app, file, wanted))))
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
