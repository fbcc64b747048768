"""Runs `yarn logs` in the ResourceManager's pod: slow to start, but it works wherever YARN does.

Each run takes seconds to start, so one run serves all log files that a command reads.
"""

from __future__ import annotations

import contextlib
import queue
import re
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from replayctl.clients.resource_manager import Application, application_id, container_id, log_file
from replayctl.errors import NotFound, OperationFailed, RemoteCommandFailed
from replayctl.logs.stream import LogFile, Piece, read_pieces

_LISTING_TIMEOUT_S = 120.0
_CHUNK = 1 << 18
_LISTED = re.compile(r"Container: (?P<container>container_\w+) on (?P<node>\S+)")
_LISTED_FILE = re.compile(r"^\s*(?P<name>[A-Za-z0-9][\w.-]*)\s+(?P<size>[0-9]+)\s+\w{3} \w{3} ")


class Execute(Protocol):
    """Runs a program in the ResourceManager's pod. Raises RemoteCommandFailed with the end of its stderr."""

    def __call__(self, argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        """Pass stdout to `on_stdout` as it arrives."""


class LogProgram:
    """Logs from `yarn logs`. Use it as a context manager: it buffers log files in a temporary folder."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._open = contextlib.ExitStack()
        self._expected: _Expected | None = None
        self._download: _Download | None = None

    def __enter__(self) -> LogProgram:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def files(self, app: Application) -> list[LogFile]:
        """All aggregated log files. Raises NotFound with the program's stderr if there are none."""
        text = bytearray()
        try:
            self._execute([*_command(app), "-show_container_log_info"], text.extend, timeout_s=_LISTING_TIMEOUT_S)
        except RemoteCommandFailed as error:
            raise NotFound(f"`yarn logs` cannot find logs of {app.id}", details=error.details) from error
        files: list[LogFile] = []
        container = node = ""
        for line in text.decode("utf-8", "replace").split("\n"):
            if header := _LISTED.search(line):
                container, node = header["container"], header["node"]
            elif container and (row := _LISTED_FILE.match(line)):
                files.append(LogFile(container, node, row["name"], int(row["size"]), running=False))
        return files

    def expect(self, app: Application, files: Sequence[LogFile], again: Sequence[LogFile], tail: int | None) -> None:
        """Announce which log files will be read, and which of them twice, so that one run serves all of them."""
        if len(files) > 1 or again or tail is not None:
            self._expected = _Expected(app, tuple(files), frozenset(map(_key, again)), tail)

    def pieces(self, app: Application, file: LogFile, tail: int | None) -> Iterator[Piece]:
        """Stream the bytes of a log file; with `tail` at most that many of its last ones."""
        if not file.size:
            yield Piece(file.container, file.name, 0, b"", first=True, last=True)
            return
        if self._download is not None and self._download.has(app, file, tail):
            yield from self._download.pieces(file, tail)
            return
        if self._expected is not None and self._expected.has(app, file):
            expected, self._expected = self._expected, None
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="replayctl-logs-")))
            chunks = _chunks(self._execute, expected.command())
            self._open.callback(chunks.close)
            self._download = _Download(expected, read_pieces(chunks, tail=expected.tail), folder)
            if self._download.has(app, file, tail):
                yield from self._download.pieces(file, tail)
                return
        argv = [*_command(app), "-containerId", container_id(file.container), "-log_files", log_file(file.name)]
        argv += ["-size", str(-tail)] if tail else []
        yield from read_pieces(_chunks(self._execute, argv), tail=tail)


@dataclass(frozen=True, slots=True)
class _Expected:
    """The log files that one run of the program will serve."""

    app: Application
    files: tuple[LogFile, ...]
    again: frozenset[tuple[str, str]]
    tail: int | None

    def has(self, app: Application, file: LogFile) -> bool:
        return app.id == self.app.id and _key(file) in map(_key, self.files)

    def command(self) -> list[str]:
        names = ",".join(dict.fromkeys(log_file(file.name) for file in self.files))
        containers = {container_id(file.container) for file in self.files}
        one = ["-containerId", *containers] if len(containers) == 1 else []
        size = ["-size", str(-self.tail)] if self.tail else []
        return [*_command(self.app), *one, "-log_files", names, *size]


class _Download:
    """Log files of one stream in any order: files for later and files that are read twice are stored on disk.

    A file that was read and not stored needs another run of the program.
    """

    def __init__(self, expected: _Expected, stream: Iterator[Piece], folder: Path) -> None:
        self._expected = expected
        self._stream = stream
        self._folder = folder
        self._keys = frozenset(map(_key, expected.files))
        self._lengths: dict[tuple[str, str], int] = {}
        self._stored: dict[tuple[str, str], Path] = {}
        self._consumed: set[tuple[str, str]] = set()

    def has(self, app: Application, file: LogFile, tail: int | None) -> bool:
        """Whether it can still serve that many bytes of the log file."""
        key = _key(file)
        whole = self._expected.tail is None or file.size <= self._expected.tail
        enough = whole or (tail is not None and self._expected.tail is not None and tail <= self._expected.tail)
        return app.id == self._expected.app.id and key in self._keys - self._consumed and enough

    def pieces(self, file: LogFile, tail: int | None) -> Iterator[Piece]:
        """The bytes of the log file, from disk or from the stream. Raises NotFound if the stream lacks it."""
        key = _key(file)
        if key not in self._stored:
            if key not in self._expected.again and tail == self._expected.tail:
                self._consumed.add(key)
                yield from self._from_stream(key)
                return
            for _ in self._from_stream(key, store=True):
                pass
        yield from self._from_disk(key, tail)

    def _from_stream(self, key: tuple[str, str], *, store: bool = False) -> Iterator[Piece]:
        for piece in self._stream:
            place = (piece.container, piece.file)
            if place == key and not store:
                yield piece
            elif place in self._keys - self._consumed:
                self._store(place, piece)
            if place == key and piece.last:
                return
        raise NotFound(f"`yarn logs` cannot find log file {key[1]} of {key[0]}")

    def _store(self, key: tuple[str, str], piece: Piece) -> None:
        path = self._folder / f"{key[0]}.{key[1]}"
        with path.open("wb" if piece.first else "ab") as file:
            file.write(piece.data)
        if piece.last:
            self._stored[key], self._lengths[key] = path, piece.length

    def _from_disk(self, key: tuple[str, str], tail: int | None) -> Iterator[Piece]:
        path, length = self._stored[key], self._lengths[key]
        with path.open("rb") as file:
            size = path.stat().st_size
            remaining = size if tail is None else min(tail, size)
            file.seek(size - remaining)
            first = True
            while first or remaining:
                data = file.read(min(_CHUNK, remaining))
                remaining -= len(data)
                yield Piece(key[0], key[1], length, data, first=first, last=not remaining)
                first = False


def _key(file: LogFile) -> tuple[str, str]:
    return (file.container, file.name)


def _command(app: Application) -> list[str]:
    # The program finds the owner of a forgotten application itself.
    owner = ["-appOwner", app.user] if app.user else []
    return ["yarn", "logs", "-applicationId", application_id(app.id), *owner]


def _chunks(execute: Execute, argv: list[str]) -> Generator[bytes]:
    """A program's stdout in chunks. The queue is bounded, so that a slow reader slows the program down."""
    chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
    failed: list[Exception] = []
    stopped = threading.Event()

    def take(data: bytes) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                chunks.put(data, timeout=0.5)
                return
        raise OperationFailed("the reader has stopped")

    def work() -> None:
        try:
            execute(argv, take)
        except Exception as error:  # noqa: BLE001 - raised again by the reader, for which the log is cut
            failed.append(error)
        with contextlib.suppress(OperationFailed):
            take(b"")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while data := chunks.get():
            yield data
        thread.join()
        if failed:
            raise failed[0]
    finally:
        stopped.set()
