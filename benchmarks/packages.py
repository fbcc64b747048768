"""Uploads of jars against scp over one sshd, and against `hdfs dfs -put`: `python -m benchmarks packages`."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml

from replayctl.clients.webhdfs import WebHdfs
from tests.integration.lab import FOLDER, STATE, Lab, why_not
from tests.sshd import WHY_NOT, SshServer

_BYTES = 300_000_000
# What goes up is slowed down; a loopback device has neither latency nor a limit.
_GIGABIT = "sh -c 'pv --quiet --rate-limit 119M | nc %h %p'"
Pairs = Callable[[str, Callable[[], float], Callable[[], float], int, str], None]


def run(pairs: Pairs) -> None:
    """Prints the ratios of a new jar and the seconds of an unchanged one; needs an sshd, and a lab for HDFS."""
    _over_ssh(pairs)
    if why_not() or not (STATE / "kubeconfig").exists():
        print(f"packages in HDFS: not measured, {why_not() or 'the lab is not up'}")
        return
    with tempfile.TemporaryDirectory(prefix="rctl-bench-") as name:
        _to_hdfs(Lab(FOLDER), Path(name), pairs)


def _over_ssh(pairs: Pairs) -> None:
    if WHY_NOT:
        print(f"packages: not measured, {WHY_NOT}")
        return
    person = f"rctl-{os.getpid()}-b"
    server = SshServer.start(person)
    try:
        server.halt()
        server.run("Subsystem sftp internal-sftp")
        with tempfile.TemporaryDirectory(prefix="rctl-bench-") as name:
            _run(server, server.login(person), Path(name), pairs, "")
        if shutil.which("pv") is None or shutil.which("nc") is None:
            print("packages over a link of 1 Gbit/s: not measured, pv and nc are missing")
            return
        with tempfile.TemporaryDirectory(prefix="rctl-bench-") as name:
            _run(server, server.login(person), Path(name), pairs, _GIGABIT)
    finally:
        server.stop()


def _run(server: SshServer, login: str, home: Path, pairs: Pairs, link: str) -> None:
    config = server.client_config(home / "config")
    if link:
        config.write_text(f"{config.read_text()}  ProxyCommand {link}\n")
    files = server.folder / "share" / "files"
    folders = {"dags": str(server.folder / "share" / "dags"), "spark_submit_files": str(files)}
    folders |= {"data_in_pods": "/data", "artifacts_in_pods": "/artifacts"}
    remote = {"user": "bench", "ssh": {"host": "cluster", "user": login, "config": str(config)}, "folders": folders}
    (home / "replayctl.yaml").write_text(yaml.safe_dump({"profiles": {"far": remote}}))
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "replayctl", "--profile", "far", "-q", "upd-wheels-and-jars", "--no-workloads"]
    jar = home / "big_2.12-1.0.jar"

    def upload() -> float:
        started = time.perf_counter()
        subprocess.run([*command, str(jar)], cwd=home, env=environ, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    def upload_new() -> float:
        _write_jar(jar)
        return upload()

    def scp() -> float:
        started = time.perf_counter()
        target = f"{login}@cluster:{files}/copy.jar"
        subprocess.run(["scp", "-q", "-F", str(config), str(jar), target], check=True)
        return time.perf_counter() - started

    def hash_pass() -> float:
        started = time.perf_counter()
        subprocess.run(["sha256sum", str(jar)], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    over = " over a link of 1 Gbit/s" if link else ""
    pairs(f"upload of a new jar of 300 MB{over} to scp", upload_new, scp, 5, "≤ 1.1")
    if link:
        return
    pairs("upload of that jar unchanged to one hash pass (a difference of ≤ 2 s)", upload, hash_pass, 3, "2 s more")


def _to_hdfs(lab: Lab, home: Path, pairs: Pairs) -> None:
    """Theirs has the file on a machine of the cluster already, ours sends it from here."""
    user = f"bench-{os.getpid()}"
    address = lab.kubectl("-n", "hdfs-3", "get", "svc/hdfs-namenode", "-o", "jsonpath={.spec.clusterIP}")
    folder = f"/tmp/replayctl-{user}"  # noqa: S108 - in HDFS
    hdfs = {"url": f"http://{address}:9870", "filesystem": f"hdfs://{address}:9000", "packages": folder}
    far = {"user": user, "hdfs": hdfs, "packages": {"store": "hdfs"}}
    (home / "replayctl.yaml").write_text(yaml.safe_dump({"profiles": {"far": far}}))
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "replayctl", "--profile", "far", "-q", "upd-wheels-and-jars", "--no-workloads"]
    jar = home / "big_2.12-1.0.jar"
    pod = [str(lab.folder / "cluster"), "kubectl", "-n", "hdfs-3", "exec", "-i", "hdfs-namenode-0", "--"]

    def ours() -> float:
        _write_jar(jar)
        started = time.perf_counter()
        subprocess.run([*command, str(jar)], cwd=home, env=environ, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        put = ["env", f"HADOOP_USER_NAME={user}", "hdfs", "dfs", "-put", "-f", there, f"{folder}/copy.jar"]
        subprocess.run([*pod, *put], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - started

    there = f"/tmp/{user}.jar"  # noqa: S108 - in a pod
    _write_jar(jar)
    try:
        with jar.open("rb") as content:
            subprocess.run([*pod, "sh", "-c", f"cat > {there}"], stdin=content, check=True)
        pairs("upload of a new jar of 300 MB to `hdfs dfs -put`", ours, theirs, 3, "≤ 1.2")
    finally:
        subprocess.run([*pod, "rm", "-f", there], check=False, stdin=subprocess.DEVNULL)
        WebHdfs(hdfs["url"], user, lambda host, port: f"http://{host}:{port}").delete(folder)


def _write_jar(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive, archive.open("a.class", "w") as member:
        for _ in range(_BYTES // 1_000_000):
            member.write(os.urandom(1_000_000))
