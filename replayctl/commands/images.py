"""build-airflow-image, push-airflow-image, images: the image of worker pods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import DryRun
from replayctl.console.result import Block, Fields, Lines, Result, Status, Table
from replayctl.errors import NotFound, ReplayctlError, SettingsError, UsageProblem
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.images.build import BuildPlan
    from replayctl.images.engine import Engine
    from replayctl.images.listing import ImageRow
    from replayctl.images.reference import Reference
    from replayctl.settings.declared import Settings

_LARGEST = 5
_DOCKERFILE = "airflow-worker.Dockerfile"

_DockerDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the Dockerfile; ./docker if it has one, else the shipped folder.", show_default=False
    ),
]
_Tag = Annotated[
    str | None, typer.Argument(help="Tag to push; the tag of the current inputs by default.", show_default=False)
]
_BuildArg = Annotated[
    list[str] | None,
    typer.Option("--build-arg", help="Set an ARG of the Dockerfile, as NAME=VALUE; repeatable.", show_default=False),
]


def build_airflow_image(
    ctx: typer.Context,
    docker_dir: _DockerDir = None,
    base: Annotated[str | None, typer.Option(help="Base image; images.base by default.", show_default=False)] = None,
    build_args: _BuildArg = None,
    latest: Annotated[bool, typer.Option("--latest", help="Also tag the image as latest.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Build even when the inputs are unchanged.")] = False,
    dry_run: DryRun = False,
) -> Result:
    """Build the image of the Airflow worker.

    The build is skipped when the engine or the registry already has an image of the same inputs. The tag is your user
    name and a digest of the inputs: files, base image and arguments.

    \b
    Examples:
      replayctl build-airflow-image --dry-run
      replayctl build-airflow-image --base python:3.11-slim-bookworm
    """
    from replayctl.bundle.git import head_of
    from replayctl.images.build import build, find_built
    from replayctl.images.engine import find_engine
    from replayctl.images.reference import Reference

    app: AppContext = ctx.obj
    engine = find_engine()
    plan = _plan(app, engine, docker_dir, base, build_args)
    present = None if force else find_built(engine, plan)
    data = {
        "image": str(plan.reference),
        "inputs": plan.inputs,
        "base": {"image": str(plan.base), "digest": plan.base_digest},
        "context": {"folder": plan.context.folder, "files": len(plan.context.files), "bytes": plan.context.size},
        "left_out": plan.context.left_out,
        "present_in": present,
        # Only the engine can give an image one more name.
        "latest": latest and present != "registry",
        "dry_run": dry_run,
    }
    not_tagged = (
        f"the image is not tagged as latest, because only the registry has it; run `docker pull {plan.reference}`"
    )
    warnings = (not_tagged,) if latest and not data["latest"] else ()
    if dry_run:
        verdict = f"the {present} already has it; the build would be skipped" if present else "would be built"
        verdict += " and tagged as latest" if data["latest"] else ""
        lines = Lines((f"{plan.reference}: {verdict}",))
        return Result("build-airflow-image", data, (*_planned(plan), lines), warnings=warnings)
    if present is None:
        app.reporter.step(f"building {plan.reference} from {len(plan.context.files)} files, {plan.context.size} bytes")
        data["id"] = build(engine, plan, app.reporter, commit=head_of(plan.context.folder))
    if data["latest"]:
        engine.tag(str(plan.reference), Reference(plan.reference.registry, plan.reference.repository, "latest"))
    line = f"{plan.reference} {'is built' if present is None else f'is already in the {present}'}"
    hint = Lines((f"next: run `replayctl push-airflow-image {plan.reference.tag}`",)) if present != "registry" else None
    view: tuple[Block, ...] = (Lines((line,)), *((hint,) if hint else ()))
    status: Status = "ok" if present is None else "nothing-to-do"
    return Result("build-airflow-image", data, view, status=status, warnings=warnings)


def push_airflow_image(
    ctx: typer.Context,
    tag: _Tag = None,
    docker_dir: _DockerDir = None,
    base: Annotated[
        str | None, typer.Option(help="Base image of the build; images.base by default.", show_default=False)
    ] = None,
    build_args: _BuildArg = None,
    dry_run: DryRun = False,
) -> Result:
    """Push an image of the Airflow worker to its registry.

    Prints the digest of the image in the registry. Layers that the registry already has are not sent again.

    \b
    Examples:
      replayctl push-airflow-image
      replayctl push-airflow-image alice-0123456789ab
    """
    from replayctl.images.engine import find_engine
    from replayctl.images.push import push
    from replayctl.images.reference import parse_reference

    app: AppContext = ctx.obj
    repository = _repository(app.settings)
    if repository.registry is None:
        raise UsageProblem(
            f"images.worker must include a registry, but is {repository}",
            hint="set images.worker to REGISTRY/NAME in replayctl.yaml",
        )
    if tag and (docker_dir or base or build_args):
        raise UsageProblem(
            f"the tag {tag} cannot be combined with --docker-dir, --base and --build-arg, which select another",
            hint="leave out the tag, or those options",
        )
    engine = find_engine()
    reference = (
        parse_reference(f"{repository}:{tag}") if tag else _plan(app, engine, docker_dir, base, build_args).reference
    )
    image = engine.image(str(reference))
    if image is None:
        return _in_registry_alone(engine, reference, dry_run=dry_run)
    data: dict[str, object]
    if dry_run:
        data = {"image": str(reference), "bytes": image.size, "dry_run": True}
        return Result("push-airflow-image", data, (Lines((f"would push {reference} ({image.size} bytes)",)),))
    app.reporter.step(f"pushing {reference}")
    pushed = push(engine, reference, app.reporter)
    data = {"image": str(reference), "digest": pushed.digest, "reference": pushed.reference, "dry_run": False}
    data |= {"layers": pushed.layers, "sent_layers": pushed.sent_layers}
    lines = (f"pushed {reference}: {pushed.sent_layers} of {pushed.layers} layers were new", pushed.reference)
    return Result("push-airflow-image", data, (Lines((*lines, _next(reference))),))


def _in_registry_alone(engine: Engine, reference: Reference, *, dry_run: bool) -> Result:
    """The answer for an image that the engine does not have; NotFound when the registry has none, either."""
    digest = engine.registry_digest(reference)
    if digest is None:
        raise NotFound(
            f"image {reference} does not exist in the Docker engine", hint="run `replayctl build-airflow-image`"
        )
    pinned = f"{reference.name}@{digest}"
    data = {"image": str(reference), "digest": digest, "reference": pinned, "dry_run": dry_run}
    lines = (f"{reference.registry} already has {reference}", pinned, _next(reference))
    return Result("push-airflow-image", data, (Lines(lines),), status="nothing-to-do")


def _next(reference: Reference) -> str:
    return f"next: run `REPLAYCTL_IMAGES_PODS={reference.tag} replayctl sync-dags`"


def images(ctx: typer.Context) -> Result:
    """List the worker's images in the engine and the registry, and the number of pods that run each.

    \b
    Examples:
      replayctl images
      replayctl images --output json
    """
    from replayctl.cluster.api import find_kubernetes, parse_endpoint
    from replayctl.images.build import INPUT_LABEL
    from replayctl.images.engine import find_engine
    from replayctl.images.listing import list_images, running_images
    from replayctl.images.registry import Registry

    app: AppContext = ctx.obj
    repository = _repository(app.settings)
    warnings: list[str] = []
    engine, registry, running = None, None, {}
    try:
        engine = find_engine()
    except ReplayctlError as error:
        warnings.append(f"cannot list images of the engine: {error}")
    if repository.registry is not None:
        registry = Registry(repository.registry, engine.insecure_registries() if engine else ())
    namespace = parse_endpoint(app.settings.targets.airflow).namespace
    try:
        running = running_images(find_kubernetes(app.settings, app.environ), namespace)
    except ReplayctlError as error:
        warnings.append(f"cannot count pods: {error}")
    try:
        rows = list_images(engine, registry, repository, running, INPUT_LABEL)
    except ReplayctlError as error:
        warnings.append(f"cannot list tags of the registry: {error}")
        rows = list_images(engine, None, repository, running, INPUT_LABEL)
    cells = [
        (
            row.tag,
            _where(row),
            f"{row.size / 1e6:.0f} MB" if row.size else "-",
            str(row.pods),
            row.digest or "-",
        )
        for row in rows
    ]
    view: Block = Lines((f"no images of {repository}",))
    if rows:
        view = Table(("tag", "in", "size", "pods", "digest"), cells, title=str(repository), numeric=(2, 3))
    return Result("images", {"repository": str(repository), "images": rows}, (view,), warnings=tuple(warnings))


def _where(row: ImageRow) -> str:
    return " and ".join((["engine"] if row.in_engine else []) + (["registry"] if row.in_registry else [])) or "-"


def _repository(settings: Settings) -> Reference:
    from replayctl.images.reference import parse_reference

    reference = parse_reference(settings.images.worker)
    if reference.tag is not None:
        raise SettingsError(
            f"images.worker must not include a tag, but is {reference}", hint="remove the tag; each build gets its own"
        )
    return reference


def _plan(
    app: AppContext, engine: Engine, docker_dir: Path | None, base: str | None, build_args: list[str] | None
) -> BuildPlan:
    from replayctl.images.build import plan_build
    from replayctl.images.context import plan_context
    from replayctl.shipped import shipped_dir

    settings = app.settings
    if not settings.user:
        raise UsageProblem(
            f"user is required in profile {settings.profile!r}",
            hint="export USERNAME_ON_CLUSTER=<name>",
        )
    own = app.cwd / "docker"
    folder = docker_dir or (own if (own / _DOCKERFILE).is_file() else shipped_dir("docker"))
    return plan_build(
        engine,
        plan_context(folder, _DOCKERFILE),
        str(_repository(settings)),
        settings.user,
        base=base or settings.images.base,
        arguments=dict(_argument(text) for text in build_args or ()),
        network=settings.images.build_network,
    )


def _argument(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise UsageProblem(f"invalid build argument {text!r}", hint="write it as NAME=VALUE")
    return name, value


def _planned(plan: BuildPlan) -> tuple[Block, ...]:
    context = plan.context
    largest = sorted(context.files, key=lambda file: (-file.size, file.path))[:_LARGEST]
    fields = Fields(
        (
            ("context", f"{context.folder}: {len(context.files)} files, {context.size} bytes"),
            ("base", f"{plan.base} ({plan.base_digest})"),
            ("left out", ", ".join(context.left_out[:_LARGEST]) or "nothing"),
        )
    )
    table = Table(("largest files", "bytes"), [(file.path, str(file.size)) for file in largest], numeric=(1,))
    return (fields, table)
