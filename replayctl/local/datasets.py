"""Raw data for the local profile: MovieLens-100k from the recbole package, in the columns of the dataset table.

GroupLens' terms forbid redistribution, so the data comes from a package that the user's own pip installs.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

from replayctl.console.events import Reporter
from replayctl.errors import OperationFailed, UsageProblem
from replayctl.local import environments
from replayctl.local.disk import disk_errors, make_private
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders
from replayctl.settings.load import LOCAL_PROFILE

PACKAGE = "recbole==1.2.1"
AVAILABLE = ("ml100k",)
_SOURCE = Path("recbole/dataset_example/ml-100k/ml-100k.inter")
_SOURCE_HEADER = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
_HEADER = ("user_id", "item_id", "rating", "timestamp")
_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class PreparedDataset:
    """A dataset's file; `existed` when it was there before."""

    name: str
    path: Path
    rows: int
    existed: bool


def prepare(name: str, settings: Settings, reporter: Reporter, *, dry_run: bool = False) -> PreparedDataset:
    """Writes the raw interactions of a dataset below the data folder, atomically.

    Raises UsageProblem for an unknown dataset, OperationFailed when the package has unexpected content.
    """
    if name not in AVAILABLE:
        raise UsageProblem(
            f"dataset {name!r} is not available for download; choose from: {', '.join(AVAILABLE)}",
            hint=f"put its file below {find_folders(settings).data_in_pods}, at the log_path of its DatasetInfo",
        )
    target = find_folders(settings).data_in_pods / "replay" / "ml100k_ratings.csv"
    if target.exists():
        return PreparedDataset(name, target, _ROWS, existed=True)
    if dry_run:
        return PreparedDataset(name, target, _ROWS, existed=False)
    workload = environments.ensure("workload", settings.cache_dir, settings.local.python, reporter)
    source = workload.site_packages / _SOURCE
    if not source.exists():
        reporter.step(f"fetching MovieLens-100k with {PACKAGE}")
        environments.add_package(workload, PACKAGE, settings.local.python, reporter)
    reporter.step(f"preparing {target}")
    if settings.profile == LOCAL_PROFILE:
        # The folder must be private, whichever command creates it.
        make_private(settings.local.home, "local.home")
    with disk_errors(
        "write dataset", target, hint="choose another folder: export REPLAYCTL_FOLDERS_DATA_IN_PODS=<folder>"
    ):
        text = _convert(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return PreparedDataset(name, target, _ROWS, existed=False)


def _convert(source: Path) -> str:
    with source.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file, delimiter="\t")
        header = next(rows, [])
        if header != _SOURCE_HEADER:
            raise OperationFailed(f"cannot read {source}: it has the columns {header}, expected {_SOURCE_HEADER}")
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_HEADER)
        count = 0
        for user, item, rating, timestamp in rows:
            writer.writerow((int(user), int(item), int(float(rating)), int(float(timestamp))))
            count += 1
    if count != _ROWS:
        raise OperationFailed(f"cannot read {source}: it has {count} interactions, expected {_ROWS}")
    return text.getvalue()
