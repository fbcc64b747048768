"""SPDY framing, and what waits for slow readers: by properties."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.cluster.backlog import Backlog
from replayctl.cluster.spdy import DICTIONARY, Answer, Data, GoingAway, Replied, Reset, Session, SpdyError


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload


def test_the_dictionary_is_that_of_the_protocol() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_headers_are_packed_on_top_of_earlier_ones() -> None:
    session, unpack = Session(), zlib.decompressobj(zdict=DICTIONARY)
    for number, value in ((1, "8000"), (3, "ф")):
        stream, frame = session.open({"Port": value})
        assert stream == number
        assert frame[:4] == b"\x80\x03\x00\x01"
        assert struct.unpack(">I", frame[4:8])[0] == len(frame) - 8
        assert struct.unpack(">I", frame[8:12])[0] == number
        text = value.encode()
        pair = b"\0\0\0\1\0\0\0\4port" + struct.pack(">I", len(text)) + text
        assert unpack.decompress(frame[18:]) == pair


frames = st.one_of(
    st.builds(
        lambda stream, content, last: (Session.data(stream, content, last=last), ("data", stream, content, last)),
        st.integers(1, 9),
        st.binary(max_size=300),
        st.booleans(),
    ),
    st.builds(lambda stream: (control(2, struct.pack(">I", stream) + b"xy"), Replied(stream)), st.integers(1, 9)),
    st.builds(lambda stream: (control(3, struct.pack(">II", stream, 5)), Reset(stream, 5)), st.integers(1, 9)),
    st.builds(lambda number: (control(6, struct.pack(">I", 2 * number)), "ping"), st.integers(0, 9)),
    st.just((control(6, struct.pack(">I", 3)), None)),
    st.just((control(7, bytes(8)), GoingAway())),
    st.builds(lambda kind, payload: (control(kind, payload), None), st.sampled_from([4, 8, 9]), st.binary(max_size=40)),
)


@given(st.lists(frames, max_size=12), st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_frames_mean_the_same_however_they_are_cut(encoded: list, cuts: list[int]) -> None:
    text = b"".join(frame for frame, _ in encoded)
    session, events, position = Session(), [], 0
    while position < len(text):
        size = cuts[position % len(cuts)]
        events += list(session.feed(text[position : position + size]))
        position += size
    expected = [meaning for _, meaning in encoded if meaning is not None]
    for meaning in expected:
        if isinstance(meaning, tuple):
            _, stream, content, last = meaning
            joined = b""
            while True:
                event = events.pop(0)
                assert isinstance(event, Data)
                assert event.stream == stream
                joined += bytes(event.content)
                if len(joined) == len(content):
                    break
                assert not event.last
            assert (joined, event.last) == (content, last)
        elif meaning == "ping":
            assert isinstance(events.pop(0), Answer)
        else:
            assert events.pop(0) == meaning
    assert events == []


@pytest.mark.parametrize(
    "text", [b"\x80\x02\x00\x01" + bytes(4), control(3, b"x"), b"\xff" * 8, b"\x80\x03\0\1\0\xff\xff\xff"]
)
def test_what_is_not_spdy_is_an_error(text: bytes) -> None:
    with pytest.raises(SpdyError):
        list(Session().feed(text))


@given(
    st.lists(
        st.one_of(
            st.builds(lambda size, byte: bytes([byte]) * size, st.integers(0, 700_000), st.integers(0, 255)), st.none()
        ),
        max_size=12,
    )
)
def test_a_backlog_is_first_in_first_out(steps: list[bytes | None]) -> None:
    backlog, model, output = Backlog(), bytearray(), bytearray()
    for step in steps:
        if step is None:
            piece = backlog.take()
            assert bool(piece) == (len(output) < len(model))
            output += piece
        else:
            backlog.append(memoryview(step))
            model += step
        assert len(backlog) == len(model) - len(output)
    while piece := backlog.take():
        output += piece
    assert output == model
