"""Runs one command over a connection of paramiko's while data is sent to it: flat memory, and a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from replayctl.errors import TimedOut
from replayctl.process import Exchanged

_PACKET_BYTES = 32 * 1024
_READ_BYTES = 64 * 1024
_STDERR_BYTES = 20_000


class Deadline:
    """Closes a connection when its time is over, whatever waits for it then."""

    def __init__(self, transport: Any, limit_s: float) -> None:
        self._transport = transport
        self._limit_s = limit_s
        self._until = time.monotonic() + limit_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.is_over = False

    def renew(self) -> None:
        """Starts the time again."""
        self._until = time.monotonic() + self._limit_s

    def __enter__(self) -> Deadline:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(max(0.0, self._until - time.monotonic())):
            if time.monotonic() >= self._until:
                self.is_over = True
                self._transport.close()
                return


def exchange(
    transport: Any, command: str, chunks: Iterable[bytes], *, limit_s: float, is_limit_of_silence: bool = False
) -> Exchanged:
    """Runs a command to its end with `chunks` on its stdin; the status is -1 when the connection was lost before.

    Raises TimedOut when it takes longer than `limit_s`, or with `is_limit_of_silence` when for so long it neither
    reads nor writes; paramiko's exceptions when the command is not started. Any later error closes the connection: a
    packet may have been sent in part. A command that ends before its input does is no error.
    """
    stdout, stderr = bytearray(), bytearray()
    deadline = Deadline(transport, limit_s)
    moved = deadline.renew if is_limit_of_silence else _nothing
    is_started = False
    try:
        with deadline:
            channel = transport.open_session()
            channel.exec_command(command)
            is_started = True
            readers = [
                threading.Thread(target=_collect, args=(channel.recv, stdout, None, moved), daemon=True),
                threading.Thread(
                    target=_collect, args=(channel.recv_stderr, stderr, _STDERR_BYTES, moved), daemon=True
                ),
            ]
            for reader in readers:
                reader.start()
            _feed(channel, chunks, moved)
            for reader in readers:
                reader.join()
            status = channel.recv_exit_status()
            channel.close()
    except BaseException as error:
        if is_started or not isinstance(error, Exception):
            transport.close()
        if deadline.is_over:
            raise TimedOut(f"no end after {limit_s:g} s") from None
        raise
    if deadline.is_over:
        raise TimedOut(f"no end after {limit_s:g} s")
    return Exchanged(status, bytes(stdout), stderr.decode("utf-8", errors="replace"))


def _feed(channel: Any, chunks: Iterable[bytes], moved: Callable[[], None]) -> None:
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            try:
                sent = channel.send(rest[:_PACKET_BYTES])
            except (OSError, EOFError):
                return
            if not sent:
                return
            moved()
            rest = rest[sent:]
    try:
        channel.shutdown_write()
    except (OSError, EOFError):
        return


def _collect(receive: Callable[[int], bytes], into: bytearray, most: int | None, moved: Callable[[], None]) -> None:
    while data := receive(_READ_BYTES):
        moved()
        into.extend(data)
        if most is not None:
            del into[:-most]


def _nothing() -> None:
    return None
