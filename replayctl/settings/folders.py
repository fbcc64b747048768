"""The folders of a profile, in pairs: the path on this machine and the path on the workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from replayctl.errors import SettingsError
from replayctl.settings.declared import Settings
from replayctl.settings.load import LOCAL_PROFILE


@dataclass(frozen=True, slots=True)
class Folders:
    """Pairs of folders: the path on this machine, and the path of the same folder on the workers.

    That of the artifacts may be an hdfs:// address; their path on this machine is None where nothing tells it.
    """

    dags: Path
    spark_submit_files: Path
    spark_submit_files_in_pods: Path
    data_in_pods: Path
    artifacts_in_pods: Path | str
    artifacts: Path | None = None


_Folder = TypeVar("_Folder", Path, Path | str)


def find_folders(settings: Settings) -> Folders:
    """The folders of the profile; in the profile `local`, they are below `local.home` unless set.

    Raises SettingsError that names the first missing key.
    """
    home = settings.local.home if settings.profile == LOCAL_PROFILE else None
    configured = settings.folders

    def pick(key: str, value: _Folder | None, local_name: str) -> _Folder | Path:
        if value is not None:
            return value
        if home is not None:
            return home / local_name
        raise SettingsError(
            f"folders.{key} is required in profile {settings.profile!r}",
            hint=f"set it in replayctl.yaml under profiles → {settings.profile} → folders",
        )

    files = pick("spark_submit_files", configured.spark_submit_files, "spark_submit_files")
    in_pods: Path | str = pick("artifacts_in_pods", configured.artifacts_in_pods, "artifacts")
    return Folders(
        dags=pick("dags", configured.dags, "dags"),
        spark_submit_files=files,
        spark_submit_files_in_pods=configured.spark_submit_files_in_pods or files,
        data_in_pods=pick("data_in_pods", configured.data_in_pods, "data"),
        artifacts_in_pods=in_pods,
        artifacts=configured.artifacts or (in_pods if home is not None and isinstance(in_pods, Path) else None),
    )
