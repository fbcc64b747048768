"""What people type to reach the cluster against ours, in one run, on the tests' lab: `python -m benchmarks cluster`."""

import concurrent.futures
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from replayctl.cluster.api import Kubernetes, container_of, parse_endpoint
from replayctl.cluster.kubeconfig import find_cluster
from replayctl.cluster.streams import execute
from tests.integration.lab import NAMESPACE, STATE, Lab
from tests.integration.yarn_jobs import submit

_MIB = 1 << 20
_MANAGER = "/api/v1/namespaces/spark-lama-exps/services/yarn-resourcemanager:8088/proxy"
_TARGET = f"{NAMESPACE}/svc/server:80"
Pairs = Callable[[str, Callable[[], float], Callable[[], float], int, str], None]


def run(lab: Lab, pairs: Pairs) -> None:
    """Prints the ratios; needs a lab that is up, and an application that has ended for the logs."""
    cluster = Kubernetes(find_cluster(STATE / "kubeconfig", None, {}))
    lab.wait_for_server()
    pod = cluster.ready_pod(parse_endpoint(_TARGET))
    command = [str(lab.folder / "cluster"), "kubectl", "-n", NAMESPACE]
    program = ["head", "-c", str(64 * _MIB), "/dev/zero"]

    def ours() -> float:
        started, received = time.perf_counter(), [0]
        execute(
            cluster,
            pod,
            container_of(pod, None),
            program,
            on_stdout=lambda data: received.__setitem__(0, received[0] + len(data)),
            on_stderr=lambda _: None,
        )
        assert received[0] == 64 * _MIB
        return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        subprocess.run([*command, "exec", pod.name, "--", *program], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    pairs("exec of 64 MiB to kubectl exec", ours, theirs, 5, "≤ 1.0")
    with _ours() as mine, _kubectl(command) as kubectl:
        for count in (1, 64):
            size = (256 if count == 1 else 16) * _MIB
            pairs(
                f"forward, {count} connection{'s' * (count > 1)}, time to kubectl port-forward",
                lambda count=count, size=size: _download(mine, count, size),
                lambda count=count, size=size: _download(kubectl, count, size),
                5,
                "≤ 1.0",
            )
    for name, work, count in (
        ("one request in a connection of its own, median of 50", _one_by_one, 7),
        ("200 such requests at once", _at_once, 7),
        ("upload of 64 MiB", _upload, 7),
    ):
        # A forward of kubectl's that has carried 64 downloads at once leaves some of 200 requests unanswered.
        with _ours() as mine, _kubectl(command) as kubectl:
            pairs(
                f"forward, {name}, time to kubectl port-forward",
                lambda work=work: work(mine),
                lambda work=work: work(kubectl),
                count,
                "≤ 1.5",
            )
    _logs(lab, pairs)
    _memory(lab)


def _memory(lab: Lab) -> None:
    """Prints the peak memory of reading a log of 1 GiB in several ways."""
    code = "for number in range(1 << 20):\n    print(str(number).rjust(1023))\n"
    submit(lab, {"large": code})
    rows = json.loads(lab.kubectl("get", "--raw", f"{_MANAGER}/ws/v1/cluster/apps"))["apps"]["app"]
    name = max((row for row in rows if row["name"] == "tests-large"), key=lambda row: row["startedTime"])["id"]
    for words in ((), ("--raw",), ("--grep", "12345$"), ("--tail", "1000"), ("--diagnose",)):
        argv = [sys.executable, "-m", "replayctl", "yarn-logs", name, "--log-files", "stdout", *words]
        started = time.perf_counter()
        environ = {**os.environ, "KUBECONFIG": str(STATE / "kubeconfig")}
        peak = 0
        with subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            while running.poll() is None:
                peak = max(peak, _peak(running.pid))
                time.sleep(0.05)
        duration = time.perf_counter() - started
        assert running.returncode == 0, words
        print(f"yarn-logs of 1 GiB {' '.join(words)}: {peak >> 10} MiB at most, {duration:.1f} s (goal ≤ 100 MB)")


def _peak(pid: int) -> int:
    """The most memory that the process has had so far, KiB; wait4's figure would begin with that of our own process."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _logs(lab: Lab, pairs: Pairs) -> None:
    environ = {**os.environ, "KUBECONFIG": str(STATE / "kubeconfig"), "HOME": str(Path.home())}
    listed = lab.kubectl(
        *("-n", "spark-lama-exps", "exec", "deploy/yarn-resourcemanager", "--"),
        *("yarn", "application", "-list", "-appStates", "FINISHED"),
    )
    applications = [word for word in listed.split() if word.startswith("application_")]
    if not applications:
        print("first byte of a driver's log: not measured, no application has ended")
        return
    name = applications[-1]

    def first_byte(argv: list[str]) -> float:
        started = time.perf_counter()
        with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
            assert running.stdout
            assert running.stdout.read(1)
            duration = time.perf_counter() - started
            running.kill()
        return duration

    ours = [sys.executable, "-m", "replayctl", "yarn-logs", name, "--no-diagnose", "--log-files", "stderr"]
    theirs = [str(lab.folder / "cluster"), "kubectl", "-n", "spark-lama-exps", "exec", "deploy/yarn-resourcemanager"]
    theirs += ["--", "yarn", "logs", "-applicationId", name, "-am", "1", "-log_files", "stderr"]
    pairs(
        "first byte of a driver's log to kubectl exec … yarn logs",
        lambda: first_byte(ours),
        lambda: first_byte(theirs),
        5,
        "≤ 0.3",
    )


def _request(url: str) -> None:
    with urllib.request.urlopen(f"{url}/bytes/1000", timeout=120) as page:  # noqa: S310 - our own forward
        assert len(page.read()) == 1000


def _one_by_one(url: str) -> float:
    times = []
    for _ in range(50):
        started = time.perf_counter()
        _request(url)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _at_once(url: str) -> float:
    barrier = threading.Barrier(201)

    def work() -> None:
        barrier.wait()
        _request(url)

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        futures = [pool.submit(work) for _ in range(200)]
        barrier.wait()
        started = time.perf_counter()
        for future in futures:
            future.result()
        return time.perf_counter() - started


def _upload(url: str) -> float:
    body = bytes(64 * _MIB)
    started = time.perf_counter()
    with urllib.request.urlopen(url, body, timeout=120) as page:  # noqa: S310 - our own forward
        assert len(page.read()) == 64
    return time.perf_counter() - started


def _download(url: str, count: int, size: int) -> float:
    def one(_: int) -> int:
        received = 0
        with urllib.request.urlopen(f"{url}/bytes/{size}", timeout=120) as page:  # noqa: S310 - our own forward
            while data := page.read(1 << 18):
                received += len(data)
        return received

    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        assert all(received == size for received in pool.map(one, range(count)))
    return time.perf_counter() - started


@contextlib.contextmanager
def _ours() -> Iterator[str]:
    argv = [sys.executable, "-m", "replayctl", "--output", "json", "port-forward", _TARGET, "--port", "auto"]
    environ = {**os.environ, "KUBECONFIG": str(STATE / "kubeconfig")}
    running = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert running.stdout
        yield json.loads(running.stdout.readline())["data"]["forwards"][_TARGET]
    finally:
        running.terminate()
        running.wait(10)


@contextlib.contextmanager
def _kubectl(command: list[str]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [*command, "port-forward", "svc/server", f"{port}:80"]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert running.stdout
        assert b"Forwarding" in running.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(running.pid, 15)
        running.wait(10)
