"""sync-dags: checks the folder, takes the lock, plans against the target, publishes, and waits for Airflow."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from replayctl.bundle import validation
from replayctl.bundle.git import Commit, commit_of
from replayctl.bundle.release import Release, build_release
from replayctl.bundle.specs import Dag, dags_text
from replayctl.bundle.stubs import stubs_of
from replayctl.errors import NotReady, Unreachable, UsageProblem
from replayctl.images.digests import pin
from replayctl.images.reference import parse_reference
from replayctl.publishing.artifact_view import open_loader
from replayctl.publishing.deployment import deployment_json
from replayctl.publishing.history import published_source
from replayctl.publishing.plan import Plan, PlannedAction, check_dag_ids, check_modules, make_plan
from replayctl.publishing.source import Source, source_of
from replayctl.publishing.verify import DagServer, Watcher, check_owners, expected_of
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders
from replayctl.settings.load import LOCAL_PROFILE
from replayctl.settings.namespace import Namespace
from replayctl.settings.workspace import Workspace
from replayctl.shipped import shipped_dir
from replayctl.storage import lock
from replayctl.storage.audit import audit_line
from replayctl.storage.target import Publication, Target, open_target

if TYPE_CHECKING:
    from replayctl.publishing.package_references import Packages


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How to deploy.

    `force` overwrites hand edits on the target, `replace` removes DAG modules that came from another folder,
    `break_lock` takes the lock from its holder.
    """

    dry_run: bool = False
    validate: bool = True
    force: bool = False
    replace: bool = False
    break_lock: bool = False


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that has not ended."""

    dag_id: str
    run_id: str
    state: str


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did, or with `dry_run` would do. Durations are in seconds.

    `seen_after_s` is how long Airflow took to show the release; None if it was not asked. `runs` are the live runs,
    which continue with the release they started with. `dags` are those that are known without Airflow; it alone knows
    those of `free_modules`. `plan` is set by a dry run: what each step would do. `images` has
    the digests of its pods' images by the names that DAGs have for them; the profile's image has the empty name.
    """

    release: str
    previous: str | None
    user: str | None
    target: str
    dry_run: bool
    actions: tuple[PlannedAction, ...]
    dags: tuple[str, ...]
    free_modules: tuple[str, ...]
    findings: tuple[validation.Finding, ...]
    loaded_s: float
    published_s: float | None
    seen_after_s: float | None
    runs: tuple[LiveRun, ...] = ()
    plan: tuple[Dag, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether anything was written, or would be."""
        return any(action.action not in ("same", "foreign") for action in self.actions)


@dataclass(frozen=True, slots=True)
class _Checked:
    release: Release
    dags: tuple[Dag, ...]
    findings: tuple[validation.Finding, ...]
    loaded_s: float
    images: Mapping[str, str]


def find_dags_dir(option: Path | None, cwd: Path) -> Path | None:
    """The folder to deploy: the option's value, else `dags/` in the current folder; None if neither exists."""
    own = cwd / "dags"
    return option or (own if own.is_dir() else None)


def _refuse_loss(plan: Plan, source: Source, target: Target, options: SyncOptions) -> None:
    """Raises UsageProblem if DAG modules that came from another folder would be removed, unless options say so."""
    going = plan.of("delete")
    if options.replace or not going:
        return
    before = published_source(target.history())
    if before is None or before.is_same(source):
        return
    raise UsageProblem(
        f"{source.folder} would replace DAGs of another project: {', '.join(going)} came from {before}",
        hint="pass --dags-dir to deploy that folder, copy its modules into yours to keep both, "
        "or pass --replace to remove them",
    )


def sync(
    dags_dir: Path | None,
    workspace: Workspace,
    *,
    find_server: Callable[[], DagServer] | None,
    options: SyncOptions | None = None,
) -> SyncReport:
    """Deploys the folder (None: the shipped DAGs) to the namespace, and waits until the server shows it.

    `find_server` is called once the folder has passed its checks and before anything is written; without it, no server
    is asked. Raises UsageProblem for a folder that cannot be deployed, Conflict for other users' files and hand edits,
    and what `Watcher.wait` raises. After an import error, the previous release is published again.
    """
    options = options or SyncOptions()
    namespace, reporter = workspace.namespace, workspace.reporter
    source, dags_dir = source_of(dags_dir), dags_dir or shipped_dir("dags")
    checked = _check(dags_dir, workspace, options)
    if options.dry_run:
        return _dry_run(checked, workspace, find_server, options, source)
    watcher = Watcher(find_server(), workspace.settings, reporter) if find_server else None
    commit = commit_of(dags_dir)
    started = time.monotonic()
    with open_target(workspace) as target:
        names = list(stubs_of(checked.release.modules, namespace.suffix, namespace.directory))
        with lock.held(
            target,
            reporter,
            what=f"sync-dags of {checked.release.name}",
            timeout_s=workspace.settings.deploy.lock_timeout_s,
            break_lock=options.break_lock,
            names=names,
            release=checked.release,
        ) as (token, state):
            plan = make_plan(checked.release, checked.dags, namespace, state, force=options.force)
            _refuse_loss(plan, source, target, options)
            if watcher:
                watcher.look()
                check_owners(plan, watcher.server)
            if plan.changes:
                reporter.step(f"publishing {plan.release.name} to {target.dags} on {target.shell.name}")
                target.publish(token, _publication(plan, commit, source))
            published_s = time.monotonic() - started
            seen_after_s = None
            if watcher:
                seen_after_s = watcher.wait_or_give_back(expected_of(plan), target, token, _way_back(plan))
    report = _report(plan, checked, namespace, target, options, published_s, seen_after_s)
    return replace(report, runs=_live_runs(watcher.server, report.dags)) if watcher else report


def _live_runs(server: DagServer, dag_ids: Sequence[str]) -> tuple[LiveRun, ...]:
    return tuple(LiveRun(run.dag_id, run.run_id, run.state) for run in server.live_runs(dag_ids))


def _dry_run(
    checked: _Checked,
    workspace: Workspace,
    find_server: Callable[[], DagServer] | None,
    options: SyncOptions,
    source: Source,
) -> SyncReport:
    namespace = workspace.namespace
    with open_target(workspace) as target:
        names = list(stubs_of(checked.release.modules, namespace.suffix, namespace.directory))
        state = target.inspect(names, release=checked.release)
        plan = make_plan(checked.release, checked.dags, namespace, state, force=options.force)
        _refuse_loss(plan, source, target, options)
        report = _report(plan, checked, namespace, target, options)
        try:
            if find_server:
                server = find_server()
                check_owners(plan, server)
                report = replace(report, runs=_live_runs(server, report.dags))
        except (NotReady, Unreachable) as error:
            workspace.reporter.warn(f"could not check whether other users have these dag_ids: {error}")
        return replace(report, plan=checked.dags)


def _check(dags_dir: Path, workspace: Workspace, options: SyncOptions) -> _Checked:
    settings, namespace, reporter = workspace.settings, workspace.namespace, workspace.reporter
    folders = find_folders(settings)
    release = build_release(dags_dir, deployment_json(settings, folders, namespace.user))
    plural = "s" if len(release.modules) != 1 else ""
    reporter.step(f"checking {dags_dir}: {len(release.files)} files, {len(release.modules)} DAG module{plural}")
    if release.left_out:
        more = f" and {len(release.left_out) - 5} more" if len(release.left_out) > 5 else ""
        reporter.warn(f"skipping files that are neither code nor small data: {', '.join(release.left_out[:5])}{more}")
    check_modules(release, namespace)
    findings: tuple[validation.Finding, ...] = ()
    if options.validate:
        findings = validation.check(release, dags_dir, artifacts_root=str(folders.artifacts_in_pods))
        validation.refuse(findings)
        for finding in findings:
            reporter.warn(str(finding))
    else:
        reporter.warn("validation is off: faults in the code will show up on the server, for all users")
    with open_loader(workspace, look=options.dry_run) as load:
        started = time.monotonic()
        dags = load(release)
        loaded_s = time.monotonic() - started
        unknown = (
            f"; {dags_text(0, len(release.free_modules))} are loaded by Airflow alone" if release.free_modules else ""
        )
        reporter.step(f"loaded {dags_text(len(dags), 0)} in {loaded_s:.2f} s{unknown}")
        check_dag_ids(dags, namespace)
        images = _image_digests(settings, dags)
        packages = _packages(workspace, dags)
        if images or packages:
            text = deployment_json(settings, folders, namespace.user, images=images, packages=packages)
            release = build_release(dags_dir, text)
        if packages and packages.named:
            # Their contents belong to the steps' identities.
            dags = load(release)
    reporter.step(f"release {release.name}{''.join(f', in pods of {image}' for image in set(images.values()))}")
    return _Checked(release, dags, findings, loaded_s, images)


def _packages(workspace: Workspace, dags: Sequence[Dag]) -> Packages | None:
    if not any(step.packages or step.on_yarn for dag in dags for step in dag.steps):
        return None
    # Imported here because most DAGs need none: with HDFS, forwards and wheels this is half of what sync-dags imports.
    from replayctl.publishing.package_references import find_packages

    return find_packages(workspace, dags)


def _image_digests(settings: Settings, dags: Sequence[Dag]) -> dict[str, str]:
    """Digests of the pods' images by the names that DAGs have for them; the profile's image has the empty name."""
    if settings.profile == LOCAL_PROFILE:
        return {}
    names = {"": settings.images.pods} | {dag.image: dag.image for dag in dags if dag.image}
    worker = parse_reference(settings.images.worker)
    return {name: pin(image, worker) for name, image in names.items() if image}


def _publication(plan: Plan, commit: Commit | None, source: Source) -> Publication:
    git = asdict(commit) if commit else None
    dags: dict[str, list[str] | None] = {
        module: [dag.dag_id for dag in plan.dags if dag.module == module] for module in plan.release.modules
    }
    # Only the server knows which DAGs they define.
    dags |= dict.fromkeys(plan.release.free_modules)
    at = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
    metadata = {
        "release": plan.release.name,
        "at": at,
        "user": source.user,
        "host": source.host,
        "folder": source.folder,
        "git": git,
        "dags": dags,
    }
    upload = plan.release if plan.of("upload", "repair") else None
    return Publication(
        release=plan.release.name,
        audit=audit_line("publish", release=plan.release.name, previous=plan.previous, folder=source.folder, git=git),
        upload=upload,
        metadata=json.dumps(metadata, sort_keys=True) + "\n" if upload else "",
        stubs={name: plan.stubs[name] for name in plan.of("create", "update")},
        removed_stubs=plan.of("delete"),
    )


def _way_back(plan: Plan) -> Publication | None:
    """Restores the previous pointer and stubs; after a first deploy, removes both. None if nothing was published."""
    if not plan.changes:
        return None
    audit = audit_line("withdraw", release=plan.previous, previous=plan.release.name, reason="import error")
    return Publication(plan.previous, audit, removed_stubs=plan.of("create"), stubs=plan.replaced)


def _report(
    plan: Plan,
    checked: _Checked,
    namespace: Namespace,
    target: Target,
    options: SyncOptions,
    published_s: float | None = None,
    seen_after_s: float | None = None,
) -> SyncReport:
    return SyncReport(
        release=plan.release.name,
        previous=plan.previous,
        user=namespace.user,
        target=target.name,
        dry_run=options.dry_run,
        actions=plan.actions,
        dags=tuple(dag.dag_id for dag in plan.dags),
        free_modules=tuple(plan.release.free_modules),
        findings=checked.findings,
        loaded_s=checked.loaded_s,
        published_s=published_s,
        seen_after_s=seen_after_s,
        images=checked.images,
    )
