"""An event loop in a thread of its own.

Signals arrive in the main thread. If the loop ran there, the exception of a signal handler would be lost in whichever
callback happens to run, and blocking code would leave pings unanswered.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_END_WITHIN_S = 10.0


class _Workers(concurrent.futures.ThreadPoolExecutor):
    """A thread for each call, for which the end of the program does not wait: a server may not answer it any more."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> concurrent.futures.Future[_T]:
        """Call the function in a thread; the result, or what it raises, is the future's."""
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it
                future.set_exception(error)

        threading.Thread(target=work, daemon=True, name=self._name).start()
        return future


@contextlib.contextmanager
def event_loop(name: str) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs for the duration of a block; at the end, all of its tasks are cancelled and awaited."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_Workers(f"{name} worker"))
    loop.set_exception_handler(_note)
    thread = threading.Thread(target=loop.run_forever, daemon=True, name=name)
    thread.start()
    try:
        yield loop
    finally:
        ending = asyncio.run_coroutine_threadsafe(_end_tasks(), loop)
        with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
            ending.result(_END_WITHIN_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_END_WITHIN_S)
        if not thread.is_alive():
            loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs errors outside of tasks, such as those of closed transports. Tasks that matter raise them as well."""
    logging.getLogger(__name__).debug("%s", context.get("message"), exc_info=context.get("exception"))
