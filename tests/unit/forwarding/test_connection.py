"""Whether a client still listens, according to the system's list of its connection and no other one."""

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from replayctl.forwarding.peers import has_left

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists connections in /proc")


@pytest.mark.parametrize("backwards", [False, True])
def test_the_same_port_of_another_address_is_another_client(monkeypatch: pytest.MonkeyPatch, backwards: bool) -> None:
    read_text = Path.read_text

    def listed(path: Path, *words: Any, **options: Any) -> str:
        text = read_text(path, *words, **options)
        if path != Path("/proc/net/tcp"):
            return text
        header, *lines = text.splitlines()
        return "\n".join([header, *(reversed(lines) if backwards else lines)])

    # The order in which connections are listed is nobody's choice.
    monkeypatch.setattr(Path, "read_text", listed)

    async def run() -> None:
        writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await writers.put(writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        other = socket.create_server(("127.0.0.1", 0))
        address = server.sockets[0].getsockname()
        sockets: list[socket.socket] = [other]
        try:
            clients = []
            for _ in range(2):
                # Another connection from the same port, of another address.
                sockets.append(socket.create_connection(other.getsockname()))
                port = sockets[-1].getsockname()[1]
                clients.append(socket.create_connection(address, source_address=("127.0.0.2", port)))
            client, listening = clients
            first, second = await writers.get(), await writers.get()
            assert has_left(first) is has_left(second) is False
            listening.shutdown(socket.SHUT_WR)
            client.close()
            sockets.append(listening)
            while not has_left(first):
                await asyncio.sleep(0.01)
            assert has_left(second) is False
            first.close()
            second.close()
        finally:
            for sock in sockets:
                sock.close()
            server.close()

    asyncio.run(asyncio.wait_for(run(), 20))
