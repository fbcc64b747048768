"""upd-wheels-and-jars: uploads, lists and prunes wheels and jars for Spark."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replayctl.commands.options import DryRun, PackageDestination, Shared
from replayctl.console.result import Lines, Result, Table
from replayctl.errors import UsageProblem
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.bundle.package_files import Runtime
    from replayctl.publishing.packages import Store, Upload
    from replayctl.settings.declared import Settings
    from replayctl.settings.namespace import Namespace
    from replayctl.settings.workspace import Workspace
    from replayctl.storage.packages import StoredPackage

_COMMAND = "upd-wheels-and-jars"
_KEEP = 5


def upd_wheels_and_jars(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Wheels, jars, and folders of Python projects to build.", show_default=False),
    ] = None,
    dags_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the workloads; ./dags if it exists, else the shipped one.", show_default=False),
    ] = None,
    workloads: Annotated[
        bool, typer.Option("--workloads/--no-workloads", help="Build and upload the wheel of the workloads.")
    ] = True,
    show_list: Annotated[bool, typer.Option("--list", help="List the stored packages instead of uploading.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove old builds of each package instead of uploading.")
    ] = False,
    keep: Annotated[
        int | None,
        typer.Option(
            help=f"Number of builds of each package that --prune keeps; {_KEEP} by default.", show_default=False
        ),
    ] = None,
    include_used: Annotated[
        bool, typer.Option("--include-used", help="Let --prune remove builds that a stored release uses.")
    ] = False,
    to: PackageDestination = None,
    shared: Shared = False,
    dry_run: DryRun = False,
) -> Result:
    """Upload wheels and jars for Spark: the workloads' wheel, and the files in the settings and arguments.

    Files that do not match the cluster are rejected before anything is sent. Files that are already stored are not sent
    again, and interrupted uploads are resumed. --prune keeps builds that a release uses, published or stored for a
    rollback.

    \b
    Examples:
      replayctl upd-wheels-and-jars --dry-run
      replayctl upd-wheels-and-jars scala/target/scala-2.12/replay_2.12-0.1.jar
      replayctl upd-wheels-and-jars --list
      replayctl upd-wheels-and-jars --prune --keep 3
    """
    from replayctl.publishing.package_stores import open_store

    app: AppContext = ctx.obj
    _require_compatible(show_list, prune, files or ())
    for option in [*(("--include-used",) if include_used else ()), *(("--keep",) if keep is not None else ())]:
        if not prune:
            raise UsageProblem(f"{option} has no effect without --prune", hint="pass --prune, or leave it out")
    workspace = app.workspace(shared=shared)
    with open_store(workspace, to) as store:
        in_pods = store.root
        if show_list:
            return _listed(store, in_pods)
        if prune:
            kept = _KEEP if keep is None else keep
            return _pruned(app, workspace, store, kept, include_used=include_used, dry_run=dry_run)
        # Imported here because no other command needs it.
        import tempfile

        with tempfile.TemporaryDirectory(prefix="replayctl-") as folder:
            paths = _paths(app, workspace.namespace, dags_dir, files or (), Path(folder), workloads=workloads)
            return _uploaded(app, store, in_pods, paths, dry_run=dry_run)


def _require_compatible(show_list: bool, prune: bool, files: Sequence[Path]) -> None:
    if show_list and prune:
        raise UsageProblem(
            "--list cannot be combined with --prune", hint="pass --prune --dry-run to see what would be removed"
        )
    if (show_list or prune) and files:
        raise UsageProblem(
            f"{'--list' if show_list else '--prune'} cannot be combined with files to upload",
            hint="leave out the files",
        )


def _paths(
    app: AppContext,
    namespace: Namespace,
    dags_dir: Path | None,
    files: Sequence[Path],
    folder: Path,
    *,
    workloads: bool,
) -> list[Path]:
    """All files to upload; builds the wheels that have to be built."""
    from replayctl.bundle.workload_wheel import build_project_wheel, build_workload_wheel
    from replayctl.deploy import find_dags_dir
    from replayctl.shipped import shipped_dir

    settings = app.settings
    paths = []
    if workloads:
        source = find_dags_dir(dags_dir, app.cwd) or shipped_dir("dags")
        app.reporter.step(f"building the wheel of the workloads from {source}")
        built = folder / "workloads"
        built.mkdir()
        paths.append(
            build_workload_wheel(source, built, owner=namespace.user or "shared", python=settings.packages.python)
        )
    elif dags_dir:
        raise UsageProblem("--dags-dir cannot be combined with --no-workloads", hint="leave out one of them")
    for number, path in enumerate((*settings.packages.wheels, *settings.packages.jars, *files)):
        entry = app.cwd / path
        # Also false for a path in a folder that may not be looked into: reading it says so.
        if not os.path.isdir(entry):
            paths.append(entry)
        elif (entry / "pyproject.toml").is_file():
            app.reporter.step(f"building the wheel of {entry}")
            built = folder / f"project{number}"
            built.mkdir()
            paths.append(build_project_wheel(entry, built))
        else:
            raise UsageProblem(f"{entry} is a folder without pyproject.toml", hint="pass wheels, jars or projects")
    if not paths:
        raise UsageProblem("there is nothing to upload", hint="pass files, or leave out --no-workloads")
    return paths


def _uploaded(app: AppContext, store: Store, in_pods: str, paths: Sequence[Path], *, dry_run: bool) -> Result:
    from replayctl.publishing import packages

    files, stored = packages.read_and_look(paths, _runtime(app.settings), store, app.reporter)
    uploads = packages.plan_uploads(files, stored)
    packages.check_uploads(uploads, app.reporter)
    if not dry_run:
        packages.send(store, uploads, app.reporter)
    rows = [_row(upload, store.path, in_pods, dry_run=dry_run) for upload in uploads]
    data = {"target": store.name, "packages": rows, "dry_run": dry_run}
    cells = [(row["name"], row["outcome"], row["sent_bytes"], row["path_in_pods"]) for row in rows]
    head = "bytes to send" if dry_run else "bytes sent"
    view = (Table(("package", "outcome", head, "path in pods"), cells, title=store.name, numeric=(2,)),)
    changed = any(upload.outcome != "unchanged" for upload in uploads)
    warnings = tuple(warning for file in files for warning in file.warnings)
    return Result(_COMMAND, data, view, status="ok" if changed else "nothing-to-do", warnings=warnings)


def _row(upload: Upload, root: str, in_pods: str, *, dry_run: bool) -> dict[str, Any]:
    from replayctl.publishing.packages import path_of

    words = {"send": "sent", "resume": "resumed", "unchanged": "unchanged"}
    outcome = f"would {upload.outcome}" if dry_run and upload.outcome != "unchanged" else words[upload.outcome]
    package = upload.package
    return {
        "name": package.name,
        "kind": package.kind,
        "size": package.size,
        "sha256": package.sha256,
        "outcome": outcome,
        "sent_bytes": upload.to_send,
        "path": path_of(root, package),
        "path_in_pods": path_of(in_pods, package),
    }


def _listed(store: Store, in_pods: str) -> Result:
    stored = sorted(store.look().packages.values(), key=lambda package: (package.name, package.folder))
    rows = [_stored_row(package, store.path, in_pods) for package in stored]
    data = {"target": store.name, "packages": rows}
    return Result(_COMMAND, data, (_stored_table(rows, store.name),), status="ok")


def _pruned(
    app: AppContext, workspace: Workspace, store: Store, keep: int, *, include_used: bool, dry_run: bool
) -> Result:
    from replayctl.publishing import packages
    from replayctl.publishing.package_uses import Uses, find_uses

    stored = store.look().packages
    surplus = packages.surplus(stored, keep)
    uses = find_uses(workspace) if surplus and not include_used else Uses({})
    used = [package for package in surplus if uses.of(package)]
    # A removal cannot be undone, and a release that cannot be read may use any of them.
    old = [] if uses.unread else [package for package in surplus if not uses.of(package)]
    # Only a removal looks for them.
    leftovers = None if dry_run else packages.prune(store, old)
    rows = [_stored_row(package, store.path, store.root) for package in old]
    in_use = [{**_stored_row(package, store.path, store.root), "used_by": uses.of(package)} for package in used]
    data = {"target": store.name, "removed": rows, "kept": len(stored) - len(old), "dry_run": dry_run}
    data |= {"in_use": in_use, "unread": uses.unread, "leftovers": leftovers}
    lines = [f"{'would remove' if dry_run else 'removed'} {len(old)} of {len(stored)} packages"]
    lines += [f"kept {row['name']}: used by {', '.join(row['used_by'])}" for row in in_use]
    lines += ["to remove those as well, pass --include-used"] if in_use or uses.unread else []
    lines += ["would remove what interrupted uploads left more than a week ago"] if dry_run else []
    lines += (
        [f"removed {leftovers} leftover{'s' if leftovers != 1 else ''} of interrupted uploads"] if leftovers else []
    )
    warnings = tuple(
        f"no build is removed: cannot read the releases of {name}, which may use them" for name in uses.unread
    )
    view = (*((_stored_table(rows, store.name),) if rows else ()), Lines(tuple(lines)))
    return Result(_COMMAND, data, view, status="ok" if old or leftovers else "nothing-to-do", warnings=warnings)


def _stored_row(package: StoredPackage, root: str, in_pods: str) -> dict[str, Any]:
    from replayctl.publishing.packages import path_of

    return {
        "name": package.name,
        "size": package.size,
        "uploaded_at": package.facts.get("at"),
        "by": package.facts.get("by"),
        "path": path_of(root, package),
        "path_in_pods": path_of(in_pods, package),
    }


def _stored_table(rows: Sequence[dict[str, Any]], title: str) -> Table | Lines:
    from replayctl.console.times import moment

    if not rows:
        return Lines((f"no packages in {title}",))
    cells = [(row["name"], row["size"], moment(row["uploaded_at"]), row["by"], row["path_in_pods"]) for row in rows]
    return Table(("package", "bytes", "uploaded", "by", "path in pods"), cells, title=title, numeric=(1,))


def _runtime(settings: Settings) -> Runtime:
    from replayctl.bundle.package_files import Runtime

    expected = settings.packages
    return Runtime(expected.python, expected.scala, expected.glibc, expected.machine)
