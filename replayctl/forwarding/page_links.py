"""Rewrites links to host names of the cluster in pages, so that they lead through forwards.

Pages of Hadoop and Spark have full addresses in attributes (`href="http://host:8042/…"`, `href='//host:8042'`), in
scripts, with slashes escaped (`http:\\/\\/host:8042`), and in the JSON from which scripts create links. All of them
start after a quote. Logs between <pre> and </pre> are left unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

# Maps the host and port of a page's link to an address that works on this machine; None leaves the link unchanged.
Locate = Callable[[str, int], Awaitable[str | None]]

REWRITTEN_TYPES = frozenset({"text/html", "application/json", "text/javascript", "application/javascript"})
_HOST = rb"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?"
_PORT = rb"(?P<port>:[0-9]{1,5})?(?![A-Za-z0-9.:@-])"
_ADDRESS = rb"(?P<scheme>http:)?(?P<slashes>//|\\/\\/)(?P<host>" + _HOST + rb")" + _PORT
_FOUND = re.compile(rb"(?P<pre><pre\b)|(?P<end></pre>)|(?P<before>[\"']|;\s?url=)" + _ADDRESS, re.IGNORECASE)
_WHOLE = re.compile(rb"(?P<before>(?:[0-9]+;\s?url=)?)" + _ADDRESS, re.IGNORECASE)
# Longer than any match, so that none is missed at the border of two chunks.
_HELD_BACK = 512
_BEFORE_SIGN = len("; url=http:")


class LinkRewriter:
    """Rewrites the links of one page in chunks of any size. Holds back at most a few hundred bytes."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._buffer = b""
        self._in_log = False

    async def feed(self, data: bytes) -> bytes:
        """The rewritten text up to the bytes that are held back."""
        self._buffer += data
        return await self._pass_on(max(0, len(self._buffer) - _HELD_BACK))

    async def end(self) -> bytes:
        """The rest of the page."""
        return await self._pass_on(len(self._buffer))

    async def _pass_on(self, until: int) -> bytes:
        parts: list[bytes] = []
        done = 0
        for match in _FOUND.finditer(self._buffer, self._first_place(), until + _HELD_BACK):
            if match.start() >= until:
                break
            if match["pre"] or match["end"]:
                self._in_log = bool(match["pre"])
                continue
            if self._in_log or (changed := await _changed(match, self._locate)) is None:
                continue
            parts += [self._buffer[done : match.start()], changed]
            done = match.end()
        # A match across the border was handled already.
        until = max(until, done)
        parts.append(self._buffer[done:until])
        self._buffer = self._buffer[until:]
        return b"".join(parts)

    def _first_place(self) -> int:
        """Where the first match may start; skips most of a log or page at once."""
        lowered = self._buffer.lower()
        signs = (b"</pre>",) if self._in_log else (b"//", b"\\/\\/", b"<pre")
        places = [place for sign in signs if (place := lowered.find(sign)) >= 0]
        # A match starts a little before its sign.
        return max(0, min(places) - _BEFORE_SIGN) if places else len(self._buffer)


async def rewrite_header(value: bytes, locate: Locate) -> bytes:
    """The value of a Location or Refresh header, with an address of the cluster rewritten."""
    match = _WHOLE.match(value)
    changed = await _changed(match, locate) if match else None
    return value if match is None or changed is None else changed + value[match.end() :]


async def _changed(match: re.Match[bytes], locate: Locate) -> bytes | None:
    port = int(match["port"][1:]) if match["port"] else 80
    address = await locate(match["host"].decode("ascii"), port)
    if address is None:
        return None
    return match["before"] + (match["scheme"] or b"") + match["slashes"] + address.encode("ascii")
