"""The lock of a namespace: it names its holder, is awaited, and is taken over only from a dead process."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from replayctl import process
from replayctl.errors import Conflict
from replayctl.storage import lock
from replayctl.storage.answers import LockHolder
from replayctl.storage.shell import LocalShell
from replayctl.storage.target import Modes, Target
from tests.reporters import RecordingReporter


@pytest.fixture
def target(tmp_path: Path) -> Target:
    (tmp_path / "dags").mkdir()
    return Target(LocalShell(), str(tmp_path / "dags"), str(tmp_path / "files"), "alice", Modes())


def lock_file(target: Target) -> Path:
    return Path(target.dags) / "replayctl_releases" / "alice" / ".lock"


def test_the_lock_names_its_holder_and_goes_at_the_end(target: Target) -> None:
    with lock.held(target, RecordingReporter(), what="sync-dags", timeout_s=1):
        holder = target.inspect().lock
        assert holder is not None
        assert holder.who["pid"] == os.getpid()
        assert holder.who["for"] == "sync-dags"
        assert 0 <= (holder.age_s or 0) < 60
        other = lock.held(target, RecordingReporter(), what="other", timeout_s=0.1, sleep=lambda _: None)
        with pytest.raises(Conflict, match=rf"locked by .* \(process {os.getpid()}, for \d+ s\)"), other:
            raise AssertionError("two holders")
    assert target.inspect().lock is None


def test_the_lock_goes_when_the_work_fails(target: Target) -> None:
    with pytest.raises(ZeroDivisionError), lock.held(target, RecordingReporter(), what="x", timeout_s=1):
        raise ZeroDivisionError
    assert not lock_file(target).exists()


def test_a_dead_holder_of_this_machine_is_taken_over(target: Target) -> None:
    code = (
        "import sys\nfrom replayctl.storage import lock\nfrom replayctl.storage.shell import LocalShell\n"
        "from replayctl.storage.target import Modes, Target\n"
        "Target(LocalShell(), sys.argv[1], sys.argv[2], 'alice', Modes()).lock('t', lock.whoami())\n"
    )
    subprocess.run([sys.executable, "-c", code, target.dags, target.submit], check=True)
    assert target.inspect().lock is not None
    reporter = RecordingReporter()
    with lock.held(target, reporter, what="x", timeout_s=1):
        pass
    assert "taking over the lock of" in reporter.messages("warn")[0]


def test_only_the_surely_dead_are_dead() -> None:
    me = lock.whoami()
    assert not lock.is_dead(LockHolder("", 1.0, me))
    assert lock.is_dead(LockHolder("", 1.0, {**me, "started": process.start_of(os.getpid()) - 100}))
    assert lock.is_dead(LockHolder("", 1.0, {**me, "pid": 2**22 + 1}))
    for other in ({"host": "elsewhere"}, {"pid": "7"}, {"started": None}):
        assert not lock.is_dead(LockHolder("", 1.0, {**me, "pid": 2**22 + 1, **other}))
    boot = str(me["boot"])
    assert not lock.is_dead(LockHolder("", 1.0, {**me, "pid": 2**22 + 1, "boot": f"{boot}-other-processes"}))
    # Two machines may have one name.
    assert not lock.is_dead(LockHolder("", 1.0, {**me, "pid": 2**22 + 1, "boot": "another-start/pid:[1]"}))
    assert not lock.is_dead(LockHolder("", None, {}))


def test_a_lock_without_a_holder_is_never_considered_stale(target: Target) -> None:
    with lock.held(target, RecordingReporter(), what="x", timeout_s=1):
        pass
    lock_file(target).write_text("something\n")
    mine = lock.held(target, RecordingReporter(), what="x", timeout_s=0, sleep=lambda _: None)
    with pytest.raises(Conflict, match="an unnamed holder"), mine:
        raise AssertionError("taken")
    reporter = RecordingReporter()
    with lock.held(target, reporter, what="x", timeout_s=0, break_lock=True):
        pass
    assert "breaking the lock of an unnamed holder" in reporter.messages("warn")


def test_a_user_of_a_windows_domain_is_named(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock.held(target, RecordingReporter(), what="x", timeout_s=1):
        pass
    lock_file(target).mkdir()
    (program := tmp_path / "bin" / "ls").parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        "[ \"$1\" != -ld ] || { printf '%s\\n' 'drwxr-xr-x 2 CORP\\nina users 60 Nov 25 19:02 x'; exit; }\n"
        'exec /bin/ls "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert str(target.inspect().lock) == r"a folder of CORP\nina in place of the lock"
    answer = target.lock("t", lock.whoami())
    assert str(answer) == r"a folder of CORP\nina in place of the lock"


def test_stealing_takes_only_the_lock_that_was_seen(target: Target) -> None:
    target.lock("one", {"user": "a"})
    holder = target.lock("two", {"user": "b"})
    assert isinstance(holder, LockHolder)
    target.unlock("one")
    target.lock("three", {"user": "c"})
    now = target.lock("two", {"user": "b"}, stolen=holder.mark)
    assert isinstance(now, LockHolder)
    assert now.who["user"] == "c"
    target.unlock("one")
    assert json.loads(lock_file(target).read_text().rpartition(" ")[0])["token"] == "three"


def test_a_publish_after_the_lock_was_broken_is_refused(target: Target) -> None:
    from replayctl.storage.target import Publication

    with lock.held(target, RecordingReporter(), what="x", timeout_s=1) as (token, _):
        held = target.inspect().lock
        assert held is not None
        target.lock("thief", {"user": "thief"}, stolen=held.mark)
        with pytest.raises(Conflict, match="the lock was broken by someone else"):
            target.publish(token, Publication(None, "{}"))
    assert target.inspect().lock is not None


def test_of_many_at_once_one_has_it(target: Target) -> None:
    inside, most, lost = [0], [0], []

    def work() -> None:
        try:
            with lock.held(target, RecordingReporter(), what="x", timeout_s=60, sleep=lambda _: time.sleep(0.01)):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                inside[0] -= 1
        except Exception as error:  # noqa: BLE001 - shown by the test's own thread
            lost.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    assert most == [1]
