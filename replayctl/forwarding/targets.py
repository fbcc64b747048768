"""Targets of forwards: the profile's named services, and NAMESPACE/KIND/NAME:PORT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from replayctl.cluster.api import parse_endpoint
from replayctl.errors import UsageProblem
from replayctl.forwarding.forwarder import Listener
from replayctl.settings.declared import Settings, TargetSettings

AUTO = "auto"
# Their pages have many links to host names of the cluster.
_WITH_LINKS = frozenset({"yarn", "history", "jobhistory", "hdfs"})


def target_names(settings: Settings) -> dict[str, str]:
    """The named services of the profile: name → target."""
    targets = {field.name: getattr(settings.targets, field.name) for field in fields(TargetSettings)}
    # Targets without a port are pods to run programs in.
    return {name: target for name, target in targets.items() if target is not None and ":" in target}


def namespaces(settings: Settings) -> list[str]:
    """The namespaces of the profile's services, to which their pages link."""
    targets = (getattr(settings.targets, field.name) for field in fields(TargetSettings))
    return list(dict.fromkeys(parse_endpoint(target).namespace for target in targets if target is not None))


def direct_link(name: str, settings: Settings) -> str | None:
    """The address at which a page can be opened without a forward, if the profile has one.

    A server of MLflow, such as a DAG may choose by its name, is its own page.
    """
    link = getattr(settings.links, name, None)
    if isinstance(link, str):
        return link
    return settings.mlflow.url if name == "mlflow" else settings.mlflow.servers.get(name)


def listeners(
    words: Sequence[str], settings: Settings, *, every: bool, port: str | None, links: bool | None
) -> list[Listener]:
    """Parses what to forward: `NAME` or `NAMESPACE/KIND/NAME:PORT`, each optionally followed by `=LOCAL_PORT`.

    Else the local port is `port`, which may be `auto`, or the target's own. `links` turns the rewriting of links on or
    off; None decides by the target. Raises UsageProblem for anything else.
    """
    known = target_names(settings)
    names = list(words) if words or not every else list(known)
    if not names:
        raise UsageProblem("no target is selected", hint=f"pass one or more of {', '.join(known)}, or --all")
    if port not in (None, AUTO) and len(names) > 1:
        raise UsageProblem("--port requires a single target", hint="pass NAME=PORT for each target, or --port auto")
    return [_listener(word, known, port, links) for word in names]


def _listener(word: str, known: Mapping[str, str], port: str | None, links: bool | None) -> Listener:
    name, _, own = word.partition("=")
    if name not in known and "/" not in name:
        raise UsageProblem(
            f"target {name!r} does not exist", hint=f"use one of: {', '.join(known)}; or NAMESPACE/KIND/NAME:PORT"
        )
    target = parse_endpoint(known.get(name, name))
    if target.port is None:
        raise UsageProblem(f"{target} has no port", hint=f"pass {target}:PORT")
    with_links = name in _WITH_LINKS if links is None else links
    local = own or port or (target.port if target.port.isdigit() else AUTO)
    if local == AUTO:
        return Listener(name, target, 0, with_links)
    if not local.isdigit() or not 0 < int(local) < 65536:
        raise UsageProblem(f"{local!r} is not a port", hint=f"pass a number from 1 to 65535, or {AUTO}")
    return Listener(name, target, int(local), with_links)
