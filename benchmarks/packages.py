"""Uploads of jars against scp, over one sshd of this machine: `python -m benchmarks packages`."""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.sshd import WHY_NOT, SshServer

_BYTES = 300_000_000
Pairs = Callable[[str, Callable[[], float], Callable[[], float], int, str], None]


def run(pairs: Pairs) -> None:
    """Prints the ratios of a new jar and the seconds of an unchanged one; needs an sshd."""
    if WHY_NOT:
        print(f"packages: not measured, {WHY_NOT}")
        return
    person = f"rctl-{os.getpid()}-b"
    server = SshServer.start(person)
    try:
        server.halt()
        server.run("Subsystem sftp internal-sftp")
        with tempfile.TemporaryDirectory(prefix="rctl-bench-") as name:
            _run(server, server.login(person), Path(name), pairs)
    finally:
        server.stop()


def _run(server: SshServer, login: str, home: Path, pairs: Pairs) -> None:
    config = server.client_config(home / "config")
    files = server.folder / "share" / "files"
    folders = {"dags": str(server.folder / "share" / "dags"), "spark_submit_files": str(files)}
    folders |= {"data_in_pods": "/data", "artifacts_in_pods": "/artifacts"}
    remote = {"user": "bench", "ssh": {"host": "cluster", "user": login, "config": str(config)}, "folders": folders}
    (home / "replayctl.yaml").write_text(yaml.safe_dump({"profiles": {"far": remote}}))
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "replayctl", "--profile", "far", "-q", "upd-wheels-and-jars", "--no-workloads"]
    jar = home / "big_2.12-1.0.jar"

    def new_jar() -> None:
        with zipfile.ZipFile(jar, "w", zipfile.ZIP_STORED) as archive, archive.open("a.class", "w") as member:
            for _ in range(_BYTES // 1_000_000):
                member.write(os.urandom(1_000_000))

    def upload() -> float:
        started = time.perf_counter()
        subprocess.run([*command, str(jar)], cwd=home, env=environ, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    def upload_new() -> float:
        new_jar()
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

    pairs("upload of a new jar of 300 MB to scp", upload_new, scp, 3, "≤ 1.1")
    pairs("upload of that jar unchanged to one hash pass (a difference of ≤ 2 s)", upload, hash_pass, 3, "2 s more")
