"""What the evaluations of a namespace have for MLflow, from where their artifacts lie."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from replayctl.errors import NotFound, SettingsError
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders
from replayctl.settings.workspace import Workspace
from replayctl.storage.answers import records_of, warn_of_closed
from replayctl.storage.target import shell_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from replayctl.clients.webhdfs import WebHdfs


_FILE, _WHOLE = "mlflow.json", "_SUCCESS"
_MAX_BYTES = 1 << 20
_IDENTITY = re.compile("[0-9a-f]{1,64}")


def is_on_hdfs(settings: Settings) -> bool:
    """Whether the profile's artifacts are on HDFS."""
    return isinstance(find_folders(settings).artifacts_in_pods, str)


def read_shared_evaluations(workspace: Workspace) -> dict[str, str]:
    """The text of `mlflow.json` of each whole evaluation in the shared folder, by its identity.

    The texts are not checked: tasks have written them, and others may have. Raises SettingsError when the profile does
    not say where this machine sees the artifacts, NotFound when there is no such folder.
    """
    settings = workspace.settings
    artifacts = find_folders(settings).artifacts
    if artifacts is None:
        raise SettingsError(
            f"folders.artifacts is required in profile {settings.profile!r}",
            hint=f"set it in replayctl.yaml under profiles → {settings.profile} → folders",
        )
    shell = shell_of(settings, workspace.reporter)
    try:
        variables = {"artifacts": str(artifacts), "owner": workspace.namespace.directory}
        records = records_of(shell.run("evaluations", variables), shell.name)
    finally:
        shell.close()
    warn_of_closed(records, workspace.reporter)
    return {record.name: record.text for record in records if record.kind == "evaluation"}


def read_hdfs_evaluations(workspace: Workspace, environ: Mapping[str, str]) -> dict[str, str]:
    """The same from HDFS, reached directly or through forwards."""
    from replayctl.forwarding.hdfs import open_hdfs

    settings, namespace = workspace.settings, workspace.namespace
    address = str(find_folders(settings).artifacts_in_pods)
    base = f"{urlsplit(address).path}/{namespace.directory}"
    user = settings.hdfs.user or namespace.user or "replayctl"
    with open_hdfs(settings, environ, workspace.reporter, user) as hdfs:
        return dict(_stored(hdfs, base))


def _stored(hdfs: WebHdfs, base: str) -> Iterator[tuple[str, str]]:
    for dataset in hdfs.entries(base) or ():
        evaluate = f"{base}/{dataset.name}/evaluate"
        for folder in (dataset.is_folder and hdfs.entries(evaluate)) or ():
            if not folder.is_folder or not _IDENTITY.fullmatch(folder.name):
                continue
            path = f"{evaluate}/{folder.name}"
            sizes = {entry.name: entry.size for entry in hdfs.entries(path) or () if not entry.is_folder}
            if not {_FILE, _WHOLE} <= sizes.keys():
                continue
            if sizes[_FILE] > _MAX_BYTES:
                # Like a text that is cut in the shared folder, it is one that cannot be read, and hides no other.
                yield folder.name, ""
                continue
            # Another run may have replaced the evaluation meanwhile.
            with contextlib.suppress(NotFound):
                yield folder.name, hdfs.read(f"{path}/{_FILE}", _MAX_BYTES).decode("utf-8", "replace")
