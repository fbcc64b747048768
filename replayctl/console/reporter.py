"""Reports the steps and the progress of a command on stderr.

On a terminal, status and progress replace one line; elsewhere they are one line every ten seconds. Text from outside is
never interpreted as markup.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, TextIO, cast

from replayctl.console.events import Unit
from replayctl.console.redaction import clean
from replayctl.console.stream import Stream

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

_EVERY_S = 10.0
# Shorter work has no bar: it would only flicker.
_NO_BAR_BEFORE_S = 0.5
_REDRAW_S = 0.1
_TICK_S = 1.0


class StderrReporter:
    """Prints lines with the seconds since the start.

    With `quiet`, only warnings are printed; without `progress`, as for JSON, neither status, progress nor questions.
    """

    def __init__(
        self, verbosity: int = 0, *, quiet: bool = False, progress: bool = True, stream: TextIO | None = None
    ) -> None:
        self._stream = Stream(stream or sys.stderr)
        self._verbosity = verbosity
        self._quiet = quiet
        self._progress = progress and not quiet
        self._can_ask = progress
        self._started = time.monotonic()
        # Without these characters, or on a terminal that cannot redraw a line, plain lines are printed.
        self._redraws = self._stream.isatty() and self._stream.can_show("…━") and os.environ.get("TERM") != "dumb"
        self._console: Console | None = None
        self._live: Live | None = None
        self._printed_at = float("-inf")
        # What the command waits for now, and the thread that repeats it where lines cannot be redrawn.
        self._waiting: str | None = None
        self._ticker: threading.Thread | None = None
        self._lock = threading.RLock()

    def step(self, message: str) -> None:
        """Print a line."""
        if not self._quiet:
            self._line(message)

    def note(self, message: str) -> None:
        """Print a line with -v."""
        if self._verbosity and not self._quiet:
            self._line(message)

    def warn(self, message: str) -> None:
        """Print a line marked as a warning."""
        self._line(f"warning: {message}")

    def ask(self, question: str, is_secret: bool) -> str | None:
        """Ask at the terminal, without echo for a secret; None without a terminal, as for JSON.

        Ctrl-D is an empty answer, as for ssh.
        """
        if not (self._can_ask and sys.stdin is not None and sys.stdin.isatty() and self._stream.isatty()):
            return None
        self.close()
        try:
            if is_secret:
                import getpass

                return getpass.getpass(clean(question))
            _IgnoringClosed(self._stream).write(clean(question))
            return input()
        except EOFError:
            _IgnoringClosed(self._stream).write("\n")
            return ""
        except KeyboardInterrupt:
            # What is printed next starts a line of its own.
            _IgnoringClosed(self._stream).write("\n")
            raise

    def status(self, message: str) -> None:
        """Replace one line on a terminal; elsewhere print a line every ten seconds, until something else is printed."""
        if not self._progress:
            return
        with self._lock:
            self._waiting = message
            if self._redraws:
                self._draw_status()
                return
        self._periodically(message)
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, name="sign-of-life", daemon=True)
            self._ticker.start()

    @contextlib.contextmanager
    def progress(self, message: str, total: float, unit: Unit = "items") -> Iterator[Callable[[float], None]]:
        """Show progress; call the result with each amount that is done."""
        self.close()
        if not self._progress:
            yield lambda _: None
        elif self._redraws:
            with self._bar(message, total, unit) as advance:
                yield advance
        else:
            yield self._counted(message, total, unit)

    def close(self) -> None:
        """Remove the status line."""
        # Forwards report from threads of their own.
        with self._lock:
            self._waiting = None
            live, self._live = self._live, None
            if live is not None:
                live.stop()

    def _draw_status(self) -> None:
        if self._live is not None:
            self._live.refresh()
            return
        from rich.live import Live

        self._live = Live(
            console=self._rich(),
            # The clock continues between messages.
            get_renderable=self._status_line,
            refresh_per_second=1 / _TICK_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def _status_line(self) -> Text:
        from rich.text import Text

        return Text(f"{self._clock()} {clean(self._waiting or '')}", no_wrap=True, overflow="ellipsis")

    def _tick(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(_TICK_S)
            with self._lock:
                if self._waiting is not None:
                    self._periodically(self._waiting)

    @contextlib.contextmanager
    def _bar(self, message: str, total: float, unit: Unit) -> Iterator[Callable[[float], None]]:
        from rich import progress as bars
        from rich.table import Column

        amount: tuple[bars.ProgressColumn, ...] = (bars.MofNCompleteColumn(),)
        if unit == "bytes":
            whole = Column(no_wrap=True)
            amount = (bars.DownloadColumn(table_column=whole), bars.TransferSpeedColumn(table_column=whole.copy()))
        text = bars.TextColumn("{task.description}", markup=False)
        columns = (text, bars.BarColumn(bar_width=None), *amount, bars.TimeRemainingColumn(compact=True))
        bar = bars.Progress(
            *columns,
            console=self._rich(),
            transient=True,
            auto_refresh=False,
            expand=True,
            get_time=time.monotonic,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        task = bar.add_task(clean(message), total=total)
        started = drawn = time.monotonic()

        def advance(done: float) -> None:
            nonlocal drawn
            current = time.monotonic()
            bar.update(task, advance=done)
            if current - started < _NO_BAR_BEFORE_S or current - drawn < _REDRAW_S:
                return
            drawn = current
            bar.start()
            bar.refresh()

        try:
            yield advance
        finally:
            bar.stop()

    def _counted(self, message: str, total: float, unit: Unit) -> Callable[[float], None]:
        started = self._printed_at = time.monotonic()
        done = 0.0

        def advance(amount: float) -> None:
            nonlocal done
            done += amount
            current = time.monotonic()
            if current - self._printed_at < _EVERY_S:
                return
            remaining_s = (total - done) * (current - started) / done if done else 0.0
            self._periodically(f"{message}: {_amount(done, total, unit)}, {remaining_s:.0f} s left")

        return advance

    def _periodically(self, message: str) -> None:
        if time.monotonic() - self._printed_at >= _EVERY_S:
            self._printed_at = time.monotonic()
            self._write(f"… {message}")

    def _rich(self) -> Console:
        from rich.console import Console

        if self._console is None:
            file = cast("IO[str]", _IgnoringClosed(self._stream))
            self._console = Console(file=file, force_terminal=True, highlight=False, markup=False, emoji=False)
        return self._console

    def _line(self, message: str) -> None:
        self.close()
        self._write(message)

    def _write(self, message: str) -> None:
        with self._lock:
            _IgnoringClosed(self._stream).write(f"{self._clock()} {clean(message)}\n")

    def _clock(self) -> str:
        return f"[{time.monotonic() - self._started:7.1f}s]"


class _IgnoringClosed:
    """A stream that ignores a closed pipe: a deploy must not stop half-way because its reader has exited.

    Rich would end the program.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Do nothing: `write` flushes."""


def _amount(done: float, total: float, unit: Unit) -> str:
    if unit == "items":
        return f"{done:.0f} of {total:.0f}"
    from rich.filesize import decimal

    return f"{decimal(int(done))} of {decimal(int(total))}"
