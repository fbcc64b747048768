"""`yarn logs` in the ResourceManager's pod: slow to start, but it works wherever YARN does.

Each start of the program takes seconds, so all files that a command will ask for come by one.
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
from replayctl.errors import NotFound, OperationFailed, RemoteCommandFailed, ReplayctlError
from replayctl.logs.stream import LogFile, Piece, read_pieces

_LISTING_TIMEOUT_S = 120.0
_CHUNK = 1 << 18
_LISTED = re.compile(r"Container: (?P<container>container_\w+) on (?P<node>\S+)")
_LISTED_FILE = re.compile(r"^\s*(?P<name>[A-Za-z0-9][\w.-]*)\s+(?P<size>[0-9]+)\s+\w{3} \w{3} ")


class Execute(Protocol):
    """Runs a program in the ResourceManager's pod; RemoteCommandFailed with its last words when it fails."""

    def __call__(self, argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        """Its stdout goes to `on_stdout` as it comes."""


class LogProgram:
    """Logs by YARN's own program. Use it as a context manager: what waits for its turn lies in temporary files."""

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
        """All log files that YARN has gathered; NotFound when there are none, with the program's words."""
        text = bytearray()
        try:
            self._execute([*_command(app), "-show_container_log_info"], text.extend, timeout_s=_LISTING_TIMEOUT_S)
        except RemoteCommandFailed as error:
            raise NotFound(f"`yarn logs` has none of {app.id}", details=error.details) from error
        files: list[LogFile] = []
        container = node = ""
        for line in text.decode("utf-8", "replace").split("\n"):
            if header := _LISTED.search(line):
                container, node = header["container"], header["node"]
            elif container and (row := _LISTED_FILE.match(line)):
                files.append(LogFile(container, node, row["name"], int(row["size"]), running=False))
        return files

    def expect(self, app: Application, files: Sequence[LogFile], again: Sequence[LogFile], tail: int | None) -> None:
        """Says which files will be read, and which of them more than once, so that one start of the program does."""
        if len(files) > 1 or again or tail is not None:
            self._expected = _Expected(app, tuple(files), frozenset(map(_key, again)), tail)

    def pieces(self, app: Application, file: LogFile, tail: int | None) -> Iterator[Piece]:
        """One file's bytes as they come; with `tail` at most so many of its last ones."""
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
    """What one start of the program is to bring."""

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
    """Files of one stream in any order: those whose turn has not come are kept on disk, and those read again.

    Not more than once through: a file that was read and is not kept is had by a start of its own.
    """

    def __init__(self, expected: _Expected, stream: Iterator[Piece], folder: Path) -> None:
        self._expected = expected
        self._stream = stream
        self._folder = folder
        self._keys = frozenset(map(_key, expected.files))
        self._lengths: dict[tuple[str, str], int] = {}
        self._stored: dict[tuple[str, str], Path] = {}
        self._gone: set[tuple[str, str]] = set()

    def has(self, app: Application, file: LogFile, tail: int | None) -> bool:
        """Whether it can still give the file's bytes, as many as are asked for."""
        key = _key(file)
        whole = self._expected.tail is None or file.size <= self._expected.tail
        enough = whole or (tail is not None and self._expected.tail is not None and tail <= self._expected.tail)
        return app.id == self._expected.app.id and key in self._keys - self._gone and enough

    def pieces(self, file: LogFile, tail: int | None) -> Iterator[Piece]:
        """The file's bytes, from disk or as they come. Raises NotFound when the stream ends without it."""
        key = _key(file)
        if key not in self._stored:
            if key not in self._expected.again and tail == self._expected.tail:
                self._gone.add(key)
                yield from self._coming(key)
                return
            for _ in self._coming(key, store=True):
                pass
        yield from self._from_disk(key, tail)

    def _coming(self, key: tuple[str, str], *, store: bool = False) -> Iterator[Piece]:
        for piece in self._stream:
            place = (piece.container, piece.file)
            if place == key and not store:
                yield piece
            elif place in self._keys - self._gone:
                self._keep(place, piece)
            if place == key and piece.last:
                return
        raise NotFound(f"`yarn logs` has no {key[1]} of {key[0]}")

    def _keep(self, key: tuple[str, str], piece: Piece) -> None:
        path = self._folder / f"{key[0]}.{key[1]}"
        with path.open("wb" if piece.first else "ab") as file:
            file.write(piece.data)
        if piece.last:
            self._stored[key], self._lengths[key] = path, piece.length

    def _from_disk(self, key: tuple[str, str], tail: int | None) -> Iterator[Piece]:
        path, length = self._stored[key], self._lengths[key]
        with path.open("rb") as file:
            size = path.stat().st_size
            left = size if tail is None else min(tail, size)
            file.seek(size - left)
            first = True
            while first or left:
                data = file.read(min(_CHUNK, left))
                left -= len(data)
                yield Piece(key[0], key[1], length, data, first=first, last=not left)
                first = False


def _key(file: LogFile) -> tuple[str, str]:
    return (file.container, file.name)


def _command(app: Application) -> list[str]:
    # Who owns an application that is forgotten, the program finds out by itself.
    owner = ["-appOwner", app.user] if app.user else []
    return ["yarn", "logs", "-applicationId", application_id(app.id), *owner]


def _chunks(execute: Execute, argv: list[str]) -> Generator[bytes]:
    """A program's stdout in chunks; a few of them wait at most, so that a slow reader holds the program back."""
    chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
    failed: list[ReplayctlError] = []
    unwanted = threading.Event()

    def take(data: bytes) -> None:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                chunks.put(data, timeout=0.5)
                return
        raise OperationFailed("nobody reads any more")

    def work() -> None:
        try:
            execute(argv, take)
        except ReplayctlError as error:
            failed.append(error)
        finally:
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
        unwanted.set()
