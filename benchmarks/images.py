"""A rebuild of the worker's image with one changed file, against `docker build`: `python -m benchmarks images`."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from replayctl.settings.load import load_settings

_ROOT = Path(__file__).parent.parent
_REPOSITORY = "replayctl-bench"
Pairs = Callable[[str, Callable[[], float], Callable[[], float], int, str], None]


def run(pairs: Pairs) -> None:
    """Prints the ratio; needs a Docker engine, and builds the whole image first where its layers are not cached."""
    if shutil.which("docker") is None or subprocess.run(["docker", "version"], capture_output=True).returncode:
        print("images: not measured, no Docker engine")
        return
    with tempfile.TemporaryDirectory(prefix="rctl-bench-") as name:
        folder = Path(name) / "docker"
        shutil.copytree(_ROOT / "docker", folder)
        try:
            _run(folder, pairs)
        finally:
            names = subprocess.run(
                ["docker", "images", "--quiet", _REPOSITORY], capture_output=True, text=True, check=True
            ).stdout.split()
            if names:
                subprocess.run(["docker", "rmi", "--force", *set(names)], check=True, stdout=subprocess.DEVNULL)


def _run(folder: Path, pairs: Pairs) -> None:
    settings = load_settings("lab", environ={**os.environ, "REPLAYCTL_USER": "bench"}, cwd=folder)
    # Without buildx the client has to be told to use the engine's own builder.
    has_buildx = subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0
    environ = {**os.environ, "DOCKER_BUILDKIT": "1" if has_buildx else "0", "REPLAYCTL_USER": "bench"}
    environ |= {"REPLAYCTL_PROFILE": "lab", "REPLAYCTL_IMAGES_WORKER": _REPOSITORY}
    network = settings.images.build_network
    theirs = ["docker", "build", "--quiet", "--file", str(folder / "airflow-worker.Dockerfile")]
    theirs += ["--build-arg", f"BASE={settings.images.base}", *(["--network", network] if network else [])]
    # As many labels as ours has: the engine's builder makes a layer of them.
    theirs += ["--label", "replayctl.input-digest=0", "--label", "org.opencontainers.image.revision=0"]
    theirs += ["--tag", f"{_REPOSITORY}:theirs", str(folder)]
    ours = [sys.executable, "-m", "replayctl", "--quiet", "build-airflow-image", "--docker-dir", str(folder)]

    def rebuild(argv: list[str]) -> float:
        changed = folder / "conf" / "core-site.xml"
        changed.write_text(f"{changed.read_text()}<!-- {time.monotonic_ns()} -->\n")
        started = time.perf_counter()
        subprocess.run(argv, cwd=_ROOT, env=environ, check=True, capture_output=True)
        return time.perf_counter() - started

    builder = "buildx" if has_buildx else "the engine's builder"
    pairs(
        f"rebuild of the worker's image with one changed file to `docker build` ({builder})",
        lambda: rebuild(ours),
        lambda: rebuild(theirs),
        5,
        "≤ 1.1",
    )
