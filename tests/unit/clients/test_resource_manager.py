"""Ids and logs of YARN: nothing hostile passes, nothing that was cut off looks whole."""

import random
import string
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.clients import resource_manager
from replayctl.cluster.api import parse_endpoint
from replayctl.errors import OperationFailed, UsageProblem
from replayctl.logs.stream import read_pieces

CONTAINER = "container_1700000000000_0042_01_000001"


def stream(*files: tuple[str, bytes]) -> bytes:
    """What YARN sends for some files of one container."""
    text = f"Container: {CONTAINER} on node_1\nLogAggregationType: AGGREGATED\n{'=' * 80}\n".encode()
    for name, content in files:
        text += f"LogType:{name}\nLogLastModifiedTime:Tue Nov 24\nLogLength:{len(content)}\nLogContents:\n".encode()
        text += content + f"\nEnd of LogType:{name}\n{'*' * 40}\n\n".encode()
    return text


def read(text: bytes, step: int) -> dict[str, bytes]:
    logs: dict[str, bytes] = {}
    for piece in read_pieces(text[start : start + step] for start in range(0, len(text), step)):
        assert piece.container == CONTAINER
        logs[piece.file] = logs.get(piece.file, b"") + piece.data
    return logs


# What a log may say to be taken for YARN's own words.
words = st.sampled_from(
    [b"LogLength:5\n", b"LogContents:\n", b"End of LogType:stderr\n", b"Container: container_1 on x\n"]
)
contents = st.lists(st.one_of(st.binary(max_size=40), words), max_size=6).map(b"".join)


@given(contents, contents, st.integers(1, 400))
def test_whatever_a_log_says_it_is_read_as_it_is(first: bytes, second: bytes, step: int) -> None:
    logs = read(stream(("stdout", first), ("stderr", second)), step)
    assert logs == {"stdout": first, "stderr": second}


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_log_that_is_cut_off_in_its_bytes_is_an_error_that_says_how_much_came(
    content: bytes, data: st.DataObject
) -> None:
    text = stream(("stdout", content))
    begin = text.index(b"LogContents:\n") + len(b"LogContents:\n")
    cut = data.draw(st.integers(begin, begin + len(content) - 1))
    with pytest.raises(OperationFailed, match=f"received {cut - begin} of {len(content)} bytes"):
        read(text[:cut], 64)


def test_a_tail_has_only_its_own_bytes() -> None:
    text = stream(("stdout", b"0123456789")).replace(b"0123456789", b"6789")
    assert b"".join(piece.data for piece in read_pieces([text], tail=4)) == b"6789"


def test_memory_stays_flat_for_a_log_of_any_size() -> None:
    size = 200 * 1024 * 1024

    def chunks() -> Iterator[bytes]:
        yield stream(("stdout", b""))[: stream(("stdout", b"")).index(b"LogLength:")]
        yield f"LogLength:{size}\nLogContents:\n".encode()
        block = b"x" * (1 << 16)
        for _ in range(size // len(block)):
            yield block

    tracemalloc.start()
    try:
        assert sum(len(piece.data) for piece in read_pieces(chunks())) == size
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_ten_thousand_hostile_words_are_refused() -> None:
    chance = random.Random(5)
    pieces = [
        *string.punctuation,
        " ",
        "\n",
        "\0",
        "..",
        "$(id)",
        "application_",
        "container_",
        "1700000000000",
        "_0001",
        "é",
        "stdout",
    ]
    for _ in range(10_000):
        word = "".join(chance.choice(pieces) for _ in range(chance.randint(1, 8)))
        for check, good in (
            (resource_manager.application_id, r"application_\d+_\d{4,}"),
            (resource_manager.container_id, r"container_(e\d+_)?\d+_\d{4,}_\d{2,}_\d{6,}"),
            (resource_manager.log_file, r"[A-Za-z0-9][A-Za-z0-9._-]*"),
        ):
            try:
                assert check(word) == word
            except UsageProblem:
                continue
            import re

            assert re.fullmatch(good, word), word
            assert ".." not in word


@pytest.mark.parametrize(
    "word", ["application_1700000000000_0001", "application_1700000000000_123456789", "application_1_0001"]
)
def test_application_ids_of_any_length_pass(word: str) -> None:
    assert resource_manager.application_id(word) == word


@pytest.mark.parametrize("word", [CONTAINER, "container_e17_1700000000000_0042_01_000001", f"{CONTAINER}234"])
def test_container_ids_pass(word: str) -> None:
    assert resource_manager.container_id(word) == word


@pytest.mark.parametrize(
    "word", ["", "a", "a/b", "a/svc/b/c", "a/svc/b:", "a/job/b:1", "A/svc/b:1", "a/svc/../b", "-a/svc/b", "a/svc/b:1;x"]
)
def test_an_invalid_target_is_rejected(word: str) -> None:
    with pytest.raises(UsageProblem, match="is not an endpoint"):
        parse_endpoint(word)


def test_lists_of_log_files_are_read_as_people_write_them() -> None:
    for text in ("stdout,stderr", "stdout, stderr", " stdout ,stderr,", "stdout stderr", "stdout,,stderr,stdout"):
        assert resource_manager.log_files(text) == ("stdout", "stderr")
    for text in ("", " , ", "stdout;stderr", "../stdout"):
        with pytest.raises(UsageProblem):
            resource_manager.log_files(text)


def test_targets_have_short_and_long_kinds() -> None:
    assert str(parse_endpoint("airflow/svc/airflow-webserver:8080")) == "airflow/service/airflow-webserver:8080"
    assert parse_endpoint("a/deploy/b").port is None
    assert parse_endpoint("a/sts/b:web").port == "web"
