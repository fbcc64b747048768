"""Connection errors in plain words, as the libraries really raise them."""

import asyncio
import socket
import ssl
from collections.abc import Callable

import pytest
import urllib3

from replayctl.errors import Conflict, OperationFailed, error_of, in_words


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plain(port: int) -> None:
    urllib3.PoolManager(retries=False).request("GET", f"http://127.0.0.1:{port}/", timeout=5)


def retried(port: int) -> None:
    urllib3.PoolManager().request("GET", f"http://127.0.0.1:{port}/", timeout=5, retries=1)


def by_asyncio(port: int) -> None:
    async def connect() -> None:
        await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(connect())


@pytest.mark.parametrize("connect", [plain, retried, by_asyncio])
def test_a_refused_connection(connect: Callable[[int], None]) -> None:
    with pytest.raises((urllib3.exceptions.HTTPError, OSError)) as excinfo:
        connect(free_port())
    assert in_words(excinfo.value) == "Connection refused"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (urllib3.exceptions.ProtocolError("Aborted.", ConnectionResetError(104, "reset")), "Connection reset by peer"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), …"), "Connection refused"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"), "wrong version number"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (TimeoutError(), "the request timed out"),
        (ValueError(), "ValueError"),
    ],
)
def test_no_notation_of_a_programming_language_is_left(error: Exception, words: str) -> None:
    assert in_words(error) == words


def test_an_error_of_another_process_keeps_its_kind() -> None:
    error = error_of("conflict", "taken", hint="another", details="d")
    assert (type(error), error.exit_code, str(error), error.hint, error.details) == (
        Conflict,
        7,
        "taken",
        "another",
        "d",
    )
    assert type(error_of("of-no-error", "x")) is OperationFailed
