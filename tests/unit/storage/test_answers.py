"""Answers of a target's scripts are parsed safely, whatever other users have written to their folders."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayctl.bundle.release import Release, ReleaseFile, manifest_text
from replayctl.errors import OperationFailed
from replayctl.storage import lock
from replayctl.storage.answers import LockHolder, history_of, holder_of, records_of, state_of

RELEASE = Release("r_1", (ReleaseFile("dag_a.py", b"1\n"), ReleaseFile("dag_submit.py", b"2\n")), ("dag_a",))
STORED = {file.path: file.content for file in RELEASE.files} | {".release.json": b"{}\n"}


def part(kind: str, name: str, text: bytes) -> bytes:
    return b"%s %s %d\n%s.\n" % (kind.encode(), name.encode(), len(text) + 1, text)


def state(manifest: bytes | None, stored: dict[str, bytes], release: Release | None = RELEASE) -> tuple[object, bool]:
    answer = part("release_manifest", "r_1", manifest) if manifest is not None else b""
    answer += part("release_sums", "r_1", manifest_text(stored)) + b"whole\n"
    state = state_of(records_of(answer, "here"), release)
    return state.edited.get("r_1", ()), "r_1" in state.damaged


def test_a_stored_release_is_compared_with_what_it_is() -> None:
    right_manifest = manifest_text(STORED)
    assert state(right_manifest, STORED) == ((), False)
    assert state(None, STORED) == ((), True)
    assert state(right_manifest[:40], STORED) == ((), True)
    for manifest in (right_manifest, None, right_manifest[:40], b"\0\xff"):
        edited, _ = state(manifest, STORED | {"dag_a.py": b"mine\n", "more.py": b""})
        assert edited == ("dag_a.py", "more.py")
    # An edit that was entered into the list as well.
    changed = STORED | {"dag_a.py": b"mine\n"}
    assert state(manifest_text(changed), changed) == (("dag_a.py",), True)
    # Of another release only the list tells: one that is damaged is an edit.
    assert state(right_manifest, STORED, None) == ((), False)
    assert state(right_manifest[:40], STORED, None) == ((".manifest",), True)
    assert state(None, STORED, None) == ((".manifest",), True)


@given(manifest=st.binary(max_size=200), sums=st.binary(max_size=200), lines=st.binary(max_size=200))
def test_no_text_of_others_breaks_the_reader(manifest: bytes, sums: bytes, lines: bytes) -> None:
    answer = part("release_manifest", "r_1", manifest) + part("release_sums", "r_1", sums)
    answer += part("audit", "-", lines) + part("release", "r_2", lines) + part("stub", "dag_a.py", lines) + b"whole\n"
    records = records_of(answer, "here")
    for release in (RELEASE, None):
        assert state_of(records, release).stubs
    assert len(history_of(records).audit) <= len(lines) + 1
    for cut in (answer[:-7], answer[: len(answer) // 2]):
        with pytest.raises(OperationFailed, match="truncated answer"):
            records_of(cut, "here")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["pid", "started", "host", "user", "boot"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2),
    )
)
def test_no_holder_breaks_those_who_wait(who: dict[str, object]) -> None:
    me = lock.whoami()
    holder = LockHolder("1 2 3", 1.0, who)
    assert "\n" not in str(holder)
    assert len(str(holder)) < 300
    # Whatever it says of itself, it is dead only if a process of that number has been and gone.
    for sure in ({}, {"host": me["host"], "boot": me["boot"]}):
        if lock.is_dead(LockHolder("1 2 3", 1.0, who | sure)):
            assert isinstance(who["pid"], int)
            assert math.isfinite(who["started"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [b"", b"{} 12\xc2\xb2", b"[" * 4096, b"1" * 4096, b'{"pid": 1e999} 5', b"\0\377", b'{"pid": -1}'],
)
def test_a_lock_may_say_anything(text: bytes) -> None:
    answer = b"clock 100\nmark 7 8 9\ntaken - %d\n%s\n" % (len(text), text)
    holder = holder_of(records_of(answer, "here"), "taken")
    assert holder is not None
    assert holder.mark == "7 8 9"
    assert not lock.is_dead(holder)
