"""The wheel of the workloads: a DAG folder as a package with a version derived from its content.

uv builds it from a copy, offline and without the user's configuration, so equal content gives equal names and bytes.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from replayctl import __version__, process, shipped
from replayctl.bundle.release import DEPLOYMENT_FILE, build_release
from replayctl.errors import OperationFailed, RemoteCommandFailed

PACKAGE = "replayctl_workloads"
_DIGITS = 12
_TIMEOUT_S = 600.0
_PROJECT = """\
[build-system]
requires = ["uv_build"]
build-backend = "uv_build"

[project]
name = "replayctl-workloads"
version = "{version}"
description = "Workloads of replayctl"
requires-python = ">={python}"

[tool.uv.build-backend]
module-name = "{package}"
module-root = ""
"""


def build_workload_wheel(dags_dir: Path, folder: Path, *, owner: str, python: str) -> Path:
    """Builds the wheel of a DAG folder into `folder`. Its local version has the owner and a hash of the content.

    Raises UsageProblem for a folder without DAGs, RemoteCommandFailed with uv's output if the build fails.
    """
    release = build_release(dags_dir, "{}")
    source = folder / "source"
    digest = hashlib.sha256()
    for file in release.files:
        # The wheel does not depend on the deployment.
        if file.path == DEPLOYMENT_FILE:
            continue
        path = source / PACKAGE / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        digest.update(f"{file.path}\0{len(file.content)}\0".encode() + file.content)
    # PEP 440 allows letters and digits, separated by full stops.
    local = re.sub(r"[^a-z0-9]+", ".", owner.lower()).strip(".")
    version = f"{__version__}+{local}.h{digest.hexdigest()[:_DIGITS]}"
    (source / "pyproject.toml").write_text(_PROJECT.format(version=version, python=python, package=PACKAGE))
    _uv_build(source, folder, f"the workloads in {dags_dir}", "--offline", "--no-config")
    return _only_wheel(folder, f"the workloads in {dags_dir}")


def build_project_wheel(project: Path, folder: Path) -> Path:
    """Builds the wheel of a Python project in isolation, with the backend from its pyproject.toml.

    Raises RemoteCommandFailed with the backend's output if the build fails.
    """
    _uv_build(project, folder, str(project))
    return _only_wheel(folder, str(project))


def _uv_build(source: Path, folder: Path, what: str, *options: str) -> None:
    """`what` is what the user knows: the source may be a copy that is gone afterwards."""
    argv = [
        shipped.uv_program(),
        "build",
        "--wheel",
        "--no-create-gitignore",
        *options,
        "--out-dir",
        str(folder),
        str(source),
    ]
    try:
        process.run(argv, timeout_s=_TIMEOUT_S)
    except RemoteCommandFailed as error:
        raise RemoteCommandFailed(f"cannot build the wheel of {what}", details=error.details) from error


def _only_wheel(folder: Path, what: str) -> Path:
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise OperationFailed(f"uv built {len(wheels)} wheels of {what} instead of one")
    return wheels[0]
