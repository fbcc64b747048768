"""Finds out whether the client of a local connection still listens.

On the connection itself, a client that has finished sending and one that has exited look alike: both have closed their
sending side. The system knows the difference: the socket of a client that has exited belongs to no process.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from pathlib import Path

# linux/sock_diag.h and linux/inet_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NLMSG_ERROR = 4, 20, 1, 2
_ANY_COOKIE = 0xFFFFFFFF
_MESSAGE = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")
_ENDPOINTS = struct.Struct(">HH16s16s")
_REST_OF_ID = struct.Struct("=III")
_ANSWER = struct.Struct("=BBBB48sIIIII")

Address = tuple[str, int]


def has_left(writer: asyncio.StreamWriter) -> bool | None:
    """Whether the client has closed its connection completely; None if the system does not know."""
    client, ours = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    if not client or not ours:
        return True
    client, ours = client[:2], ours[:2]
    if _by_netlink(ours, client) is not None:
        # Netlink works: it finds our end of the connection.
        return not _by_netlink(client, ours)
    return _by_listing(client, ours)


def _by_netlink(local: Address, remote: Address) -> int | None:
    """The inode of the socket with these ends; 0 if it belongs to no process.

    None if there is no such socket, or the system cannot be asked.
    """
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    ends = _ENDPOINTS.pack(local[1], remote[1], _packed(local[0]), _packed(remote[0]))
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ANY_COOKIE) + ends
    request += _REST_OF_ID.pack(0, _ANY_COOKIE, _ANY_COOKIE)
    header = _MESSAGE.pack(_MESSAGE.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(1.0)
            kernel.send(header + request)
            answer = kernel.recv(1 << 12)
    except (OSError, AttributeError):
        return None
    if _MESSAGE.unpack_from(answer)[1] == _NLMSG_ERROR or len(answer) < _MESSAGE.size + _ANSWER.size:
        return None
    fields = _ANSWER.unpack_from(answer, _MESSAGE.size)
    # Without such a connection, the answer is about the listening socket.
    return int(fields[-1]) if fields[4][: _ENDPOINTS.size] == ends else None


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed.ljust(16, b"\0")


def _by_listing(client: Address, ours: Address) -> bool | None:
    try:
        lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return None
    ends = [_listed(client), _listed(ours)]
    for line in lines:
        words = line.split()
        if words[1:3] == ends:
            return words[9] == "0"
    return True


def _listed(address: Address) -> str:
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"
