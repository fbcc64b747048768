"""`deployment.json`: what a deployed release needs to know of the profile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from replayctl.errors import SettingsError
from replayctl.local.capacity import LOCAL_POOL, local_cores, local_slots
from replayctl.settings.declared import Settings
from replayctl.settings.folders import Folders
from replayctl.settings.load import LOCAL_PROFILE

if TYPE_CHECKING:
    from replayctl.publishing.package_references import Packages

_TIERS = ("default", "big", "extra_big")
_SIZES = (*_TIERS, "submit")


def deployment_json(
    settings: Settings,
    folders: Folders,
    user: str | None,
    *,
    images: Mapping[str, str] | None = None,
    packages: Packages | None = None,
) -> str:
    """The text of `deployment.json`; its fields are those of `Deployment` in dags/dag_specs.py, without the release.

    `images` has the digests of images by the names that DAGs have for them, the profile's under the empty name;
    `packages` are those that its steps use.
    Raises SettingsError when the artifacts are on HDFS and nothing says how the workers reach it.
    """
    local = settings.profile == LOCAL_PROFILE
    document: dict[str, object] = {
        "profile": settings.profile,
        "user": user,
        "data_root": str(folders.data_in_pods),
        "artifacts_root": str(folders.artifacts_in_pods),
        "spark_submit_files": str(folders.spark_submit_files_in_pods),
        # The port of the local server may change at each start: its tasks read it from their environment.
        "tracking_uri": None if local else settings.mlflow.url_in_pods or settings.mlflow.url,
        "tracking_servers": {**settings.mlflow.servers, **settings.mlflow.servers_in_pods},
        "tracking_required": settings.mlflow.when_away == "fail",
        # Without a ResourceManager, steps for YARN run in the worker's pod.
        "places": {"pod": "pod", "yarn": "yarn" if settings.yarn.url_in_pods else "pod"},
        "yarn_url": settings.yarn.url_in_pods,
        "yarn_conf": dict(settings.yarn.spark_conf),
        "hdfs": _hdfs(settings, folders, user),
        "engine": settings.deploy.engine or ("embedded" if local else "spark"),
    }
    if local:
        cores = local_cores(settings)
        resources = {"cores": cores, "memory_gib": settings.local.task_memory_gib}
        document["tiers"] = {tier: resources for tier in _TIERS}
        document["pool"] = LOCAL_POOL
        document["spark_slots"] = min(cores, local_slots(settings))
        document["spark_conf"] = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": str(2 * cores),
            "spark.default.parallelism": str(2 * cores),
            "spark.sql.execution.arrow.pyspark.enabled": "true",
        }
    else:
        sizes = {tier: getattr(settings.pods, tier) for tier in _SIZES}
        document["pods"] = True
        document["images"] = dict(images or {})
        document["tiers"] = {tier: asdict(size) for tier, size in sizes.items() if size is not None}
        document["spark_conf"] = {
            "spark.ui.enabled": "false",
            "spark.sql.execution.arrow.pyspark.enabled": "true",
        }
    if packages is not None:
        document["packages"] = {name: asdict(package) for name, package in packages.named.items()}
        document["python"] = asdict(packages.python) if packages.python else None
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _hdfs(settings: Settings, folders: Folders, user: str | None) -> dict[str, str | None] | None:
    if settings.hdfs.url_in_pods is not None:
        return {"url": settings.hdfs.url_in_pods, "user": settings.hdfs.user or user}
    if isinstance(folders.artifacts_in_pods, str):
        raise SettingsError(
            f"folders.artifacts_in_pods is {folders.artifacts_in_pods}, but hdfs.url_in_pods is not set",
            hint=f"set it in replayctl.yaml under profiles → {settings.profile} → hdfs → url_in_pods, such as "
            "http://namenode:9870",
        )
    return None
