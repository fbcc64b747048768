"""What other users can plant in a group-writable folder, with two real users over a real sshd.

Bob may write wherever the group may. Whatever he puts there, a deploy of alice's touches nothing else of hers and
nothing of his, says what is in the way and whose it is, and ends.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dags.dag_entities import Namespace
from replayctl.bundle.release import STORE, Release
from replayctl.console.result import EXIT_PARTIAL
from replayctl.errors import Conflict, ReplayctlError
from replayctl.publishing import history, removal, rollback
from replayctl.settings.declared import Settings
from replayctl.settings.load import load_settings
from replayctl.settings.workspace import Workspace
from replayctl.storage import lock
from replayctl.storage.audit import audit_line
from replayctl.storage.target import Publication, Target
from tests.conftest import ROOT
from tests.publishing import deploy, release_of, target_of, write_dags
from tests.reporters import RecordingReporter, SilentReporter
from tests.sshd import WHY_NOT, SshServer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users of one machine"),
]

ALICE, BOB = f"rctl-{os.getpid()}-c", f"rctl-{os.getpid()}-d"
SECRET = "alice's private key\n"


@dataclass
class Place:
    """Shared folders, alice's home beside them, and alice's way to them."""

    share: Path
    home: Path
    config: dict[str, str]
    tmp_path: Path

    @property
    def dags(self) -> Path:
        return self.share / "dags"

    @property
    def store(self) -> Path:
        return self.dags / STORE / "alice"

    @property
    def files(self) -> Path:
        return self.share / "files" / "alice"

    def target(self, **overrides: str) -> Target:
        return target_of({**self.config, **overrides})

    def release(self, value: object) -> Release:
        return release_of(write_dags(self.tmp_path / "dags", value), "alice")

    def deploy(self, value: object, *, force: bool = False) -> Release:
        release, target = self.release(value), self.target()
        try:
            deploy(target, Namespace("alice"), release, force=force)
        finally:
            target.shell.close()
        return release

    def conflict(self, value: object, *words: str) -> Conflict:
        with pytest.raises(Conflict) as excinfo:
            self.deploy(value)
        for word in words:
            assert word in str(excinfo.value)
        return excinfo.value

    def bob(self, command: str) -> None:
        """What bob does in the shared folder, where he may."""
        subprocess.run(["su", BOB, "-c", f"umask 002; cd {self.dags} && {command}"], check=True)

    def settings(self) -> Settings:
        profile = {
            "user": "alice",
            "ssh": {"host": "cluster", "user": self.config["user"], "config": self.config["config"]},
            "folders": {
                "dags": str(self.dags),
                "spark_submit_files": str(self.share / "files"),
                "data_in_pods": "/data",
                "artifacts_in_pods": "/data/replay",
            },
        }
        (self.tmp_path / "replayctl.yaml").write_text(json.dumps({"profiles": {"cluster": profile}}))
        return load_settings("cluster", environ={"HOME": str(self.tmp_path)}, cwd=self.tmp_path)

    def open_up(self) -> None:
        """The namespace's folders as an earlier version has left them, writable for the group."""
        for folder in (self.store, self.files, *self.store.glob("r_*"), *self.files.glob("r_*")):
            folder.chmod(0o2775)


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    sshd = SshServer.start(ALICE, BOB)
    try:
        yield sshd
    finally:
        sshd.stop()


@pytest.fixture
def place(server: SshServer, tmp_path: Path) -> Place:
    subprocess.run(["rm", "-rf", str(server.folder / "share"), str(server.folder / "alice")], check=True)
    server.make_share()
    home = server.folder / "alice"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id").write_text(SECRET)
    (home / "thesis").mkdir()
    (home / "thesis" / "thesis.tex").write_text("years of work\n")
    (home / ".lock.d").mkdir()
    (home / ".tmp.x").write_text("hers\n")
    (home / ".ssh" / "id").chmod(0o600)
    for path in (home, *home.rglob("*")):
        shutil.chown(path, ALICE)
    config = server.client_config(tmp_path / "config")
    folders = {"dags": str(server.folder / "share" / "dags"), "files": str(server.folder / "share" / "files")}
    words = {**folders, "owner": "alice", "host": "cluster", "user": ALICE, "config": str(config)}
    return Place(server.folder / "share", home, words, tmp_path)


def listed() -> list[str]:
    """What runs as alice at the other end."""
    processes = subprocess.run(["ps", "-o", "stat=,args=", "-u", ALICE], capture_output=True, text=True, check=False)
    return [line for line in processes.stdout.splitlines() if not line.startswith("Z")]


def hanging() -> list[str]:
    """What alice's commands have left behind at the other end, once their connections are closed."""
    deadline = time.monotonic() + 10
    while (hanging_processes := listed()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return hanging_processes


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


PLANTED: dict[str, tuple[str, str]] = {
    # What bob does, and what the answer must name. {home} is alice's, {S} her store, {F} her part of Spark's folder.
    "log is a link": ("mv {S}/audit.log {S}/gone; ln -s {home}/.ssh/id {S}/audit.log", "/audit.log is a link"),
    "log is a FIFO": ("mv {S}/audit.log {S}/gone; mkfifo {S}/audit.log", "/audit.log is a FIFO"),
    "log is his": ("mv {S}/audit.log {S}/gone; echo > {S}/audit.log", "/audit.log is a file"),
    "pointer is a folder": ("rm -f {S}/current; mkdir {S}/current", "/current is a folder"),
    "pointer is a link to a folder": ("rm -f {S}/current; ln -s {home}/thesis {S}/current", "/current is a link"),
    "pointer is a link to a file": ("rm -f {S}/current; ln -s {home}/.ssh/id {S}/current", "/current is a link"),
    "pointer is a FIFO": ("rm -f {S}/current; mkfifo {S}/current", "/current is a FIFO"),
    "next release is a link": ("ln -s {home}/thesis {S}/{next}", "is a link"),
    "next release is his": ("mkdir {S}/{next}", "is a folder"),
    "next zip is a link": ("ln -s {home}/thesis {F}/{next}", "is a link"),
    "current release is a link": ("mv {S}/{now} {S}/gone; ln -s {home}/thesis {S}/{now}", "is a link"),
    "namespace is a link": ("mv {S} replayctl_releases/gone; ln -s {home} {S}", "replayctl_releases/alice is a link"),
    "namespace is his": ("mv {S} replayctl_releases/gone; mkdir {S}", "replayctl_releases/alice is a folder"),
    "all releases are a link": ("mv replayctl_releases gone; ln -s {home} replayctl_releases", "releases is a link"),
    "Spark's part is a link": ("mv {F} {F}.gone; ln -s {home} {F}", "files/alice is a link"),
    "Spark's part is his": ("mv {F} {F}.gone; mkdir {F}", "files/alice is a folder"),
    "stub is a link": ("mv dag_a_alice.py gone; ln -s {home}/.ssh/id dag_a_alice.py", "dag_a_alice.py is a link"),
    "stub is a FIFO": ("mv dag_a_alice.py gone; mkfifo dag_a_alice.py", "dag_a_alice.py is a FIFO"),
    "stub is a folder": ("mv dag_a_alice.py gone; mkdir dag_a_alice.py", "dag_a_alice.py is a folder"),
    "ignore file is a link": ("rm -f .airflowignore; ln -s {home}/.ssh/id .airflowignore", ".airflowignore is a link"),
    "ignore file is a FIFO": ("rm -f .airflowignore; mkfifo .airflowignore", ".airflowignore is a FIFO"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_files_planted_by_bob_are_named_and_alices_are_not_changed(place: Place, name: str) -> None:
    now = place.deploy("now")
    place.open_up()
    coming = place.release("next")
    command, words = PLANTED[name]
    places = {"home": place.home, "S": place.store, "F": place.files, "now": now.name, "next": coming.name}
    place.bob(command.format(**places))
    before, theirs = contents(place.home), sorted(path.name for path in place.share.rglob("gone/*"))
    error = place.conflict("next", words, f"belongs to {BOB}" if "dag_a" not in name and "stub" not in name else BOB)
    assert error.hint
    assert "rm" in error.hint
    assert contents(place.home) == before
    assert sorted(path.name for path in place.share.rglob("gone/*")) == theirs
    # Nobody is left behind there.
    assert hanging() == []


def test_before_the_first_deploy_too_a_link_is_not_followed(place: Place) -> None:
    place.bob(f"mkdir {STORE} && ln -s {place.home} {STORE}/alice && ln -s {place.home} {place.files}")
    before = contents(place.home)
    place.conflict("first", f"{STORE}/alice is a link that belongs to {BOB}")
    place.bob(f"rm {STORE}/alice")
    place.conflict("first", f"files/alice is a link that belongs to {BOB}")
    place.bob(f"rm {place.files}")
    place.deploy("first")
    assert contents(place.home) == before


def test_a_hard_link_to_a_file_of_ours_is_not_written_through(place: Place) -> None:
    place.deploy("now")
    for name in (place.store / "audit.log", place.dags / ".airflowignore"):
        content = name.read_bytes()
        name.unlink()
        # As bob can where hard links are not protected.
        os.link(place.home / ".ssh" / "id", name)
        place.conflict(f"next to {name.name}", "has other hard links")
        assert (place.home / ".ssh" / "id").read_text() == SECRET
        name.unlink()
        name.write_bytes(content)
        shutil.chown(name, ALICE)
    place.deploy("next")


_RACER = """
import os, sys
from pathlib import Path
dags, home, stop = map(Path, sys.argv[1:4])
os.umask(0o002)
MINE = ".tmp.of-bob"
places = [dags / "replayctl_releases" / owner for owner in ("alice", "_shared")]
places += [dags.parent / "files" / owner for owner in ("alice", "_shared")]

def attempt(action, *words):
    try:
        action(*words)
    except OSError:
        pass

while not stop.exists():
    for place in places:
        try:
            names = os.listdir(place)
        except OSError:
            continue
        for name in {*names, "current", "audit.log", ".lock"}:
            if name.startswith(MINE):
                attempt(os.unlink, place / name)
            elif name.startswith((".tmp", ".lock", "current", "audit.log")):
                aim = home / "thesis" if name.startswith(".tmp") else home / ".ssh" / "id"
                attempt(os.rename, place / name, place / f"stolen.{os.getpid()}")
                attempt(os.symlink, aim, place / name)
                attempt(os.symlink, aim, place / f"{MINE}{name}")
                attempt(os.unlink, place / name)
    for name in ("dag_a_alice.py", ".airflowignore"):
        attempt(os.unlink, dags / name)
        attempt(os.symlink, home / ".ssh" / "id", dags / name)
        attempt(os.unlink, dags / name)
"""


@pytest.mark.parametrize("owner", ["alice", "_shared"])
def test_swapping_names_during_a_deploy_changes_no_file_of_ours(place: Place, owner: str) -> None:
    namespace = Namespace(None if owner == "_shared" else owner)
    before, stop = contents(place.home), place.share.parent / "stop"
    stop.unlink(missing_ok=True)
    code = place.share.parent / "racer.py"
    code.write_text(_RACER)
    command = [sys.executable, str(code), str(place.dags), str(place.home), str(stop)]
    # Both of the user and of the group that the shared folders belong to, and nothing else.
    racer = subprocess.Popen(["setpriv", f"--reuid={BOB}", "--regid=rctl-tests", "--clear-groups", *command])
    outcomes = []
    try:
        for value in range(40 if os.environ.get("SOAK") else 8):
            for folder in (place.store, place.files):
                if folder.is_dir():
                    folder.chmod(0o2775)
            target = place.target(owner=owner)
            release = release_of(write_dags(place.tmp_path / "raced", value), owner)
            try:
                deploy(target, namespace, release)
                outcomes.append("published")
            except ReplayctlError as error:
                outcomes.append(str(error))
            finally:
                target.shell.close()
    finally:
        stop.touch()
        try:
            racer.wait(10)
        finally:
            racer.kill()
    print("\n".join(outcomes))
    assert contents(place.home) == before
    assert hanging() == []


def dead_holder() -> str:
    """The words of a lock whose process on this machine has gone."""
    return f"{json.dumps({**lock.whoami(), 'user': 'bob', 'pid': 2**22 + 1})} {int(time.time()) - 90}"


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        ("printf '' > {lock}", "an unnamed holder"),
        ("printf '\\0\\377' > {lock}", "an unnamed holder"),
        ("printf '{{}} 12²' > {lock}", "an unnamed holder"),
        ("head -c 100000 /dev/zero | tr '\\0' '[' > {lock}", "an unnamed holder"),
        ("mkfifo {lock}", f"a FIFO of {BOB} in place of the lock"),
        ("ln -s {home}/.ssh/id {lock}", f"a link of {BOB} in place of the lock"),
        ("mkdir {lock}", f"a folder of {BOB} in place of the lock"),
    ],
)
def test_a_lock_of_any_kind_is_named_waited_for_and_broken(place: Place, planted: str, named: str) -> None:
    place.deploy("now")
    place.open_up()
    place.bob(planted.format(lock=place.store / ".lock", home=place.home))
    before, target, reporter = contents(place.home), place.target(), RecordingReporter()
    with pytest.raises(Conflict, match=f"locked by {named}"), lock.held(target, reporter, what="x", timeout_s=0):
        raise AssertionError("taken")
    with lock.held(target, reporter, what="x", timeout_s=0, break_lock=True):
        pass
    target.shell.close()
    assert f"breaking the lock of {named}" in reporter.messages("warn")
    assert not os.path.lexists(place.store / ".lock")
    assert contents(place.home) == before
    place.deploy("next")


def test_a_dead_lock_that_cannot_be_removed_is_named_at_once(place: Place, server: SshServer) -> None:
    target = place.target(owner="_shared")
    common = place.dags / STORE / "_shared"
    place.bob(f"mkdir -p {common} && chmod 3775 {common}")
    (place.tmp_path / "lock").write_text(dead_holder())
    shutil.copy(place.tmp_path / "lock", common / ".lock")
    shutil.chown(common / ".lock", BOB)
    scripts: list[str] = []
    run = target.shell.run

    def recording_run(script: str, *words: object, **options: object) -> bytes:
        scripts.append(script)
        return run(script, *words, **options)  # type: ignore[arg-type]

    target.shell.run = recording_run  # type: ignore[method-assign]
    for options in ({}, {"break_lock": True}):
        scripts.clear()
        with (
            pytest.raises(Conflict, match=rf"/\.lock is a file that belongs to {BOB}") as excinfo,
            lock.held(target, SilentReporter(), what="x", timeout_s=30, **options),
        ):
            raise AssertionError("taken")
        assert scripts == ["lock+inspect", "lock+inspect", "unlock"]
        assert f"ask {BOB} to" in (excinfo.value.hint or "")
    target.shell.close()
    # In a folder of alice's own the lock of a dead process goes, whoever has made it.
    place.deploy("now")
    place.open_up()
    shutil.copy(place.tmp_path / "lock", place.store / ".lock")
    shutil.chown(place.store / ".lock", BOB)
    place.deploy("next")


def damage(path: Path, how: str) -> None:
    text = path.read_bytes()
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(
            {"cut": text[:40], "cut at a line": text[: text.index(b"\n") + 1], "bytes": b"\0\377\n", "empty": b""}[how]
        )


@pytest.mark.parametrize("how", ["removed", "cut", "cut at a line", "bytes", "empty"])
@pytest.mark.parametrize("side", ["release", "submit"])
def test_a_damaged_list_of_checksums_hides_no_edit_and_heals(place: Place, how: str, side: str) -> None:
    first, now = place.deploy("first"), place.deploy("now")
    stored_folder = (place.store if side == "release" else place.files) / now.name
    for release in (first, now):
        damage(stored_folder.parent / release.name / ".manifest", how)
    script = stored_folder / "dag_submit.py"
    good = script.read_bytes()
    script.write_bytes(good + b"# mine\n")
    place.conflict("now", "dag_submit.py")
    script.write_bytes(good)
    # Nothing but the list is wrong: that is repaired without asking.
    target = place.target()
    assert deploy(target, Namespace("alice"), now)
    assert not deploy(target, Namespace("alice"), now)
    damage(stored_folder / ".manifest", how)
    script.write_bytes(good + b"# mine\n")
    assert deploy(target, Namespace("alice"), now, force=True)
    assert script.read_bytes() == good
    assert not deploy(target, Namespace("alice"), now)
    target.shell.close()
    settings, namespace = place.settings(), Namespace("alice")
    with pytest.raises(Conflict):
        rollback.rollback(first.name, Workspace(settings, namespace, SilentReporter()), find_server=None, dry_run=True)
    assert removal.gc(Workspace(settings, namespace, SilentReporter()), server=None, keep=1, dry_run=True).kept
    assert [record.name for record in history.releases(Workspace(settings, namespace, SilentReporter())).releases] == [
        now.name,
        first.name,
    ]
    removal.undeploy(Workspace(settings, namespace, SilentReporter()), server=None)
    assert not list(place.store.glob("r_*"))


def test_what_is_put_into_a_stored_release_is_seen_and_goes(place: Place) -> None:
    now = place.deploy("now")
    place.open_up()
    stored_folder = place.store / now.name
    place.bob(
        f"cd {stored_folder} && mkfifo pipe.py && ln -s {place.home}/.ssh/id key.py && mv dag_a.py gone && "
        f"ln -s {place.home}/thesis package"
    )
    before = contents(place.home)
    assert "key.py" in str(place.conflict("now"))
    place.deploy("now", force=True)
    assert contents(place.home) == before
    assert sorted(path.name for path in stored_folder.iterdir()) == sorted(
        [".manifest", ".release.json", *(file.path for file in now.files)]
    )
    for file in now.files:
        assert (stored_folder / file.path).read_bytes() == file.content


def test_fifos_among_the_dag_files_hang_nothing(place: Place) -> None:
    place.bob("mkfifo dag_zz.py dag_old_alice.py && ln -s /nowhere dag_link_alice.py && mkdir dag_folder_alice.py")
    started = time.monotonic()
    place.deploy("now")
    target = place.target()
    assert set(target.inspect().foreign) >= {"dag_zz.py", "dag_old_alice.py"}
    target.shell.close()
    assert time.monotonic() - started < 60
    assert hanging() == []


def test_a_copy_of_our_stub_under_another_name_is_its_makers(place: Place) -> None:
    place.deploy("now")
    place.bob("cp dag_a_alice.py dag_bobs_copy.py && cp dag_a_alice.py dag_copy_alice.py")
    place.deploy("next")
    assert (place.dags / "dag_bobs_copy.py").exists()
    assert (place.dags / "dag_copy_alice.py").exists()
    removal.undeploy(Workspace(place.settings(), Namespace("alice"), SilentReporter()), server=None)
    assert (place.dags / "dag_bobs_copy.py").exists()
    assert (place.dags / "dag_copy_alice.py").exists()
    assert not (place.dags / "dag_a_alice.py").exists()


def test_gc_and_undeploy_remove_nothing_behind_a_link(place: Place) -> None:
    first = place.deploy("first")
    place.deploy("now")
    place.open_up()
    place.bob(
        f"mv {place.store / first.name} {place.store}/gone && ln -s {place.home}/thesis {place.store / first.name}"
    )
    before, settings = contents(place.home), place.settings()
    target = place.target()
    with (
        pytest.raises(Conflict, match=f"{first.name} is a link that belongs to {BOB}"),
        lock.held(target, SilentReporter(), what="x", timeout_s=0) as (token, _),
    ):
        target.remove(token, [first.name], "{}")
    target.shell.close()
    with pytest.raises(Conflict, match=f"{first.name} is a link"):
        removal.undeploy(Workspace(settings, Namespace("alice"), SilentReporter()), server=None)
    assert contents(place.home) == before


def test_after_a_killed_publish_the_list_is_right_and_a_rollback_goes_back_one_step(place: Place) -> None:
    names = [place.deploy(value).name for value in ("one", "two", "three")]
    settings, namespace = place.settings(), Namespace("alice")
    log = (place.store / "audit.log").read_text().splitlines()
    # Killed after the line, before the pointer.
    (place.store / "current").write_text(f"{names[1]}\n")
    listing = history.releases(Workspace(settings, namespace, SilentReporter()))
    assert [record.name for record in listing.releases] == [names[1], names[0], names[2]]
    assert [line.get("effective", True) for line in listing.audit] == [True, True, False]
    assert place.deploy("three").name == names[2]
    # And as a version that wrote its lines afterwards has left it: the pointer moved, the line is not there.
    (place.store / "audit.log").write_text("\n".join(log[:2]) + "\n")
    listing = history.releases(Workspace(settings, namespace, SilentReporter()))
    assert [record.name for record in listing.releases] == [names[2], names[1], names[0]]
    place.deploy("four")
    back = rollback.rollback(None, Workspace(settings, namespace, SilentReporter()), find_server=None)
    assert back.release == names[2]


def test_rollback_chooses_when_it_has_the_lock(place: Place) -> None:
    one, two = place.deploy("one"), place.deploy("two")
    settings, target = place.settings(), place.target()
    with lock.held(target, SilentReporter(), what="another terminal", timeout_s=0) as (token, _):
        waiting = subprocess.Popen(
            [sys.executable, "-m", "replayctl", "--profile", "cluster", "rollback"],
            cwd=place.tmp_path,
            env={"HOME": str(place.tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr
        for line in waiting.stderr:
            if "waiting for" in line:
                break
        three = place.release("three")
        publish(target, token, three, previous=two.name)
    assert waiting.wait(60) == 0
    waiting.communicate()
    target.shell.close()
    assert history.releases(Workspace(settings, Namespace("alice"), SilentReporter())).releases[0].name == two.name
    assert (place.store / "current").read_text().strip() == two.name
    assert one.name in {path.name for path in place.store.glob("r_*")}


def publish(target: Target, token: str, release: Release, previous: str) -> None:
    line = audit_line("publish", release=release.name, previous=previous)
    metadata = json.dumps({"dags": {module: [] for module in release.modules}})
    target.publish(token, Publication(release.name, line, upload=release, metadata=metadata))


def test_term_ends_a_command_that_hangs_at_the_other_end_within_seconds(place: Place, server: SshServer) -> None:
    place.deploy("now")
    code = (
        "import sys\nfrom pathlib import Path\nfrom replayctl.cli import main\n"
        # The other side hangs from the first script on, the unlock too, as on a dead mount.
        "from replayctl.storage import shell\nread = shell._file\n"
        "shell._file = lambda name: read(name) + ('\\nsleep 300\\n' if name in ('lock.sh', 'unlock.sh') else '')\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, "--profile", "cluster", "gc"]
    place.settings()
    running = subprocess.Popen(
        command,
        cwd=place.tmp_path,
        env={"HOME": str(place.tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any("sleep 300" in line for line in listed()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, stderr = running.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert running.returncode == 143, stderr
    assert "the lock may not have been released" in stderr


def test_gc_removes_what_killed_tasks_left_and_names_what_only_tasks_may(place: Place) -> None:
    release = place.deploy("x")
    artifacts = place.share / "experiments"
    split = artifacts / "alice" / "ml" / "split"
    names = [f".{number}.{'0' * 12}.{'1' * 32}.tmp" for number in range(3)]
    for name in names:
        (split / name / "table").mkdir(parents=True)
        (split / name / "table" / "part").write_text("x")
    subprocess.run(["chown", "-R", f"{BOB}:rctl-tests", artifacts], check=True)
    subprocess.run(["chmod", "-R", "u=rwX,g=rwX,o=rX", artifacts], check=True)
    # A task's, closed to the group; and a young one.
    subprocess.run(["chmod", "-R", "g-w", split / names[1]], check=True)
    past = time.time() - 8 * 86400
    for path in (artifacts, *artifacts.rglob("*")):
        if names[2] not in path.parts:
            os.utime(path, (past, past))
    place.settings()
    (place.tmp_path / "replayctl.yaml").write_text(
        (place.tmp_path / "replayctl.yaml")
        .read_text()
        .replace('"artifacts_in_pods"', f'"artifacts": "{artifacts}", "artifacts_in_pods"')
    )

    def gc(*words: str) -> dict:
        argv = [sys.executable, "-m", "replayctl", "--profile", "cluster", "--output", "json", "gc", *words]
        environ = {**os.environ, "HOME": str(place.tmp_path), "PYTHONPATH": str(ROOT)}
        result = subprocess.run(argv, cwd=place.tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    for words in (["--dry-run"], []):
        answer = gc(*words)
        assert (answer["status"], answer["data"]["dry_run"]) == ("ok", bool(words))
        assert answer["data"]["kept"] == {release.name: "published"}
        assert answer["data"]["unfinished"] == {
            "folder": f"{artifacts}/alice on {place.config['user']}@cluster",
            "removed": [f"ml/split/{names[0]}"],
            "kept": {f"ml/split/{names[2]}": "written to within the last 7 days"},
            "failed": {f"ml/split/{names[1]}": f"belongs to {BOB}"},
        }
        assert names[1] in answer["warnings"][0]
        assert (split / names[0]).exists() == bool(words)
    assert gc()["status"] == "nothing-to-do"
    assert (split / names[1] / "table" / "part").exists()
    shutil.rmtree(artifacts)
    argv = [sys.executable, "-m", "replayctl", "--profile", "cluster", "gc"]
    environ = {**os.environ, "HOME": str(place.tmp_path), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(argv, cwd=place.tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == EXIT_PARTIAL
    assert "@cluster: the folder of artifacts" in result.stderr
