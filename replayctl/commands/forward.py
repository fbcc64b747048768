"""port-forward, forwards, open: services and pages of the cluster on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from replayctl.commands.options import DryRun
from replayctl.console.result import Lines, Result, Status, Table
from replayctl.errors import OperationFailed
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.forwarding.forwarder import Listener

_NAMES = "airflow, yarn, history, jobhistory, hdfs, mlflow or NAMESPACE/KIND/NAME:PORT"
_Targets = Annotated[
    list[str] | None,
    typer.Argument(
        help=f"{_NAMES}, each optionally followed by =LOCAL_PORT.",
        show_default=False,
    ),
]
_Port = Annotated[str | None, typer.Option(help="Local port, or auto for any free one.", show_default=False)]
_Open = Annotated[bool, typer.Option("--open", help="Open the pages in a browser.")]
_Links = Annotated[
    bool | None,
    typer.Option(
        "--links/--no-links",
        help="Rewrite links to hosts of the cluster so that they open through forwards; on by default for yarn, "
        "history, jobhistory and hdfs.",
        show_default=False,
    ),
]


def port_forward(
    ctx: typer.Context,
    targets: _Targets = None,
    every: Annotated[bool, typer.Option("--all", help="Forward every target of the profile.")] = False,
    port: _Port = None,
    open_pages: _Open = False,
    links: _Links = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Run in the background; see `replayctl forwards list`.")
    ] = False,
    dry_run: DryRun = False,
) -> Result:
    """Forward local ports to services of the cluster.

    Forwards survive restarts of their pods, and run until Ctrl-C.

    \b
    Examples:
      replayctl port-forward airflow yarn
      replayctl port-forward airflow=9090 --detach
    """
    from replayctl import k8s

    app: AppContext = ctx.obj
    listeners = k8s.plan_forwards(targets or (), app.settings, every=every, port=port, links=links)
    if dry_run:
        return _planned("port-forward", listeners)
    if not detach:
        _serve(app, "port-forward", listeners, open_pages=open_pages)
    background = k8s.forward_in_background(targets or (), app.settings, every=every, port=port, links=links)
    if open_pages:
        _open(app, background.addresses.values())
    answer = {"id": background.id, "pid": background.pid, "forwards": dict(background.addresses)}
    table = Table(("name", "address"), list(background.addresses.items()))
    stop = Lines((f"next: run `replayctl forwards stop {background.id}` to stop it",))
    return Result("port-forward", answer, (table, stop))


def airflow_port_forward(
    ctx: typer.Context, port: _Port = None, open_pages: _Open = False, dry_run: DryRun = False
) -> Result:
    """Forward a local port to Airflow.

    The same as `port-forward airflow`.

    \b
    Examples:
      replayctl airflow-port-forward --open
    """
    return port_forward(ctx, ["airflow"], port=port, open_pages=open_pages, dry_run=dry_run)


def open_page(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(help=f"{_NAMES}; for MLflow also a name in mlflow.servers.")],
    port: _Port = None,
    by_forward: Annotated[
        bool,
        typer.Option(
            "--forward", help="Use a forward even if the page has a direct link, so that links in the page work."
        ),
    ] = False,
    dry_run: DryRun = False,
) -> Result:
    """Open a page of the cluster in a browser.

    Uses the page's direct link if it has one, else a forward that runs until Ctrl-C.

    \b
    Examples:
      replayctl open airflow
      replayctl open yarn --forward
    """
    from replayctl import k8s

    app: AppContext = ctx.obj
    page = k8s.plan_page(target, app.settings, port=port, by_forward=by_forward)
    if not isinstance(page, str):
        if dry_run:
            return _planned("open", page)
        _serve(app, "open", page, open_pages=True)
    if not dry_run and not _has_opened(page):
        raise OperationFailed("cannot start a browser", hint=f"open {page}")
    line = Lines((f"{'would open' if dry_run else 'opened'} {page}",))
    return Result("open", {"address": page, "dry_run": dry_run}, (line,))


def list_forwards(ctx: typer.Context) -> Result:
    """List the forwards that run in the background.

    \b
    Examples:
      replayctl forwards list
    """
    from replayctl.forwarding import background

    app: AppContext = ctx.obj
    running = background.running(app.settings)
    rows = [
        (entry.id, name, address, entry.profile, entry.pid)
        for entry in running
        for name, address in entry.addresses.items()
    ]
    data = [
        {"id": entry.id, "pid": entry.pid, "profile": entry.profile, "forwards": dict(entry.addresses)}
        for entry in running
    ]
    view = Table(("id", "name", "address", "profile", "process"), rows) if rows else Lines(("no forwards are running",))
    return Result("forwards list", {"running": data}, (view,))


def stop_forwards(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(help="IDs from `replayctl forwards list`.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Stop all forwards.")] = False,
    dry_run: DryRun = False,
) -> Result:
    """Stop forwards that run in the background.

    \b
    Examples:
      replayctl forwards stop --all --dry-run
      replayctl forwards stop --all
    """
    from replayctl.forwarding import background

    app: AppContext = ctx.obj
    stopped = [entry.id for entry in background.stop(ids or (), app.settings, every=every, dry_run=dry_run)]
    verb = "would stop" if dry_run else "stopped"
    status: Status = "ok" if stopped else "nothing-to-do"
    line = f"{verb} {', '.join(stopped)}" if stopped else "no forwards are running"
    return Result("forwards stop", {"stopped": stopped, "dry_run": dry_run}, (Lines((line,)),), status=status)


def _planned(command: str, listeners: Sequence[Listener]) -> Result:
    """The result of a dry run: the forwards that would be opened."""
    data = {
        listener.name: {"target": str(listener.target), "port": listener.port or "auto", "links": listener.links}
        for listener in listeners
    }
    rows = [
        (
            listener.name,
            str(listener.target),
            str(listener.port or "any free port"),
            "rewritten" if listener.links else "unchanged",
        )
        for listener in listeners
    ]
    table = Table(("name", "target", "port", "links in pages"), rows)
    return Result(command, {"forwards": data, "dry_run": True}, (table,))


def _serve(app: AppContext, command: str, listeners: Sequence[Listener], *, open_pages: bool) -> NoReturn:
    """Forwards until a signal ends the program."""
    from replayctl import k8s

    def tell(opened: list[Listener]) -> None:
        addresses = {listener.name: listener.url for listener in opened}
        rows = [(listener.name, listener.url, str(listener.target)) for listener in opened]
        app.announce(Result(command, {"forwards": addresses}, (Table(("name", "address", "target"), rows),)))
        if open_pages:
            _open(app, addresses.values())

    k8s.forward(listeners, app.settings, app.environ, app.reporter, tell)


def _open(app: AppContext, addresses: Iterable[str]) -> None:
    """Opens the pages of forwards; without a browser, the forwards continue."""
    for address in addresses:
        if not _has_opened(address):
            app.reporter.warn(f"cannot start a browser; open {address}")


def _has_opened(address: str) -> bool:
    import webbrowser

    try:
        answer = os.dup(1)
    except OSError:
        # Started without a stdout.
        return webbrowser.open(address)
    # A browser in the terminal writes to stdout, which is for the answer alone.
    os.dup2(2, 1)
    try:
        return webbrowser.open(address)
    finally:
        os.dup2(answer, 1)
        os.close(answer)
