"""How this machine sees the artifacts of a release, for what only looks at them."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace

from replayctl.bundle.release import Release
from replayctl.bundle.specs import ArtifactView, Dag, load_specs
from replayctl.errors import NotFound, ReplayctlError, TimedOut, Unreachable
from replayctl.settings.folders import find_folders
from replayctl.settings.load import LOCAL_PROFILE
from replayctl.settings.workspace import Workspace

_LOOK_S = 60.0
_ANSWER_S = 10.0
_PATIENCE_S = "2"


@contextlib.contextmanager
def open_loader(workspace: Workspace, *, look: bool) -> Iterator[Callable[[Release], tuple[Dag, ...]]]:
    """Loads the DAGs of releases, see `load_specs`.

    With `look`, each step has its prospect: `unknown` with the reason if the artifacts cannot be read from here.
    """
    with contextlib.ExitStack() as stack:
        view, why = None, ""
        if look:
            workspace.reporter.status("looking for artifacts")
            try:
                view = stack.enter_context(open_view(workspace))
            except ReplayctlError as error:
                why = str(error)

        def load(release: Release) -> tuple[Dag, ...]:
            nonlocal view, why
            timeout_s = workspace.settings.deploy.load_timeout_s
            if view is not None:
                try:
                    return load_specs(release, timeout_s=timeout_s + _LOOK_S, view=view)
                except TimedOut:
                    view, why = None, f"the artifacts could not be read within {_LOOK_S:.0f} s"
            dags = load_specs(release, timeout_s=timeout_s)
            return _unknown(dags, why) if why else dags

        yield load


def _unknown(dags: tuple[Dag, ...], why: str) -> tuple[Dag, ...]:
    prospect = {"outcome": "unknown", "why": why}
    return tuple(replace(dag, steps=tuple(replace(step, prospect=prospect) for step in dag.steps)) for dag in dags)


@contextlib.contextmanager
def open_view(workspace: Workspace) -> Iterator[ArtifactView]:
    """The artifacts in a folder of this machine, or on HDFS at its own address or through a forward.

    Raises NotFound if they are in a folder that this machine does not have, and what forwards and HDFS raise.
    """
    settings = workspace.settings
    folders = find_folders(settings)
    root = folders.artifacts_in_pods
    if isinstance(root, str):
        # Imported here because folders need neither a cluster nor an event loop.
        from replayctl.clients.webhdfs import WebHdfs
        from replayctl.forwarding.hdfs import open_hdfs_address

        user = settings.hdfs.user or workspace.namespace.user or "replayctl"
        with open_hdfs_address(settings, os.environ, workspace.reporter) as url:
            # Its error says what to do about it; that of the modules of a release is for tasks.
            WebHdfs(url, user, _nowhere, timeout_s=_ANSWER_S).entries(urllib.parse.urlsplit(root).path)
            # A DataNode may be out of reach from here, and waiting for it does not change that.
            yield ArtifactView(root, {"url": url, "user": user, "patience_s": _PATIENCE_S})
        return
    own = folders.artifacts if settings.ssh.host is None else None
    for folder in (own, root):
        # The workers' folder may lie where this user may not look. The local stack makes its with the first artifact.
        if folder is not None and (os.path.isdir(folder) or settings.profile == LOCAL_PROFILE):
            yield ArtifactView(str(folder))
            return
    raise NotFound(f"this machine has no folder {own or root}")


def _nowhere(host: str, port: int) -> str:
    raise Unreachable(f"a list of files was redirected to {host}:{port}")
