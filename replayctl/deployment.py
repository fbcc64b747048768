"""Where a release runs under the chosen profile: the folders, as this machine and as the workers see them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replayctl.errors import SettingsError
from replayctl.namespace import Namespace
from replayctl.settings import Settings
from replayctl.shell import LocalShell, Shell
from replayctl.ssh import SshAddress, SshShell
from replayctl.target import Modes, Target

LOCAL_PROFILE = "local"
LOCAL_POOL = "replayctl_spark"
_TIERS = ("default", "big", "extra_big")
# What Airflow and MLflow themselves need beside the Spark tasks, in GiB.
_SERVICES_MEMORY_GIB = 4
_MAX_TASK_CORES = 4


@dataclass(frozen=True, slots=True)
class Folders:
    """Pairs of folders: what this machine writes, and the same seen by the workers."""

    dags: Path
    spark_submit_files: Path
    spark_submit_files_in_pods: Path
    data_in_pods: Path
    artifacts_in_pods: Path


def find_folders(settings: Settings) -> Folders:
    """The folders of the profile; in the local one they lie below `local.home` unless set.

    Raises SettingsError that names the first missing key.
    """
    home = settings.local.home if settings.profile == LOCAL_PROFILE else None
    given = settings.folders

    def pick(key: str, value: Path | None, local_name: str) -> Path:
        if value is not None:
            return value
        if home is not None:
            return home / local_name
        raise SettingsError(
            f"profile {settings.profile!r} has no folders.{key}",
            hint=f"set it in replayctl.yaml under profiles → {settings.profile} → folders",
        )

    files = pick("spark_submit_files", given.spark_submit_files, "spark_submit_files")
    return Folders(
        dags=pick("dags", given.dags, "dags"),
        spark_submit_files=files,
        spark_submit_files_in_pods=given.spark_submit_files_in_pods or files,
        data_in_pods=pick("data_in_pods", given.data_in_pods, "data"),
        artifacts_in_pods=pick("artifacts_in_pods", given.artifacts_in_pods, "artifacts"),
    )


@contextlib.contextmanager
def open_target(settings: Settings, namespace: Namespace) -> Iterator[Target]:
    """The namespace's part of the profile's folders: behind ssh where `ssh.host` is set, else on this machine."""
    folders = find_folders(settings)
    shell: Shell
    given = settings.ssh
    if given.host is None:
        shell = LocalShell()
    else:
        shell = SshShell(SshAddress(given.host, given.user, given.port, given.config))
    modes = Modes(settings.deploy.directory_mode, settings.deploy.file_mode)
    try:
        yield Target(shell, str(folders.dags), str(folders.spark_submit_files), namespace.directory, modes)
    finally:
        shell.close()


def local_cores(settings: Settings) -> int:
    """Cores that one local Spark task may use: small data keep no more than a few busy."""
    return settings.local.spark_cores or min(_usable_cores(), _MAX_TASK_CORES)


def local_slots(settings: Settings) -> int:
    """How many Spark tasks fit into this machine at once, by cores and by memory; at least 1."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    by_memory = int((memory_gib - _SERVICES_MEMORY_GIB) // settings.local.task_memory_gib)
    # Two tasks that share their cores take longer than one after the other.
    return max(1, min(_usable_cores() // local_cores(settings), by_memory))


def deployment_json(settings: Settings, folders: Folders, user: str | None) -> str:
    """The text of `deployment.json`; its fields are those of `Deployment` in dags/dag_specs.py, without the release."""
    document: dict[str, object] = {
        "profile": settings.profile,
        "user": user,
        "data_root": str(folders.data_in_pods),
        "artifacts_root": str(folders.artifacts_in_pods),
        "spark_submit_files": str(folders.spark_submit_files_in_pods),
        # The local server's port may change from one start to the next: its tasks take it from their environment.
        "tracking_uri": None if settings.profile == LOCAL_PROFILE else settings.mlflow.url,
        # Without a ResourceManager the worker's own pod is where a step for YARN runs, too.
        "places": {"pod": "pod", "yarn": "yarn" if settings.yarn.url_in_pods else "pod"},
        "yarn_url": settings.yarn.url_in_pods,
        "yarn_conf": dict(settings.yarn.spark_conf),
    }
    if settings.profile == LOCAL_PROFILE:
        cores = local_cores(settings)
        resources = {"cores": cores, "memory_gib": settings.local.task_memory_gib}
        document["tiers"] = {tier: resources for tier in _TIERS}
        document["pool"] = LOCAL_POOL
        document["spark_conf"] = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": str(2 * cores),
            "spark.default.parallelism": str(2 * cores),
            "spark.sql.execution.arrow.pyspark.enabled": "true",
        }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
