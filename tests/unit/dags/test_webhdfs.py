"""HDFS as it fails: a server that is away, starts, cuts off, loses its answers, or is another server."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dags import webhdfs
from dags.artifacts import Artifact, ArtifactError
from dags.webhdfs import HdfsError, HdfsUnavailable, WebHdfs
from tests.artifact_suite import ArtifactSuite, Place, write
from tests.fake_hdfs import FakeHdfs, fake_hdfs

BIG = 4 << 20


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(webhdfs, "_PAUSES_S", (0.01, 0.02))
    with fake_hdfs() as handler:
        yield handler


@pytest.fixture
def hdfs(fake: Any) -> WebHdfs:
    return WebHdfs(fake.url, "alice", patience_s=20)


def refusing(kind: str, message: str = "no", code: int = 403) -> Callable[[FakeHdfs, str], bool]:
    def fault(handler: FakeHdfs, path: str) -> bool:
        handler.refuse(kind, message, code)
        return True

    return fault


def cut(handler: FakeHdfs, path: str) -> bool:
    handler.close_connection = True
    return True


def losing_the_answer(handler: FakeHdfs, path: str) -> bool:
    send, handler.send = handler.send, lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    getattr(handler, f"answer_{handler.query['op'].lower()}")(path)
    handler.send = send  # type: ignore[method-assign]
    return cut(handler, path)


class TestArtifactsOnTheFake(ArtifactSuite):
    """The fake does what the real one does, as far as artifacts need it."""

    @pytest.fixture
    def place(self, fake: Any) -> Place:
        return Place("hdfs://fake:9000/tmp/artifacts", {"url": fake.url, "user": "alice"})


@pytest.mark.parametrize("kind", ["SafeModeException", "StandbyException", "RetriableException"])
@pytest.mark.parametrize("operation", ["MKDIRS", "CREATE", "RENAME", "DELETE", "GETFILESTATUS", "LISTSTATUS", "OPEN"])
def test_a_namenode_that_is_not_ready_is_waited_for(fake: Any, operation: str, kind: str) -> None:
    artifact = Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"})
    write(artifact, "run", "old")
    fake.faults[operation] = [refusing(kind), refusing(kind)]
    assert write(artifact, "run", "new", replace=True)
    assert artifact.manifest() == {"text": "new"}
    assert fake.faults[operation] == []


@pytest.mark.parametrize("operation", ["MKDIRS", "CREATE", "RENAME", "DELETE", "LISTSTATUS", "GETFILECHECKSUM", "OPEN"])
@pytest.mark.parametrize("fault", [cut, losing_the_answer])
def test_a_connection_that_is_cut_costs_nothing(
    fake: Any, operation: str, fault: Callable[[FakeHdfs, str], bool]
) -> None:
    artifact = Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"})
    write(artifact, "run", "old")
    fake.faults[operation] = [fault]
    assert write(artifact, "run", "new", replace=True)
    assert artifact.manifest() == {"text": "new"}
    assert [path for path in fake.files if "/." in path] == []


@pytest.mark.parametrize("operation", ["MKDIRS", "DELETE", "LISTSTATUS", "GETFILESTATUS", "GETFILECHECKSUM"])
def test_an_answer_that_is_cut_half_way_is_asked_for_again(fake: Any, operation: str) -> None:
    def half(handler: FakeHdfs, path: str) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b'{"FileStatus')
        return cut(handler, path)

    artifact = Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"})
    write(artifact, "run", "old")
    fake.faults[operation] = [half]
    assert write(artifact, "run", "new", replace=True)
    assert artifact.manifest() == {"text": "new"}
    assert fake.faults[operation] == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("ConnectException", "Call From node1/10.0.0.1 to nn:9000 failed on connection exception"),
        ("IOException", "Failed to find datanode, suggest to check cluster health. excludeDatanodes=null"),
        ("IOException", "No active nodes contain this block"),
    ],
)
def test_servers_of_hdfs_that_miss_each_other_are_waited_for(fake: Any, kind: str, message: str) -> None:
    artifact = Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"})
    fake.faults["CREATE"] = [refusing(kind, message)]
    fake.faults["GETFILECHECKSUM"] = [refusing(kind, message)]
    assert write(artifact, "run", "new")
    assert artifact.manifest() == {"text": "new"}
    assert fake.faults["CREATE"] == fake.faults["GETFILECHECKSUM"] == []


def test_one_that_stays_in_safe_mode_is_an_error_and_the_old_artifact_stays(fake: Any) -> None:
    artifact = Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"})
    write(artifact, "run", "old")
    impatient = WebHdfs(fake.url, "alice", patience_s=0.05)
    fake.faults["RENAME"] = [refusing("SafeModeException", "Name node is in safe mode.")] * 1000
    with pytest.raises(HdfsUnavailable, match=r"is not ready \(SafeModeException: Name node is in safe"):
        impatient.rename("/a/1", "/a/2")
    assert fake.operations.count("RENAME") > 2
    assert artifact.manifest() == {"text": "old"}


def test_what_cannot_be_asked_is_neither_whole_nor_incomplete(fake: Any) -> None:
    fake.faults["LISTSTATUS"] = [refusing("AccessControlException", "Permission denied: user=alice")]
    artifact = Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"})
    with pytest.raises(HdfsError, match="HDFS does not let user alice LISTSTATUS /a/1: Permission denied: user=alice$"):
        artifact.is_whole()


def test_what_may_not_be_written_to_is_named_with_its_owner(fake: Any) -> None:
    message = 'Permission denied: user=alice, access=WRITE, inode="/a":bob:staff:drwxr-xr-x'
    fake.faults["MKDIRS"] = [refusing("AccessControlException", message)]
    denied = r"user alice write to /a, which belongs to bob \(group staff, drwxr-xr-x\): set hdfs.user"
    with pytest.raises(HdfsError, match=denied):
        write(Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"}), "run", "new")


def test_nobody_who_listens_is_named() -> None:
    hdfs = WebHdfs("http://127.0.0.1:9", "alice", patience_s=0.0)
    with pytest.raises(HdfsUnavailable, match=r"HDFS at 127\.0\.0\.1:9 does not answer: .*refused"):
        hdfs.status("/a")


def test_a_read_that_is_cut_half_way_is_repeated(fake: Any, hdfs: WebHdfs) -> None:
    fake.files |= {"/f": (next(fake.numbers), bytes(range(256)) * 100)}

    def half(handler: FakeHdfs, path: str) -> bool:
        if "namenode" not in handler.query:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 400)
        return cut(handler, path)

    fake.faults["OPEN"] = [lambda *_: False, half]
    assert hdfs.read("/f", 256, 1000) == (bytes(range(256)) * 100)[256:1256]


def test_a_file_that_arrived_in_part_is_sent_again(fake: Any, hdfs: WebHdfs) -> None:
    fake.files |= {"/d": (next(fake.numbers), None)}

    def half(handler: FakeHdfs, path: str) -> bool:
        if "namenode" not in handler.query:
            return False
        content = handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.files[path] = (next(handler.numbers), content[: len(content) // 2])
        return cut(handler, path) if handler.operations.count("CREATE") < 4 else handler.send(201) or True

    fake.faults["CREATE"] = [lambda *_: False, half, lambda *_: False, half]
    hdfs.write("/d/f", io.BytesIO(b"y" * BIG), BIG)
    assert fake.files["/d/f"][1] == b"y" * BIG
    assert fake.operations.count("CREATE") == 6


def test_an_error_in_the_middle_of_an_upload_is_reported(fake: Any, hdfs: WebHdfs) -> None:
    fake.files |= {"/d": (next(fake.numbers), None)}

    def full(handler: FakeHdfs, path: str) -> bool:
        handler.rfile.read(1 << 16)
        handler.refuse("DSQuotaExceededException", "The DiskSpace quota of /d is exceeded")
        return cut(handler, path)

    fake.faults["CREATE"] = [lambda *_: False, full] * 1000
    with pytest.raises(HdfsError, match="The DiskSpace quota of /d is exceeded"):
        hdfs.write("/d/f", io.BytesIO(bytes(64 << 20)), 64 << 20)


def test_a_rename_that_did_not_happen_is_an_error(fake: Any, hdfs: WebHdfs) -> None:
    fake.files |= {"/a": (next(fake.numbers), None)}
    fake.faults["RENAME"] = [lambda handler, path: handler.send(200) or True]
    with pytest.raises(HdfsError, match="took the request to rename /a, but it is not at /b"):
        hdfs.rename("/a", "/b")


def test_a_lost_answer_does_not_make_another_ones_folder_ours(fake: Any, hdfs: WebHdfs) -> None:
    fake.files |= {"/a": (next(fake.numbers), None), "/b": (next(fake.numbers), None)}
    fake.faults["RENAME"] = [cut]
    with pytest.raises(FileExistsError):
        hdfs.rename("/a", "/b")
    assert set(fake.files) == {"/a", "/b"}


def sending(code: int, body: bytes = b"", **headers: str) -> Callable[[FakeHdfs, str], bool]:
    def fault(handler: FakeHdfs, path: str) -> bool:
        handler.send(code, body, **headers)
        return True

    return fault


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (sending(200, b"<html>"), "is no WebHDFS: its answer to .* is not JSON"),
        (sending(200, b"null"), "is no WebHDFS: its answer to .* is not JSON"),
        (sending(307, Location="ftp://x/y"), "it sends us to 'ftp://x/y'"),
        (sending(401, b"no"), "asks for a sign-in"),
        (sending(400, b"<html>?"), r"refused LISTSTATUS of /a \(HTTP 400 \): <html>\?"),
    ],
)
def test_a_server_without_webhdfs_is_named(
    fake: Any, hdfs: WebHdfs, answer: Callable[[FakeHdfs, str], bool], why: str
) -> None:
    fake.faults["LISTSTATUS"] = [answer]
    with pytest.raises(HdfsError, match=why) as excinfo:
        hdfs.entries("/a")
    assert fake.url in str(excinfo.value)


def test_servers_that_send_us_round_in_circles_are_an_error(fake: Any, hdfs: WebHdfs) -> None:
    fake.faults["LISTSTATUS"] = [sending(307, Location=f"{fake.url}/webhdfs/v1/a?op=LISTSTATUS")] * 9
    with pytest.raises(HdfsError, match="sends LISTSTATUS of /a from server to server"):
        hdfs.entries("/a")


@pytest.mark.parametrize("url", ["namenode:9870", "hdfs://nn:9000", "", "http://"])
def test_an_address_without_http_is_refused(url: str) -> None:
    with pytest.raises(HdfsError, match="is not an address with http"):
        WebHdfs(url, "alice")


def test_names_are_sent_as_they_are(fake: Any, hdfs: WebHdfs) -> None:
    for name in ("/a b", "/ä?op=DELETE&x=/", "/100%", "/#;+"):
        hdfs.make_folder(name.rstrip("/"))
        assert hdfs.status(name.rstrip("/")) is not None
    assert set(fake.files) == {"/a b", "/ä?op=DELETE&x=", "/100%", "/#;+"}


def test_the_old_one_stays_when_hdfs_goes_away_before_the_new_one_is_in_place(fake: Any) -> None:
    artifact = Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"})
    write(artifact, "run", "old")

    def refuse_new(handler: FakeHdfs, path: str) -> bool:
        if path.endswith(".tmp"):
            handler.refuse("AccessControlException")
        return path.endswith(".tmp")

    fake.faults["RENAME"] = [refuse_new] * 3
    with pytest.raises(HdfsError, match="does not let user alice RENAME"):
        write(artifact, "run", "new", replace=True)
    assert artifact.manifest() == {"text": "old"}


def test_a_folder_in_the_way_that_cannot_be_moved_is_an_error(fake: Any) -> None:
    artifact = Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"})
    temporary = artifact.begin("run")

    def in_the_way(handler: FakeHdfs, path: str) -> bool:
        handler.files["/a/1"] = (next(handler.numbers), None)
        return False

    fake.faults["RENAME"] = [in_the_way]
    with pytest.raises(ArtifactError, match=r"hdfs://fake/a/1 exists and is incomplete: no _SUCCESS"):
        artifact.commit(temporary, {})


def test_the_copy_for_programs_goes_away(fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTAINER_ID", "container_1")
    artifact = Artifact("hdfs://fake/a/1", {"url": fake.url, "user": "alice"})
    artifact.folder.make_folder()
    with (artifact.folder / "data").local_file() as path:
        assert path.is_relative_to(tmp_path)
        path.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_behind_a_proxy_that_knows_no_numbers_a_file_is_read_by_its_path(fake: Any, hdfs: WebHdfs) -> None:
    artifact = Artifact("hdfs://fake:9000/tmp/1", {"url": fake.url, "user": "alice"})
    write(artifact, "task", "old")
    fake.faults["OPEN"] = [refusing("AccessControlException")]
    with (artifact.folder / "text").open() as file:
        assert file.read() == b"old"
    fake.faults["OPEN"] = [refusing("AccessControlException")]
    with (artifact.folder / "text").open() as file:
        write(artifact, "task", "new", replace=True)
        with pytest.raises(FileNotFoundError, match="1/text was replaced or removed while it was read"):
            file.read()
