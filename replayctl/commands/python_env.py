"""build-python-env: packs the Python environment of steps on YARN, and publishes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replayctl.commands.options import Destination, DryRun, PackageDestination, Shared
from replayctl.console.result import Block, Fields, Lines, Result
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.bundle.package_files import PackageFile
    from replayctl.python_env.build import Environment
    from replayctl.python_env.recipe import Recipe
    from replayctl.settings.workspace import Workspace

_COMMAND = "build-python-env"


def build_python_env(
    ctx: typer.Context,
    publish: Annotated[bool, typer.Option("--publish", help="Store the archive for YARN as well.")] = False,
    to: PackageDestination = None,
    dags_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the workloads; ./dags if it exists, else the shipped one.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even when the inputs are unchanged.")] = False,
    shared: Shared = False,
    dry_run: DryRun = False,
) -> Result:
    """Pack the workloads' packages with a Python interpreter into one archive for YARN.

    The archive needs only the C library of a node; the build tries all imports under an empty root file system.
    Nothing is built when the inputs are unchanged. With the setting packages.environment, steps on YARN run in the
    newest published archive of the profile's list.

    \b
    Examples:
      replayctl build-python-env --dry-run
      replayctl build-python-env --publish
      replayctl build-python-env --to hdfs
    """
    from replayctl.deploy import find_dags_dir
    from replayctl.python_env.build import build, find_built, plan_environment
    from replayctl.shipped import shipped_dir

    app: AppContext = ctx.obj
    # Without a user there is no place to publish to: known before a build of minutes.
    workspace = app.workspace(shared=shared) if publish or to else None
    app.reporter.status("looking for an interpreter")
    recipe = plan_environment(app.settings)
    built = None if force else find_built(recipe, app.settings.cache_dir)
    data: dict[str, Any] = {
        "name": recipe.file_name,
        "inputs": recipe.inputs,
        "requirements": recipe.requirements_file,
        "packages": recipe.packed,
        "interpreter": [name for name, _ in recipe.interpreter.files],
        "built": built is None and not dry_run,
        "dry_run": dry_run,
    }
    if dry_run and built is None:
        lines = [f"{recipe.file_name} would be built"]
        if workspace is not None:
            target = _target(workspace, to)
            data["published"] = {"outcome": "would be published", "target": target}
            lines.append(f"would be published in {target}")
        return Result(_COMMAND, data, (*_planned(recipe), Lines(tuple(lines))))
    environment = built or build(
        recipe, app.settings, find_dags_dir(dags_dir, app.cwd) or shipped_dir("dags"), app.reporter, force=force
    )
    data |= _facts(environment)
    warnings = (f"the archive was not tried under an empty root: {environment.note}",) if environment.note else ()
    view: list[Block] = [*_planned(recipe), _described(environment)]
    changed = data["built"]
    if workspace is not None:
        published = _publish(workspace, environment.package, to, dry_run=dry_run)
        data["published"] = published
        changed = changed or published["outcome"] != "unchanged"
        view.append(Lines((f"{published['outcome']}: {published['path_in_pods']}",)))
    else:
        view.append(Lines(("next: run `replayctl build-python-env --publish`",)))
    return Result(_COMMAND, data, view, status="ok" if changed else "nothing-to-do", warnings=warnings)


def _target(workspace: Workspace, to: Destination | None) -> str:
    """The folder of packages, once it has answered."""
    from replayctl.publishing.package_stores import open_store

    with open_store(workspace, to) as store:
        workspace.reporter.status(f"reading {store.name}")
        store.look()
        return store.name


def _publish(workspace: Workspace, package: PackageFile, to: Destination | None, *, dry_run: bool) -> dict[str, Any]:
    from replayctl.publishing import packages
    from replayctl.publishing.package_stores import open_store

    with open_store(workspace, to) as store:
        workspace.reporter.status(f"reading {store.name}")
        uploads = packages.plan_uploads([package], store.look([package.sha256]))
        if not dry_run:
            packages.send(store, uploads, workspace.reporter)
        words = {"send": "published", "resume": "published", "unchanged": "unchanged"}
        outcome = words[uploads[0].outcome]
        return {
            "outcome": f"would be {outcome}" if dry_run and outcome != "unchanged" else outcome,
            "target": store.name,
            "sent_bytes": uploads[0].to_send,
            "path": packages.path_of(store.path, package),
            "path_in_pods": packages.path_of(store.root, package),
        }


def _facts(environment: Environment) -> dict[str, Any]:
    packed = environment.packed
    return {
        "archive": environment.path,
        "size": packed.size,
        "unpacked": packed.unpacked,
        "files": packed.files,
        "sha256": packed.sha256,
        "tried_in_isolation": environment.note is None,
    }


def _planned(recipe: Recipe) -> tuple[Block, ...]:
    runtime = recipe.runtime
    pairs = (
        ("packages", f"{len(recipe.packed)} of {recipe.requirements_file}"),
        ("from Spark", ", ".join(recipe.from_spark) or "-"),
        ("interpreter", f"Python {runtime.python}, {recipe.interpreter.kind}"),
        ("nodes", f"{runtime.machine}, glibc {runtime.glibc}"),
    )
    return (Fields(pairs),)


def _described(environment: Environment) -> Fields:
    packed = environment.packed
    return Fields(
        (
            ("archive", str(environment.path)),
            ("size", f"{packed.size / 1e6:.0f} MB, {packed.files} files of {packed.unpacked / 1e6:.0f} MB"),
        )
    )
