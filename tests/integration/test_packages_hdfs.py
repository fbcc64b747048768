"""Packages in a real HDFS: what a client that is killed leaves, and what its next try makes of it."""

import hashlib
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayctl.bundle.package_files import PackageFile
from replayctl.clients.webhdfs import WebHdfs
from replayctl.publishing.hdfs_packages import AUDIT_LOG, HdfsPackageStore
from replayctl.publishing.packages import plan_uploads, send
from replayctl.storage.packages import StoredPackage, folder_of
from tests.conftest import ROOT
from tests.reporters import SilentReporter

from .lab import Lab

_BYTES = 8_000_000
# Uploads a package, and ends itself with SIGKILL before that call of the method, or in the middle of the bytes.
_UPLOAD = """
import os, signal, sys
url, path, method, number, jar = sys.argv[1:]
from pathlib import Path
from replayctl.clients.webhdfs import WebHdfs
from replayctl.publishing import packages
from replayctl.publishing.hdfs_packages import HdfsPackageStore
from tests.integration.test_packages_hdfs import package_of
from tests.reporters import SilentReporter
calls = 0
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def deadly(self, *args, **words):
    global calls
    calls += 1
    if method == "write":
        def half(chunks):
            for sent, chunk in enumerate(chunks):
                if sent == 4:
                    die()
                yield chunk
        args = (args[0], half(args[1]))
    elif calls == int(number):
        die()
    return original(self, *args, **words)
original = getattr(WebHdfs, method)
setattr(WebHdfs, method, deadly)
store = HdfsPackageStore(WebHdfs(url, "alice", lambda host, port: f"http://{host}:{port}"), path, "hdfs://namenode:9000")
package = package_of(Path(jar))
packages.send(store, packages.plan_uploads([package], store.look()), SilentReporter())
raise SystemExit("was not killed")
"""


def package_of(path: Path) -> PackageFile:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PackageFile(path, path.name, "jar", path.stem, path.stat().st_size, digest)


@pytest.fixture(scope="module")
def url(lab: Lab) -> str:
    address = lab.kubectl("-n", "hdfs-3", "get", "svc/hdfs-namenode", "-o", "jsonpath={.spec.clusterIP}")
    return f"http://{address}:9870"


@pytest.fixture
def hdfs(url: str) -> WebHdfs:
    return WebHdfs(url, "alice", lambda host, port: f"http://{host}:{port}")


@pytest.fixture
def store(hdfs: WebHdfs) -> Iterator[HdfsPackageStore]:
    path = f"/tmp/replayctl-tests-{uuid.uuid4().hex}"  # noqa: S108 - in HDFS
    yield HdfsPackageStore(hdfs, path, "hdfs://namenode:9000")
    hdfs.delete(path)


@pytest.fixture
def package(tmp_path: Path) -> PackageFile:
    path = tmp_path / "model-1.jar"
    path.write_bytes(uuid.uuid4().bytes * (_BYTES // 16))
    return package_of(path)


def upload(store: HdfsPackageStore, package: PackageFile) -> str:
    (planned,) = plan_uploads([package], store.look([package.sha256]))
    send(store, [planned], SilentReporter())
    return planned.outcome


@pytest.mark.parametrize(
    ("method", "number", "again"),
    [
        # HDFS may not have kept any of the bytes that were under way.
        ("write", 1, "resume/send"),
        ("digest", 1, "resume"),
        ("rename", 1, "resume"),
        ("set_attribute", 1, "send"),
        ("set_attribute", 2, "send"),
        ("rename", 2, "send"),
        ("append_line", 1, "unchanged"),
    ],
)
def test_a_killed_upload_shows_nothing_by_half_and_the_next_one_heals_it(
    store: HdfsPackageStore, hdfs: WebHdfs, package: PackageFile, method: str, number: int, again: str
) -> None:
    argv = [sys.executable, "-c", _UPLOAD, hdfs.url, store.path, method, str(number), str(package.path)]
    killed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    whole = store.look().has(package.sha256, package.name, package.size)
    assert whole == (again == "unchanged")
    assert whole or not store.look().packages
    assert upload(store, package) in again.split("/")
    assert store.look().has(package.sha256, package.name, package.size)
    assert hdfs.digest(f"{store.path}/{folder_of(package.sha256)}/{package.name}") == package.sha256
    # A week later nothing of it is left.
    for entry in hdfs.entries(f"{store.path}/.parts") or ():
        week_ago = f"{(time.time() - 8 * 86400) * 1000:.0f}"
        hdfs._ask("PUT", f"{store.path}/.parts/{entry.name}", op="SETTIMES", modificationtime=week_ago)
    store.prune([], "{}")
    assert hdfs.entries(f"{store.path}/.parts") == []


def test_what_is_pruned_is_in_the_log_of_all_who_pruned(
    store: HdfsPackageStore, hdfs: WebHdfs, package: PackageFile
) -> None:
    upload(store, package)
    lines = [json.dumps({"action": "prune", "number": number}) for number in range(6)]
    threads = [threading.Thread(target=store.prune, args=([f"p_{'0' * 16}"], line)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder = folder_of(package.sha256)
    store.prune(
        [StoredPackage(folder, package.name, package.size).folder], json.dumps({"action": "prune", "number": 6})
    )
    log = hdfs.read(f"{store.path}/{AUDIT_LOG}", 100_000).decode().splitlines()
    documents = [json.loads(line) for line in log]
    assert documents[0]["action"] == "upload"
    assert sorted(document["number"] for document in documents[1:]) == list(range(7))
    assert store.look().packages == {}
