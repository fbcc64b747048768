"""What colleagues can plant in a group-writable folder, by two real users over a real sshd.

Bob may write wherever the group may. Whatever he puts there, a deploy of alice's touches nothing else of hers and
nothing of his, says what is in the way and whose it is, and ends.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dags.dag_entities import Namespace
from replayctl.bundle.release import STORE, Release
from replayctl.errors import Conflict
from replayctl.settings.load import Settings, load_settings
from replayctl.storage.target import Target
from tests.publishing import deploy, release_of, target_of, write_dags
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

    def target(self, **more: str) -> Target:
        return target_of({**self.config, **more})

    def release(self, value: object) -> Release:
        return release_of(write_dags(self.tmp_path / "dags", value), "alice")

    def deploy(self, value: object, *, force: bool = False) -> Release:
        made, target = self.release(value), self.target()
        try:
            deploy(target, Namespace("alice"), made, force=force)
        finally:
            target.shell.close()
        return made

    def refused(self, value: object, *words: str) -> Conflict:
        with pytest.raises(Conflict) as caught:
            self.deploy(value)
        for word in words:
            assert word in str(caught.value)
        return caught.value

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
    made = SshServer.start(ALICE, BOB)
    try:
        yield made
    finally:
        made.stop()


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


def hanging() -> list[str]:
    """What alice's commands have left behind at the other end, once their connections are closed."""
    deadline = time.monotonic() + 10
    while True:
        listed = subprocess.run(["ps", "-o", "stat=,args=", "-u", ALICE], capture_output=True, text=True, check=False)
        left = [line for line in listed.stdout.splitlines() if not line.startswith("Z")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


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
def test_what_bob_has_planted_is_named_and_nothing_of_alice_is_touched(place: Place, name: str) -> None:
    now = place.deploy("now")
    place.open_up()
    coming = place.release("next")
    command, words = PLANTED[name]
    places = {"home": place.home, "S": place.store, "F": place.files, "now": now.name, "next": coming.name}
    place.bob(command.format(**places))
    before, theirs = contents(place.home), sorted(path.name for path in place.share.rglob("gone/*"))
    error = place.refused("next", words, f"belongs to {BOB}" if "dag_a" not in name and "stub" not in name else BOB)
    assert error.hint
    assert "rm" in error.hint
    assert contents(place.home) == before
    assert sorted(path.name for path in place.share.rglob("gone/*")) == theirs
    # Nobody is left behind there.
    assert hanging() == []
