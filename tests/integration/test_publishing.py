"""Publishes through a real sshd, watched by readers, killed at any moment, by two users at once.

`make test` repeats a little, `make soak` (SOAK=1) as often as the figures in docs/reference/benchmarks.md say.
"""

import collections
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dags.dag_entities import Namespace
from replayctl.bundle.release import STORE, Release
from tests.conftest import ROOT
from tests.publishing import Reader, deploy, kill, processes_of_user, release_of, roll_back, target_of, write_dags
from tests.sshd import WHY_NOT, SshServer

pytestmark = [pytest.mark.integration, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]

SOAK = bool(os.environ.get("SOAK"))
ALICE, BOB = f"rctl-{os.getpid()}-a", f"rctl-{os.getpid()}-b"
MARKS = (
    "script lock+inspect",
    "script publish",
    "phase upload",
    "phase zip",
    "phase store",
    "phase publish",
    "published",
)


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    server = SshServer.start(ALICE, BOB)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def share(server: SshServer) -> Path:
    """Empty shared folders."""
    subprocess.run(["rm", "-rf", str(server.folder / "share")], check=True)
    server.make_share()
    return server.folder / "share"


@pytest.fixture
def config(server: SshServer, share: Path, tmp_path: Path) -> dict[str, str]:
    path = server.client_config(tmp_path / "config")
    folders = {"dags": str(share / "dags"), "files": str(share / "files")}
    return {**folders, "owner": "alice", "host": "cluster", "user": server.login(ALICE), "config": str(path)}


def pointer(share: Path, owner: str = "alice") -> str:
    return (share / "dags" / STORE / owner / "current").read_text().strip()


def check_whole(share: Path, release: Release, owner: str = "alice") -> None:
    """The stored release and its zip, byte by byte."""
    for file in release.files:
        assert (share / "dags" / STORE / owner / release.name / file.path).read_bytes() == file.content
    assert (share / "files" / owner / release.name / f"{release.name}.zip").read_bytes() == release.zip_bytes()


def leftovers(share: Path, owner: str = "alice") -> list[str]:
    folders = (share / "dags" / STORE / owner, share / "files" / owner)
    return [path.name for folder in folders for path in folder.iterdir() if path.name.startswith(".")]


def test_readers_see_one_release_in_all_stubs_at_any_moment(share: Path, config: dict, tmp_path: Path) -> None:
    count = 1000 if SOAK else 40
    target, reader = target_of(config), Reader(share / "dags", tmp_path, "alice")
    started = time.monotonic()
    try:
        for value in range(count):
            assert deploy(target, Namespace("alice"), release_of(write_dags(tmp_path / "dags", value), "alice"))
        duration = time.monotonic() - started
    finally:
        releases = reader.result()
        target.shell.close()
    print(f"\n{count} publishes, {1000 * duration / count:.0f} ms each; {releases['passes']} passes of readers, "
          f"{len(releases['mixed'])} mixed, {len(releases['errors'])} errors, {releases['releases']} seen")  # fmt: skip
    assert releases["mixed"] == []
    assert releases["errors"] == []
    assert releases["passes"] > count
    assert releases["releases"] > count // 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can kill the other side's processes of its own user")
def test_killed_at_any_moment_it_is_the_old_or_the_new_release_and_the_next_deploy_heals(
    server: SshServer, share: Path, config: dict, tmp_path: Path
) -> None:
    count, chance = (200, random.Random(7)) if SOAK else (14, random.Random(3))
    namespace, target = Namespace("alice"), target_of(config)
    killed: collections.Counter[str] = collections.Counter()
    stored: dict[str, Release] = {}

    def publish(folder: str, value: object, padding: int = 0) -> Release:
        release = release_of(write_dags(tmp_path / folder, value, padding=padding), "alice")
        deploy(target, namespace, release)
        stored[release.name] = release
        return release

    publish("dags", "first")
    publish("dags", "second")
    for turn in range(count):
        before = pointer(share)
        back = turn % 4 == 3
        if back:
            new = next(release for name, release in stored.items() if name != before)
            marks = [mark for mark in MARKS if mark not in ("phase zip", "phase store")]
            publisher = {**config, "rollback": new.name}
        else:
            new = release_of(write_dags(tmp_path / "dags", turn, padding=chance.choice([0, 3_000_000])), "alice")
            marks, publisher = list(MARKS), {**config, "folder": str(tmp_path / "dags")}
        mark, how = chance.choice(marks), chance.choice(["client", "both", "server"])
        publisher["client"] = "fabric" if turn % 2 else "openssh"
        _kill_at(mark, how, publisher, tmp_path, chance.random() * 0.012)
        killed[f"{'rollback' if back else 'deploy'} after '{mark}'"] += 1
        assert pointer(share) in (before, new.name)
        check_whole(share, {**stored, new.name: new}[pointer(share)])
        target.shell.close()
        healed = publish("next", f"next {turn}")
        assert pointer(share) == healed.name
        check_whole(share, healed)
        assert leftovers(share) == []
        for name in list(stored)[:-4]:
            del stored[name]
    target.shell.close()
    print("\n" + "\n".join(f"{number:4} killed: {where}" for where, number in sorted(killed.items())))


def _kill_at(mark: str, how: str, config: dict, tmp_path: Path, delay_s: float) -> None:
    """Runs one publisher and kills it, the processes at the other end, or both, some moments after a mark."""
    path = tmp_path / "publisher.json"
    path.write_text(json.dumps(config))
    publisher = subprocess.Popen(
        [sys.executable, "-m", "tests.publishing", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert publisher.stdout
    children, lines = [], []
    for line in publisher.stdout:
        lines.append(line.strip())
        if line.startswith("child "):
            children.append(int(line.split()[1]))
        elif line.strip() == mark:
            time.sleep(delay_s)
            if how in ("client", "both"):
                kill([publisher.pid, *children])
            if how in ("server", "both"):
                kill(processes_of_user(config["user"]))
            break
    _, stderr = publisher.communicate(timeout=60)
    assert mark in lines, (lines, stderr)


def test_two_users_at_once_both_end_with_their_last_release(
    server: SshServer, share: Path, config: dict, tmp_path: Path
) -> None:
    count = 200 if SOAK else 12
    last: dict[str, Release] = {}
    errors: list[Exception] = []

    def publish(owner: str, user: str) -> None:
        target = target_of({**config, "owner": owner, "user": server.login(user)})
        try:
            for value in range(count):
                release = release_of(write_dags(tmp_path / owner, f"{owner} {value}"), owner)
                deploy(target, Namespace(owner), release)
                last[owner] = release
        except Exception as error:  # noqa: BLE001 - shown by the test's own thread
            errors.append(error)
        finally:
            target.shell.close()

    people = [threading.Thread(target=publish, args=names) for names in (("alice", ALICE), ("bob", BOB))]
    started = time.monotonic()
    for person in people:
        person.start()
    for person in people:
        person.join()
    print(f"\n2 users, {count} publishes each in {time.monotonic() - started:.0f} s")
    assert errors == []
    for owner, release in last.items():
        assert pointer(share, owner) == release.name
        check_whole(share, release, owner)
        audit = (share / "dags" / STORE / owner / "audit.log").read_text().splitlines()
        assert len(audit) == count
    assert sorted(path.name for path in (share / "dags").glob("*.py")) == sorted(
        f"dag_{letter}_{owner}.py" for letter in "abc" for owner in ("alice", "bob")
    )
    assert (share / "dags" / ".airflowignore").read_text().splitlines().count(STORE) >= 1


def test_one_users_two_terminals_wait_for_each_other(share: Path, config: dict, tmp_path: Path) -> None:
    releases = [release_of(write_dags(tmp_path / f"dags{index}", index), "alice") for index in range(6)]
    errors: list[Exception] = []

    def publish(release: Release) -> None:
        target = target_of(config)
        try:
            deploy(target, Namespace("alice"), release)
        except Exception as error:  # noqa: BLE001 - shown by the test's own thread
            errors.append(error)
        finally:
            target.shell.close()

    terminals = [threading.Thread(target=publish, args=(release,)) for release in releases]
    for terminal in terminals:
        terminal.start()
    for terminal in terminals:
        terminal.join()
    assert errors == []
    assert pointer(share) in {release.name for release in releases}
    for release in releases:
        check_whole(share, release)
    assert leftovers(share) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users of one machine")
def test_rights_are_the_groups_and_bytecode_of_others_hinders_nothing(
    server: SshServer, share: Path, config: dict, tmp_path: Path
) -> None:
    namespace, target = Namespace("alice"), target_of(config)
    first = release_of(write_dags(tmp_path / "dags", 1), "alice")
    deploy(target, namespace, first)
    for path in [share / "dags" / STORE, *share.rglob("*")]:
        assert path.stat().st_mode & 0o002 == 0, path
        assert path.group() == "rctl-tests"
    stored = share / "dags" / STORE / "alice" / first.name
    # A personal namespace is its owner's alone; in the common one the group may write.
    assert stat_of(stored) == "2755"
    assert stat_of(stored / "dag_a.py") == "644"
    assert stat_of(share / "dags" / "dag_a_alice.py") == "644"
    common = target_of({**config, "owner": "_shared"})
    shared = release_of(write_dags(tmp_path / "shared", 1), "_shared")
    deploy(common, Namespace(None), shared)
    common.shell.close()
    for folder in (
        share / "dags" / STORE,
        share / "dags" / STORE / "_shared",
        share / "files" / "_shared" / shared.name,
    ):
        assert stat_of(folder) == "2775"
    assert stat_of(share / "dags" / STORE / "_shared" / shared.name / "dag_a.py") == "664"
    # As an earlier version has left it.
    stored.chmod(0o2775)
    subprocess.run(
        ["su", BOB, "-c", f"umask 022; mkdir {stored}/__pycache__ && touch {stored}/__pycache__/dag_a.cpython-311.pyc"],
        check=True,
    )
    assert not deploy(target, namespace, first)
    second = release_of(write_dags(tmp_path / "dags", 2), "alice")
    deploy(target, namespace, second)
    roll_back(target, namespace, first.name)
    assert pointer(share) == first.name
    deploy(target, namespace, second)
    from replayctl.storage import lock
    from tests.reporters import SilentReporter

    with lock.held(target, SilentReporter(), what="test", timeout_s=5) as (token, _):
        remainder = target.remove(token, [first.name], "{}")
    assert not stored.exists()
    assert len(remainder) == 1
    assert deploy(target, namespace, release_of(write_dags(tmp_path / "dags", 3), "alice"))
    target.shell.close()


def stat_of(path: Path) -> str:
    return f"{path.stat().st_mode & 0o7777:o}"
