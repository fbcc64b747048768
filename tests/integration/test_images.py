"""Images on a real Docker engine with real registries: built once, shown step by step, pushed, rejected with a hint."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

from .lab import FOLDER

pytestmark = pytest.mark.integration

BASE = "replayctl-tests/base:1"
DOCKERFILE = """ARG BASE
FROM ${BASE}
ARG GREETING=hello
COPY slow.sh /
RUN ["/bin/busybox", "sh", "/slow.sh"]
COPY greeting.txt /
"""


def why_not() -> str | None:
    if not (FOLDER / "engine").is_file():
        return f"no lab with a Docker engine ({FOLDER}); name one by REPLAYCTL_LAB"
    return None if os.geteuid() == 0 else "the lab needs root"


def docker(*argv: str, data: bytes | None = None, check: bool = True) -> str:
    result = subprocess.run(["docker", *argv], input=data, capture_output=True, check=False)
    assert not check or result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


@pytest.fixture(scope="module")
def engine() -> Iterator[None]:
    """The lab's engine with its registries, and a base image of some files."""
    if reason := why_not():
        pytest.skip(reason)
    lab = str(FOLDER / "engine")
    ran = "dockerd running" in subprocess.run([lab, "status"], capture_output=True, text=True, check=True).stdout
    subprocess.run([lab, "up"], check=True, capture_output=True)
    docker("import", "-", BASE, data=base_files())
    yield
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    docker("rmi", "-f", *[name for name in names if "replayctl-tests/" in name])
    if not ran:
        subprocess.run([lab, "down"], capture_output=True, check=False)


def base_files() -> bytes:
    """A root file system of busybox and what it is linked to."""
    busybox = shutil.which("busybox")
    assert busybox, "busybox is needed for the images of these tests"
    linked = re.findall(r"(/\S+)", subprocess.run(["ldd", busybox], capture_output=True, text=True).stdout)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        archive.add(busybox, "bin/busybox")
        for path in linked:
            archive.add(path, path.lstrip("/"))
    return buffer.getvalue()


@dataclass
class Answer:
    code: int
    document: dict[str, Any]
    stderr: str

    @property
    def data(self) -> Any:
        return self.document["data"]

    @property
    def error(self) -> dict[str, Any]:
        return self.document["errors"][0]


@dataclass
class Workbench:
    """A folder with a small Dockerfile, and the program in it."""

    folder: Path
    environ: dict[str, str]

    def call(self, *argv: str, **environ: str) -> Answer:
        result = subprocess.run(
            [sys.executable, "-m", "replayctl", "-v", "--output", "json", *argv],
            cwd=self.folder,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        return Answer(result.returncode, json.loads(result.stdout), result.stderr)

    def log_in(self, registry: str, user: str, password: str) -> None:
        entry = base64.b64encode(f"{user}:{password}".encode()).decode()
        # A helper of another registry that is broken must hinder nothing.
        document = {"auths": {registry: {"auth": entry}}, "credHelpers": {"elsewhere.example": "not-installed"}}
        (Path(self.environ["HOME"]) / ".docker").mkdir(exist_ok=True)
        (Path(self.environ["HOME"]) / ".docker" / "config.json").write_text(json.dumps(document))


@pytest.fixture
def bench(engine: None, tmp_path: Path, clean_environment: Path) -> Workbench:
    docker_dir = tmp_path / "docker"
    docker_dir.mkdir()
    (docker_dir / "airflow-worker.Dockerfile").write_text(DOCKERFILE)
    (docker_dir / "slow.sh").write_text(f"echo working on {tmp_path.name}\n")
    (docker_dir / "greeting.txt").write_text("hello")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("REPLAYCTL_", "DOCKER_"))},
        "HOME": str(clean_environment),
        "PYTHONPATH": str(ROOT),
        "USERNAME_ON_CLUSTER": "alice",
        "REPLAYCTL_IMAGES_WORKER": "localhost:5000/replayctl-tests/worker",
        "REPLAYCTL_IMAGES_BASE": BASE,
    }
    return Workbench(tmp_path, environ)


def test_an_image_is_built_pushed_and_listed_once(bench: Workbench) -> None:
    planned = bench.call("build-airflow-image", "--dry-run")
    assert planned.code == 0, planned.document
    assert planned.data["context"]["files"] == 3
    image = planned.data["image"]
    assert docker("images", "-q", image) == ""

    built = bench.call("build-airflow-image")
    assert (built.code, built.document["status"]) == (0, "ok"), built.document
    assert f"working on {bench.folder.name}" in built.stderr or "step 5/" in built.stderr
    labels = json.loads(docker("inspect", "-f", "{{json .Config.Labels}}", image))
    assert labels["replayctl.input-digest"] == planned.data["inputs"]

    again = bench.call("build-airflow-image")
    assert (again.document["status"], again.data["present_in"]) == ("nothing-to-do", "engine")

    pushed = bench.call("push-airflow-image")
    assert pushed.code == 0, pushed.document
    assert docker("inspect", "-f", "{{index .RepoDigests 0}}", image).strip() == pushed.data["reference"]

    docker("rmi", "-f", image)
    elsewhere = bench.call("build-airflow-image")
    assert (elsewhere.document["status"], elsewhere.data["present_in"]) == ("nothing-to-do", "registry")
    there = bench.call("push-airflow-image")
    assert (there.document["status"], there.data["reference"]) == ("nothing-to-do", pushed.data["reference"])

    rows = {row["tag"]: row for row in bench.call("images").data["images"]}
    row = rows[image.rpartition(":")[2]]
    assert (row["in_engine"], row["in_registry"], row["digest"]) == (False, True, pushed.data["digest"])

    (bench.folder / "docker" / "greeting.txt").write_text("good day")
    changed = bench.call("build-airflow-image")
    assert changed.data["image"] != image
    assert "Using cache" in changed.stderr or changed.document["status"] == "ok"


def test_a_failing_step_is_shown_with_its_last_words(bench: Workbench) -> None:
    (bench.folder / "docker" / "slow.sh").write_text("echo first; echo no space for this >&2; exit 3\n")
    answer = bench.call("build-airflow-image")
    assert answer.code == 1
    assert "failed in step 5/" in answer.error["message"]
    assert "exit code 3" in answer.error["message"]
    lines = answer.error["details"].splitlines()
    assert "RUN" in lines[0]
    # The engine copies a step's two streams side by side: which of them comes first is up to it.
    assert sorted(lines[1:]) == ["first", "no space for this"]


def test_a_wrong_login_is_refused_with_what_to_type(bench: Workbench) -> None:
    worker = {"REPLAYCTL_IMAGES_WORKER": "localhost:5001/replayctl-tests/worker"}
    assert bench.call("build-airflow-image", **worker).code == 0
    bench.log_in("localhost:5001", "lab", "wrong-password")
    answer = bench.call("push-airflow-image", **worker)
    assert (answer.code, answer.error["code"]) == (4, "auth"), answer.document
    assert answer.error["hint"] == "docker login localhost:5001"
    assert "wrong-password" not in json.dumps(answer.document) + answer.stderr
    bench.log_in("localhost:5001", "lab", "lab")
    pushed = bench.call("push-airflow-image", **worker)
    assert pushed.code == 0, pushed.document
    assert bench.call("images", **worker).data["images"][0]["in_registry"]


def test_a_broken_helper_of_this_registry_is_named(bench: Workbench) -> None:
    assert bench.call("build-airflow-image").code == 0
    home = Path(bench.environ["HOME"])
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps({"credHelpers": {"localhost:5000": "not-installed"}}))
    answer = bench.call("push-airflow-image")
    assert (answer.code, answer.error["code"]) == (4, "auth")
    assert "cannot read credentials for localhost:5000: the credential helper failed" in answer.error["message"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_registry_that_dies_half_way(bench: Workbench, tmp_path: Path) -> None:
    port = free_port()
    configuration = tmp_path / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n"
    )
    (bench.folder / "docker" / "greeting.txt").write_bytes(os.urandom(300_000_000))
    worker = {"REPLAYCTL_IMAGES_WORKER": f"localhost:{port}/replayctl-tests/worker"}
    assert bench.call("build-airflow-image", **worker).code == 0

    def start() -> subprocess.Popen[bytes]:
        registry = subprocess.Popen(
            ["docker-registry", "serve", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return registry
            time.sleep(0.1)
        raise AssertionError("the registry did not start")

    registry = start()
    push = subprocess.Popen(
        [sys.executable, "-m", "replayctl", "--output", "json", "push-airflow-image"],
        cwd=bench.folder,
        env={**bench.environ, **worker},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "data").rglob("_uploads/*/data")) and time.monotonic() < deadline:
        time.sleep(0.02)
    registry.send_signal(signal.SIGKILL)
    registry.wait()
    out, _ = push.communicate(timeout=180)
    document = json.loads(out)
    assert (push.returncode, document["errors"][0]["code"]) == (4, "unreachable"), document
    assert "try again" in document["errors"][0]["hint"]

    registry = start()
    try:
        assert bench.call("push-airflow-image", **worker).code == 0
    finally:
        registry.terminate()
        registry.wait()


def test_no_engine(bench: Workbench) -> None:
    answer = bench.call("build-airflow-image", "--dry-run", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert (answer.code, answer.error["code"]) == (4, "unreachable")
    assert "DOCKER_HOST" in answer.error["hint"]


def test_the_shipped_context_is_complete(bench: Workbench) -> None:
    shutil.rmtree(bench.folder / "docker")
    planned = bench.call("build-airflow-image", "--dry-run")
    assert planned.code == 0, planned.document
    text = (ROOT / "docker" / "airflow-worker.Dockerfile").read_text()
    sources = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    for source in " ".join(sources).split():
        assert (ROOT / "docker" / source).is_file(), source
