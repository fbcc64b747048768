"""Wheels and jars over a real sshd: what is sent, what is not, what a cut leaves, and what others plant."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from replayctl import process
from replayctl.errors import OperationFailed
from replayctl.storage.packages import PackageStore
from replayctl.storage.shell import BOOTSTRAP, END_OF_SCRIPT, LocalShell, answer_of, stream_of
from replayctl.storage.target import Modes
from tests.conftest import ROOT
from tests.sshd import WHY_NOT, SshServer

pytestmark = [pytest.mark.integration, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]

ALICE = f"rctl-{os.getpid()}-p"
BOB = f"rctl-{os.getpid()}-q"
_SLOW_BYTES = 300_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    server = SshServer.start(ALICE, BOB)
    try:
        yield server
    finally:
        server.stop()


class Workstation:
    """A home with settings whose folders are behind the server."""

    def __init__(self, server: SshServer, home: Path) -> None:
        self.home = home
        self.share = server.folder / "share"
        self.user = home.name[:20].replace("_", "").lower()
        self.environ = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
        config = server.client_config(home / "config")
        settings = {
            "profiles": {
                "far": {
                    "user": self.user,
                    "ssh": {"host": "cluster", "user": server.login(ALICE), "config": str(config)},
                    "folders": {
                        "dags": str(self.share / "dags"),
                        "spark_submit_files": str(self.share / "files"),
                        "spark_submit_files_in_pods": "/opt/files",
                        "data_in_pods": "/opt/data",
                        "artifacts_in_pods": "/opt/artifacts",
                    },
                }
            }
        }
        (home / "replayctl.yaml").write_text(yaml.safe_dump(settings))

    @property
    def stored(self) -> Path:
        return self.share / "files" / self.user / "packages"

    def start(self, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "replayctl", "--profile", "far", "--output", "json", "upd-wheels-and-jars"]
        return subprocess.Popen(
            [*argv, *words], cwd=self.home, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *words: str, code: int = 0) -> Any:
        process = self.start(*words)
        stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == code, f"{stdout}\n{stderr}"
        return json.loads(stdout)

    def jar(self, size: int, name: str = "big_2.12-1.0.jar") -> Path:
        path = self.home / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
            with archive.open("a.class", "w") as member:
                for _ in range(size // 1_000_000):
                    member.write(os.urandom(1_000_000))
        return path


@pytest.fixture
def workstation(server: SshServer, tmp_path: Path) -> Workstation:
    return Workstation(server, tmp_path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_whole_way(workstation: Workstation) -> None:
    jar = workstation.jar(2_000_000)
    planned = workstation.run(str(jar), "--dry-run")
    assert [row["outcome"] for row in planned["data"]["packages"]] == ["would send", "would send"]
    assert not workstation.stored.exists()
    first = workstation.run(str(jar))
    wheel, big = first["data"]["packages"]
    assert wheel["name"].startswith("replayctl_workloads-")
    for row in (wheel, big):
        assert row["outcome"] == "sent"
        path = Path(row["path"])
        assert sha256(path) == row["sha256"]
        assert path.stat().st_mode & 0o777 == 0o444
        assert row["path_in_pods"] == f"/opt/files/{workstation.user}/packages/{path.parent.name}/{path.name}"
    again = workstation.run(str(jar))
    assert again["status"] == "nothing-to-do"
    assert [row["sent_bytes"] for row in again["data"]["packages"]] == [0, 0]
    listed = workstation.run("--list")
    assert {row["name"] for row in listed["data"]["packages"]} == {wheel["name"], big["name"]}
    # Edited there by hand: its hash shows that, and it is stored again.
    path = Path(big["path"])
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    path.chmod(0o444)
    healed = workstation.run(str(jar), "--no-workloads")
    assert healed["data"]["packages"][0]["outcome"] == "sent"
    assert sha256(path) == big["sha256"]
    log = [json.loads(line) for line in (workstation.stored / "audit.log").read_text().splitlines()]
    assert [line["package"] for line in log] == [wheel["name"], big["name"], big["name"]]
    assert sorted(entry.name for entry in workstation.stored.iterdir() if entry.name.startswith(".tmp")) == []


def test_prune_keeps_the_newest_builds_of_each_product(workstation: Workstation) -> None:
    for number in range(3):
        jar = workstation.jar(1_000_000, f"model_2.12-1.{number}.jar")
        workstation.run(str(jar), "--no-workloads")
        # Moments of uploads have whole seconds.
        time.sleep(1.1)
    planned = workstation.run("--prune", "--keep", "2", "--dry-run")
    assert [row["name"] for row in planned["data"]["removed"]] == ["model_2.12-1.0.jar"]
    assert len(workstation.run("--list")["data"]["packages"]) == 3
    workstation.run("--prune", "--keep", "2")
    packages = workstation.run("--list")["data"]["packages"]
    assert [row["name"] for row in packages] == ["model_2.12-1.1.jar", "model_2.12-1.2.jar"]


def release(workstation: Workstation, name: str, path: str, *, published: bool = False) -> None:
    """A stored release that names the package at `path`, as a deploy leaves it."""
    namespace = workstation.share / "dags" / "replayctl_releases" / workstation.user
    (namespace / name).mkdir(parents=True)
    packages = {"model": {"path": path, "digest": Path(path).parent.name.removeprefix("p_")}}
    (namespace / name / "deployment.json").write_text(json.dumps({"packages": packages}))
    if published:
        (namespace / "current").write_text(f"{name}\n")


def test_a_package_that_a_release_uses_is_pruned_only_on_request(workstation: Workstation) -> None:
    rows = []
    for number in range(4):
        jar = workstation.jar(1_000_000, f"model_2.12-1.{number}.jar")
        rows += workstation.run(str(jar), "--no-workloads")["data"]["packages"]
        time.sleep(1.1)
    release(workstation, "r_1", rows[0]["path_in_pods"])
    release(workstation, "r_2", rows[1]["path_in_pods"], published=True)
    pruned = workstation.run("--prune", "--keep", "1")["data"]
    assert [row["name"] for row in pruned["removed"]] == ["model_2.12-1.2.jar"]
    users = {row["name"]: row["used_by"] for row in pruned["in_use"]}
    assert users == {
        "model_2.12-1.0.jar": [f"{workstation.user}/r_1"],
        "model_2.12-1.1.jar": [f"{workstation.user}/r_2 (published)"],
    }
    assert all(Path(rows[number]["path"]).is_file() for number in (0, 1, 3))
    assert workstation.run("--prune", "--keep", "1")["status"] == "nothing-to-do"
    forced = workstation.run("--prune", "--keep", "1", "--include-used")["data"]
    assert len(forced["removed"]) == 2
    assert [row["name"] for row in workstation.run("--list")["data"]["packages"]] == ["model_2.12-1.3.jar"]


def test_a_common_package_counts_as_used_by_everybodys_releases(workstation: Workstation) -> None:
    rows = []
    for number in range(2):
        jar = workstation.jar(1_000_000, f"model_2.12-1.{number}.jar")
        rows += workstation.run(str(jar), "--no-workloads", "--shared")["data"]["packages"]
        time.sleep(1.1)
    release(workstation, "r_1", rows[0]["path_in_pods"])
    pruned = workstation.run("--prune", "--keep", "1", "--shared")["data"]
    assert [row["used_by"] for row in pruned["in_use"]] == [[f"{workstation.user}/r_1"]]
    assert Path(rows[0]["path"]).is_file()


def test_old_leftovers_are_swept_also_when_no_build_is_old(workstation: Workstation) -> None:
    workstation.run(str(workstation.jar(1_000_000)), "--no-workloads")
    parts = next(workstation.stored.glob(".parts.*"))
    for name, days in (("part." + "a" * 64, 8), ("work." + "b" * 64 + ".0", 8), ("part." + "c" * 64, 5)):
        (parts / name).write_bytes(b"x")
        os.utime(parts / name, (time.time() - days * 86400,) * 2)
    assert workstation.run("--prune", "--dry-run")["data"]["leftovers"] is None
    assert workstation.run("--prune")["data"]["leftovers"] == 2
    assert [path.name for path in parts.iterdir()] == ["part." + "c" * 64]
    log = (workstation.stored / "audit.log").read_text()
    assert '"prune"' not in log


def test_a_large_file_is_cut_and_goes_on_in_flat_memory(server: SshServer, workstation: Workstation) -> None:
    jar = workstation.jar(_SLOW_BYTES)
    uploading = workstation.start(str(jar), "--no-workloads")
    parts = workstation.stored
    peak = 0
    process = psutil.Process(uploading.pid)
    while uploading.poll() is None:
        peak = max(peak, process.memory_info().rss)
        work = list(parts.glob(".parts.*/work.*"))
        if work and work[0].stat().st_size > 50_000_000:
            server.halt()
            break
        time.sleep(0.005)
    stdout, stderr = uploading.communicate(timeout=60)
    server.run()
    answer = json.loads(stdout)
    assert answer["exit_code"] != 0, stderr
    assert answer["errors"][0]["code"] in ("unreachable", "failed")
    assert not list(parts.glob("p_*"))
    deadline = time.monotonic() + 20
    while not (fragments := list(parts.glob(".parts.*/part.*"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    arrived = fragments[0].stat().st_size
    assert 50_000_000 < arrived < jar.stat().st_size
    uploading = workstation.start(str(jar), "--no-workloads")
    process = psutil.Process(uploading.pid)
    while uploading.poll() is None:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.005)
    row = json.loads(uploading.communicate()[0])["data"]["packages"][0]
    assert row["outcome"] == "resumed"
    assert row["sent_bytes"] == jar.stat().st_size - arrived
    assert sha256(Path(row["path"])) == sha256(jar)
    assert peak < 150_000_000


def test_a_part_that_is_not_our_beginning_is_not_gone_on_with(workstation: Workstation) -> None:
    jar = workstation.jar(3_000_000)
    other = workstation.jar(1_000_000, "other_2.12-1.jar")
    workstation.run(str(other), "--no-workloads")
    parts = next(workstation.stored.glob(".parts.*"))
    part = parts / f"part.{sha256(jar)}"
    part.write_bytes(b"y" * 1_000_000)
    os.chown(part, parts.stat().st_uid, -1)
    row = workstation.run(str(jar), "--no-workloads")["data"]["packages"][0]
    assert row["outcome"] == "sent"
    assert row["sent_bytes"] == jar.stat().st_size
    assert sha256(Path(row["path"])) == sha256(jar)


@pytest.mark.parametrize("client", ["openssh", "fabric"])
def test_a_client_that_is_killed_leaves_nothing_by_half(workstation: Workstation, client: str) -> None:
    workstation.environ["REPLAYCTL_SSH_CLIENT"] = client
    jar = workstation.jar(100_000_000)
    uploading = workstation.start(str(jar), "--no-workloads")
    while not any(path.stat().st_size for path in workstation.stored.glob(".parts.*/work.*")):
        assert uploading.poll() is None
        time.sleep(0.005)
    ssh = psutil.Process(uploading.pid).children(recursive=True)
    uploading.send_signal(signal.SIGKILL)
    for child in ssh:
        child.kill()
    uploading.communicate()
    assert not (workstation.stored / f"p_{sha256(jar)[:16]}").exists()
    row = workstation.run(str(jar), "--no-workloads")["data"]["packages"][0]
    assert sha256(Path(row["path"])) == sha256(jar)


@pytest.mark.parametrize("kind", ["link", "fifo", "link-in-package"])
def test_what_others_plant_is_not_followed(workstation: Workstation, kind: str) -> None:
    jar = workstation.jar(1_000_000)
    folder = f"p_{sha256(jar)[:16]}"
    elsewhere = workstation.home / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    if kind == "link-in-package":
        row = workstation.run(str(jar), "--no-workloads")["data"]["packages"][0]
        path = Path(row["path"])
        path.unlink()
        (elsewhere / "jar").write_bytes(jar.read_bytes())
        path.symlink_to(elsewhere / "jar")
        assert workstation.run(str(jar), "--no-workloads")["data"]["packages"][0]["outcome"] == "sent"
        assert not path.is_symlink()
        return
    other = workstation.jar(1_000_000, "other_2.12-1.jar")
    workstation.run(str(other), "--no-workloads")
    place = workstation.stored / folder
    if kind == "link":
        place.symlink_to(elsewhere)
    else:
        os.mkfifo(place)
    answer = workstation.run(str(jar), "--no-workloads", code=7)
    assert folder in answer["errors"][0]["message"]
    assert "rm '" in answer["errors"][0]["hint"]
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("program", ["dash", "bash --posix", "busybox sh", "mksh"])
@pytest.mark.parametrize("sent", ["whole", "rest", "other"])
def test_every_posix_shell_hashes_what_it_receives(program: str, sent: str, tmp_path: Path) -> None:
    words = program.split()
    shell = shutil.which(words[0])
    if shell is None:
        pytest.skip(f"no {words[0]} on this machine")
    tools, log = tmp_path / "tools", tmp_path / "log"
    tools.mkdir()
    if words[0] == "busybox":
        subprocess.run([shell, "--install", "-s", str(tools)], check=True)
        (tools / "sha256sum").unlink()
    # One that is found where openssl would be, and leaves a line for each file that it hashes.
    (tools / "openssl").write_text(f"#!/bin/sh\necho once >> {log}\nexec /usr/bin/sha256sum\n")
    (tools / "openssl").chmod(0o755)
    environ = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}

    class OtherShell(LocalShell):
        def stream(
            self,
            script: str,
            variables: Mapping[str, str],
            words_: Sequence[str],
            chunks: Iterable[bytes],
            *,
            silence_s: float = 60.0,
        ) -> bytes:
            argv = [shell, *words[1:], "-c", BOOTSTRAP, END_OF_SCRIPT]
            sent = stream_of(script, variables, words_, chunks)
            return answer_of(process.feed(argv, sent, env=environ, silence_s=silence_s), program)

    content = os.urandom(6_000_000)
    digest = hashlib.sha256(content).hexdigest()
    store = PackageStore(OtherShell(), str(tmp_path / "files"), "alice", Modes(), root="/opt/files")
    (tmp_path / "files").mkdir()
    offset = 0
    if sent == "rest":
        with pytest.raises(OperationFailed, match=r"only 2000000 of 6000000 bytes .* were received"):
            send(store, digest, [content[:2_000_000]], len(content))
        assert store.look().may_have(digest)
        offset = store.look([digest]).parts[digest].size
        assert offset == 2_000_000
    log.unlink(missing_ok=True)
    if sent == "other":
        with pytest.raises(OperationFailed, match="differs from the local one and was deleted"):
            send(store, digest, [content[:-1], b"?"], len(content))
        assert not store.look().may_have(digest)
        assert processes_with(str(tools)) == []
        return

    def slowly() -> Iterator[bytes]:
        for start in range(offset, len(content), 1_000_000):
            yield content[start : start + 1_000_000]
            time.sleep(0.02)

    send(store, digest, slowly(), len(content), offset)
    # While it came, and not once more after it.
    assert log.read_text() == "once\n"
    stored = store.look([digest])
    assert stored.has(digest, "a-1.jar", len(content))
    assert [path.name for path in (tmp_path / "files" / "alice" / "packages").glob(".parts.*/*")] == []
    assert processes_with(str(tools)) == []


def processes_with(folder: str) -> list[list[str]]:
    """The command lines of processes that have this folder on their path, without a heartbeat's last pause."""
    lines = []
    for candidate in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if candidate.status() != psutil.STATUS_ZOMBIE and folder in candidate.environ().get("PATH", ""):
                lines.append(candidate.cmdline())
    return [line for line in lines if line[-2:] != ["sleep", "10"]]


def send(store: PackageStore, digest: str, chunks: Iterable[bytes], size: int, offset: int = 0) -> None:
    store.send(sha256=digest, name="a-1.jar", size=size, offset=offset, chunks=chunks, facts={}, audit="{}")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs users of its own")
def test_folders_of_others_are_refused(server: SshServer, workstation: Workstation) -> None:
    jar = workstation.jar(1_000_000)
    folder = workstation.share / "files" / workstation.user
    folder.mkdir()
    os.chown(folder, next(entry.pw_uid for entry in _people() if entry.pw_name == BOB), -1)
    answer = workstation.run(str(jar), "--no-workloads", code=7)
    assert BOB in answer["errors"][0]["message"]


def _people() -> Any:
    import pwd

    return pwd.getpwall()
