"""Artifacts on an HDFS with permissions whose servers are killed: old, new or a clear error, and the next try heals."""

import io
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dags.artifacts import Artifact
from dags.webhdfs import HdfsError, HdfsUnavailable
from dags.webhdfs import WebHdfs as TaskHdfs
from replayctl.clients.webhdfs import WebHdfs
from replayctl.errors import AuthFailed, Unreachable
from tests.artifact_suite import Place, write

from .lab import Lab, why_not

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]
_MANIFEST = Path(__file__).with_name("hdfs.yaml")
_LARGE = 48 << 20


@dataclass
class Hdfs:
    """A NameNode and a DataNode of these tests' own, in one pod."""

    lab: Lab
    namespace: str
    address: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.address}:9870"

    def start(self) -> None:
        self.lab.kubectl("create", "namespace", self.namespace)
        self.lab.kubectl("apply", "-f", "-", data=_MANIFEST.read_text().replace("NAMESPACE", self.namespace))
        self.lab.wait_for_pod(self.namespace, "app=hdfs")
        pod = ("-n", self.namespace, "get", "pod/hdfs", "-o", "jsonpath={.status.podIP}")
        self.address = self.lab.kubectl(*pod).strip()
        TaskHdfs(self.url, "root").write("/started", io.BytesIO(b"x"), 1)

    def stop(self) -> None:
        self.lab.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)

    def kill(self, server: str) -> None:
        """SIGKILL for `NameNode` or `DataNode`, which Kubernetes starts again after a while."""
        self.lab.kill_processes(self.namespace, "pod/hdfs", f".{server}")

    def ask(self, operation: str, path: str, **more: str) -> None:
        """As HDFS's own user."""
        words = "".join(f"&{name}={value}" for name, value in more.items())
        url = f"{self.url}/webhdfs/v1{path}?op={operation}&user.name=root{words}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=60).close()

    def folder_of(self, owner: str, path: str, mode: str = "755") -> None:
        self.ask("MKDIRS", path)
        self.ask("SETOWNER", path, owner=owner)
        self.ask("SETPERMISSION", path, permission=mode)

    def artifact(self, path: str, user: str = "alice") -> Artifact:
        return Artifact(f"hdfs://{self.address}:9000{path}", {"url": self.url, "user": user})


@pytest.fixture(scope="module")
def hdfs(lab: Lab) -> Iterator[Hdfs]:
    own = Hdfs(lab, f"replayctl-hdfs-{uuid.uuid4().hex[:8]}")
    try:
        own.start()
        yield own
    finally:
        own.stop()


@pytest.fixture
def base(hdfs: Hdfs) -> str:
    """A folder of alice's."""
    path = f"/replay/{uuid.uuid4().hex}"
    hdfs.folder_of("alice", path)
    return path


class _Slow(io.BytesIO):
    """Something large that says when half of it is read, and goes on when it may."""

    def __init__(self) -> None:
        super().__init__(bytes(_LARGE))
        self.half, self.go_on = threading.Event(), threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= _LARGE // 2 and not self.half.is_set():
            self.half.set()
            self.go_on.wait(60)
        return super().read(size)


def test_a_folder_of_somebody_else_is_named_with_its_owner(hdfs: Hdfs, base: str) -> None:
    hdfs.folder_of("bob", f"{base}/bob")
    hdfs.folder_of("bob", f"{base}/private", "700")
    denied = f"HDFS does not let user alice write to {base}/bob, which belongs to bob .*drwxr-xr-x.*set hdfs.user"
    with pytest.raises(HdfsError, match=denied):
        write(hdfs.artifact(f"{base}/bob/1"), "task", "new")
    for path in (f"{base}/private/1", f"{base}/private"):
        with pytest.raises(HdfsError, match=f"alice (read|look into) {base}/private, which belongs to bob"):
            hdfs.artifact(path).is_whole()
    hdfs.ask("SETOWNER", f"{base}/bob", owner="alice")
    assert write(hdfs.artifact(f"{base}/bob/1"), "task", "new")


def test_an_artifact_of_somebody_else_is_read_and_never_replaced(hdfs: Hdfs, base: str) -> None:
    hdfs.folder_of("bob", f"{base}/bob")
    assert write(hdfs.artifact(f"{base}/bob/1", "bob"), "task", "old")
    artifact = hdfs.artifact(f"{base}/bob/1")
    assert artifact.manifest() == {"text": "old"}
    with pytest.raises(HdfsError, match=f"write to {base}/bob, which belongs to bob"):
        write(artifact, "task", "new", replace=True)
    assert artifact.manifest() == {"text": "old"}


def test_the_workstation_is_told_the_same(hdfs: Hdfs, base: str) -> None:
    hdfs.folder_of("bob", f"{base}/private", "700")
    client = WebHdfs(hdfs.url, "alice", lambda host, port: f"http://{host}:{port}")
    with pytest.raises(AuthFailed, match=f"denies alice access to {base}/private, which belongs to bob"):
        client.entries(f"{base}/private")


def test_a_datanode_killed_in_the_middle_of_a_large_file_is_waited_for(hdfs: Hdfs, base: str) -> None:
    artifact = hdfs.artifact(f"{base}/1")
    temporary = artifact.begin("task")
    content = _Slow()
    writer = threading.Thread(target=temporary.add, args=("large", content))
    writer.start()
    assert content.half.wait(60)
    hdfs.kill("DataNode")
    content.go_on.set()
    writer.join(240)
    assert not writer.is_alive()
    assert artifact.commit(temporary, {"text": "new"})
    assert artifact.is_whole()
    with (artifact.folder / "large").open() as file:
        assert sum(len(block) for block in iter(lambda: file.read(1 << 20), b"")) == _LARGE


def test_while_no_datanode_is_there_an_impatient_writer_is_told_so_and_the_next_heals(hdfs: Hdfs, base: str) -> None:
    impatient = TaskHdfs(hdfs.url, "alice", patience_s=0.0)
    artifact = hdfs.artifact(f"{base}/1")
    write(artifact, "task", "old")
    hdfs.kill("DataNode")
    with pytest.raises(HdfsUnavailable, match="(does not answer|is not ready|was cut off)"):
        impatient.write(f"{base}/1/text", io.BytesIO(bytes(1 << 20)), 1 << 20)
    client = WebHdfs(hdfs.url, "alice", lambda host, port: f"http://{host}:{port}")
    with pytest.raises(Unreachable):
        client.read(f"{base}/1/text", 100)
    assert write(artifact, "task", "new", replace=True)
    assert artifact.manifest() == {"text": "new"}


@pytest.mark.parametrize("replaces", [False, True], ids=["new", "replacing"])
def test_a_namenode_killed_during_a_publish_is_waited_for(hdfs: Hdfs, base: str, replaces: bool) -> None:
    artifact = hdfs.artifact(f"{base}/1")
    if replaces:
        write(artifact, "task", "old")
    temporary = artifact.begin("task")
    temporary.make_table("table")
    temporary.add("table/part-00000.parquet", b"rows")
    stop = threading.Event()
    seen: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(artifact.manifest()["text"] if artifact.is_whole() else "none")
            except HdfsError as error:
                seen.append(str(error))
            except Exception:  # noqa: BLE001  # between two questions it was replaced
                seen.append("none")
            time.sleep(0.05)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        hdfs.kill("NameNode")
        assert artifact.commit(temporary, {"text": "new"}, replace=replaces)
    finally:
        stop.set()
        reader.join(240)
    assert artifact.manifest() == {"text": "new"}
    assert Place(f"hdfs://{hdfs.address}:9000{base}", {"url": hdfs.url, "user": "alice"}).names() == ["1"]
    allowed = {"old", "new", "none"} if replaces else {"new", "none"}
    assert set(seen) <= allowed
