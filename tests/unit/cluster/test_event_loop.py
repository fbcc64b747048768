"""The end of a loop and of the program, whatever its threads still wait for."""

import asyncio
import subprocess
import sys
import time

import pytest

from replayctl.cluster.event_loop import event_loop

HANGS = """
import asyncio, threading, time
from replayctl.cluster.event_loop import event_loop

began = threading.Event()

def ask():
    began.set()
    time.sleep(60)

with event_loop("test") as loop:
    asyncio.run_coroutine_threadsafe(asyncio.to_thread(ask), loop)
    began.wait(10)
"""


def test_the_program_ends_though_a_server_does_not_answer() -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", HANGS], check=True, timeout=50)
    assert time.monotonic() - started < 30


def test_a_call_in_a_thread_returns_or_raises() -> None:
    async def work() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        return await asyncio.to_thread(max, 1, 2)

    with event_loop("test") as loop:
        assert asyncio.run_coroutine_threadsafe(work(), loop).result(10) == 2
