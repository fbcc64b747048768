"""Whether the other end of a local connection has gone, on real ones."""

import asyncio

import pytest

from replayctl.forwarding import peers


@pytest.mark.parametrize("by_listing", [False, True])
def test_a_peer_that_has_finished_sending_still_listens_and_a_closed_one_does_not(
    monkeypatch: pytest.MonkeyPatch, by_listing: bool
) -> None:
    if by_listing:
        monkeypatch.setattr(peers, "_by_netlink", lambda *_: None)

    async def work() -> None:
        accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accepted.put((reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for half_first in (True, False):
            _, client = await asyncio.open_connection(*address)
            reader, writer = await accepted.get()
            assert peers.has_left(writer) is False
            if half_first:
                client.write_eof()
                assert await reader.read() == b""
                assert peers.has_left(writer) is False
            client.close()
            await client.wait_closed()
            assert await reader.read() == b""
            assert peers.has_left(writer) is True
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    asyncio.run(work())
