"""What can be forwarded: the services that the profile knows by name, and others as people write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from replayctl.cluster.api import parse_endpoint
from replayctl.errors import UsageProblem
from replayctl.forwarding.forwarder import Listener
from replayctl.settings.declared import Settings, TargetSettings

AUTO = "auto"
# Pages that link to host names of the cluster all the time.
_WITH_LINKS = frozenset({"yarn", "history", "jobhistory", "hdfs"})


def target_names(settings: Settings) -> dict[str, str]:
    """The services that the profile knows by name: name → target."""
    targets = {field.name: getattr(settings.targets, field.name) for field in fields(TargetSettings)}
    # What names no port is there to run programs in.
    return {name: target for name, target in targets.items() if target is not None and ":" in target}


def namespaces(settings: Settings) -> list[str]:
    """The namespaces of the profile's services: those that their pages link to."""
    targets = (getattr(settings.targets, field.name) for field in fields(TargetSettings))
    return list(dict.fromkeys(parse_endpoint(target).namespace for target in targets if target is not None))


def direct_link(name: str, settings: Settings) -> str | None:
    """The address at which a page can be opened without a forward, where the profile names one."""
    link = getattr(settings.links, name, None)
    return link if isinstance(link, str) else None


def listeners(
    words: Sequence[str], settings: Settings, *, every: bool, port: str | None, links: bool | None
) -> list[Listener]:
    """What to forward: `NAME`, `NAMESPACE/KIND/NAME:PORT`, each with `=LOCAL_PORT` where another one is wanted.

    A local port is the target's own unless `port` says another one or `auto`. `links` says of all whether links of
    their pages lead through forwards; None leaves it to what the pages are. Raises UsageProblem for anything else.
    """
    known = target_names(settings)
    names = list(words) if words or not every else list(known)
    if not names:
        raise UsageProblem("no target is named", hint=f"name one or more of {', '.join(known)}, or pass --all")
    if port not in (None, AUTO) and len(names) > 1:
        raise UsageProblem("one --port for several targets", hint="write NAME=PORT for each, or --port auto")
    return [_listener(word, known, port, links) for word in names]


def _listener(word: str, known: Mapping[str, str], port: str | None, links: bool | None) -> Listener:
    name, _, own = word.partition("=")
    if name not in known and "/" not in name:
        raise UsageProblem(
            f"there is no target {name!r}", hint=f"known: {', '.join(known)}; or write NAMESPACE/KIND/NAME:PORT"
        )
    target = parse_endpoint(known.get(name, name))
    if target.port is None:
        raise UsageProblem(f"{target} has no port", hint=f"write {target}:PORT")
    with_links = name in _WITH_LINKS if links is None else links
    local = own or port or (target.port if target.port.isdigit() else AUTO)
    if local == AUTO:
        return Listener(name, target, 0, with_links)
    if not local.isdigit() or not 0 < int(local) < 65536:
        raise UsageProblem(f"{local!r} is not a port", hint=f"write a number from 1 to 65535, or {AUTO}")
    return Listener(name, target, int(local), with_links)
