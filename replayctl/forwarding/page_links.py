"""Links in pages to host names of the cluster, changed on the way so that they lead through forwards.

Hadoop's and Spark's pages have whole addresses in attributes (`href="http://host:8042/…"`, `href='//host:8042'`), in
scripts, with slashes escaped (`http:\\/\\/host:8042`), and in the JSON from which scripts make links. All of them begin
behind a quote, which is what is looked for. Between <pre> and </pre> stand logs, which stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

# From an address as it stands in a page, `host` and port, to one that works here; None to leave it.
Locate = Callable[[str, int], Awaitable[str | None]]

REWRITTEN_TYPES = frozenset({"text/html", "application/json", "text/javascript", "application/javascript"})
_HOST = rb"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?"
_PORT = rb"(?P<port>:[0-9]{1,5})?(?![A-Za-z0-9.:@-])"
_ADDRESS = rb"(?P<scheme>http:)?(?P<slashes>//|\\/\\/)(?P<host>" + _HOST + rb")" + _PORT
_FOUND = re.compile(rb"(?P<pre><pre\b)|(?P<end></pre>)|(?P<before>[\"']|;\s?url=)" + _ADDRESS, re.IGNORECASE)
_WHOLE = re.compile(rb"(?P<before>(?:[0-9]+;\s?url=)?)" + _ADDRESS, re.IGNORECASE)
# Longer than anything that is looked for, so that nothing is missed over the border of two chunks.
_HELD_BACK = 512
_BEFORE_SIGN = len("; url=http:")


class LinkRewriter:
    """The text of one page in chunks of any size, with its links changed. At most a few hundred bytes are held back."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._buffer = b""
        self._in_log = False

    async def feed(self, data: bytes) -> bytes:
        """What can be passed on now."""
        self._buffer += data
        return await self._pass_on(max(0, len(self._buffer) - _HELD_BACK))

    async def end(self) -> bytes:
        """The rest, at the end of the page."""
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
        # What begins in front of the border and ends behind it was looked at already.
        until = max(until, done)
        parts.append(self._buffer[done:until])
        self._buffer = self._buffer[until:]
        return b"".join(parts)

    def _first_place(self) -> int:
        """Where the first thing to look at may be: most of a log, and of a page, is passed over at once."""
        lowered = self._buffer.lower()
        signs = (b"</pre>",) if self._in_log else (b"//", b"\\/\\/", b"<pre")
        places = [place for sign in signs if (place := lowered.find(sign)) >= 0]
        # What belongs to a sign begins a little before it.
        return max(0, min(places) - _BEFORE_SIGN) if places else len(self._buffer)


async def rewrite_header(value: bytes, locate: Locate) -> bytes:
    """The value of a Location or Refresh header, with its address changed if it is one of the cluster's."""
    match = _WHOLE.match(value)
    changed = await _changed(match, locate) if match else None
    return value if match is None or changed is None else changed + value[match.end() :]


async def _changed(match: re.Match[bytes], locate: Locate) -> bytes | None:
    port = int(match["port"][1:]) if match["port"] else 80
    address = await locate(match["host"].decode("ascii"), port)
    if address is None:
        return None
    return match["before"] + (match["scheme"] or b"") + match["slashes"] + address.encode("ascii")
