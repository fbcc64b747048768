"""Links in pages are rewritten wherever the content is divided into chunks."""

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.forwarding.page_links import LinkRewriter, rewrite_header

KNOWN = {("node-0.nodes.spark.svc.cluster.local", 8042): "127.0.0.1:1111", ("rm", 8088): "127.0.0.1:2222"}


async def locate(host: str, port: int) -> str | None:
    return KNOWN.get((host, port))


def rewritten(page: bytes, sizes: list[int] | None = None) -> bytes:
    async def work() -> bytes:
        rewriter, parts, rest = LinkRewriter(locate), [], page
        for size in sizes or [len(page)]:
            parts.append(await rewriter.feed(rest[:size]))
            rest = rest[size:]
        parts += [await rewriter.feed(rest), await rewriter.end()]
        return b"".join(parts)

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (b'<a href="http://rm:8088/cluster">', b'<a href="http://127.0.0.1:2222/cluster">'),
        (b"<a href='//rm:8088'>rm:8088</a>", b"<a href='//127.0.0.1:2222'>rm:8088</a>"),
        (rb'["<a href=\'http:\/\/rm:8088\/x\'>"]', rb'["<a href=\'http:\/\/127.0.0.1:2222\/x\'>"]'),
        (
            b'{"stdout":"http://node-0.nodes.spark.svc.cluster.local:8042/node/stdout?start=-4096"}',
            b'{"stdout":"http://127.0.0.1:1111/node/stdout?start=-4096"}',
        ),
        (b'<meta content="1; url=http://rm:8088/x">', b'<meta content="1; url=http://127.0.0.1:2222/x">'),
        (b'"http://rm:8088"', b'"http://127.0.0.1:2222"'),
        # Others' addresses, another port, a longer name, another protocol, and words that are no links.
        (b'"http://example.org/rm:8088"', b'"http://example.org/rm:8088"'),
        (b'"http://rm:80881/"', b'"http://rm:80881/"'),
        (b'"http://rm.example.org:8088/"', b'"http://rm.example.org:8088/"'),
        (b'"https://rm:8088/"', b'"https://rm:8088/"'),
        (b'"http://user@rm:8088/"', b'"http://user@rm:8088/"'),
        (b"see http://rm:8088/ for more", b"see http://rm:8088/ for more"),
        (b'"http://rm/"', b'"http://rm/"'),
    ],
)
def test_links_to_the_cluster_lead_here_and_nothing_else_changes(page: bytes, expected: bytes) -> None:
    assert rewritten(page) == expected


def test_a_log_within_a_page_stays_as_it_was_written() -> None:
    log = b"<PRE>open 'http://rm:8088/x'</PRE>"
    assert rewritten(log + b'<a href="http://rm:8088/">') == log + b'<a href="http://127.0.0.1:2222/">'
    assert rewritten(b"<pre" + b" " * 2000 + b">'http://rm:8088/'") == b"<pre" + b" " * 2000 + b">'http://rm:8088/'"


PIECES = st.sampled_from(
    [b'"http://rm:8088/a"', b"'//rm:8088'", rb'"http:\/\/rm:8088\/"', b"<pre>", b"</pre>", b"http://", b'"', b"x" * 700]
)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.lists(st.integers(0, 900), max_size=12))
def test_borders_of_chunks_change_nothing(page: bytes, sizes: list[int]) -> None:
    assert rewritten(page, sizes) == rewritten(page)


@given(st.binary(max_size=3000))
def test_a_page_without_addresses_passes_byte_by_byte(page: bytes) -> None:
    page = re.sub(rb"rm", b"", page)
    assert rewritten(page, [7] * 100) == page


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://rm:8088/proxy/x?y=1", b"http://127.0.0.1:2222/proxy/x?y=1"),
        (b"3; url=http://rm:8088/", b"3; url=http://127.0.0.1:2222/"),
        (b"/cluster", b"/cluster"),
        (b"http://elsewhere:8088/", b"http://elsewhere:8088/"),
        (b"3", b"3"),
    ],
)
def test_redirects_lead_here_too(value: bytes, expected: bytes) -> None:
    assert asyncio.run(rewrite_header(value, locate)) == expected
