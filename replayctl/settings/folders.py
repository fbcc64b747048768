"""The folders of a profile, in pairs: as this machine sees them, and as the workers do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from replayctl.errors import SettingsError
from replayctl.settings.declared import Settings
from replayctl.settings.load import LOCAL_PROFILE


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
