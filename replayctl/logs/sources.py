"""Where the logs of an application are, and their bytes as they come.

Three ways lead to them, the fastest first: the NodeManager for containers that run, the log server for what YARN has
gathered (both over HTTP through a forward), and `yarn logs` in the ResourceManager's pod, which always works. What does
not answer is remembered, so that a command waits for it once.
https://hadoop.apache.org/docs/r3.4.1/hadoop-yarn/hadoop-yarn-site/NodeManagerRest.html
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from replayctl.clients.resource_manager import (
    Application,
    HttpService,
    ResourceManager,
    container_id,
    forgotten,
    log_file,
)
from replayctl.cluster.api import Kubernetes, container_of, parse_endpoint
from replayctl.cluster.streams import Executed, execute
from replayctl.console.events import Reporter
from replayctl.errors import (
    AuthFailed,
    NotFound,
    NotReady,
    OperationFailed,
    RemoteCommandFailed,
    ReplayctlError,
    TimedOut,
    Unreachable,
)
from replayctl.forwarding.addresses import AddressBook
from replayctl.forwarding.tunnel import open_tunnel
from replayctl.logs.program import LogProgram
from replayctl.logs.stream import LogFile, Piece, read_pieces
from replayctl.settings.declared import Settings

_CHUNK = 1 << 18
_STDERR_KEPT = 20_000
_POLL_S = 1.0
_NODE_MANAGER_PORT = 8042
# It is asked before a way that always works.
_LOG_SERVER_TIMEOUT_S = 15.0
# A NodeManager that did not answer may be back later; an application is followed for hours.
_SILENT_NODE_FOR_S = 30.0
_TROUBLE = (Unreachable, OperationFailed, AuthFailed, NotFound)
# After these YARN gathers no more.
_SETTLED = ("SUCCEEDED", "DISABLED", "FAILED", "TIME_OUT")
_MASTER = re.compile(r"container_(?:e(?P<epoch>[0-9]+)_)?[0-9]+_[0-9]+_(?P<attempt>[0-9]+)_0*1")
_ENDED = re.compile(rb" (?:Final app status:|Unregistering ApplicationMaster with) (SUCCEEDED|FAILED|KILLED)\b")
_END_OF_LOG = 1 << 16
# A program that runs for seconds is half done before the JVM's best compiler has begun. The pod's own options stay.
_QUICK_START = "-XX:+IgnoreUnrecognizedVMOptions -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
_WITH_JAVA_OPTIONS = 'JAVA_TOOL_OPTIONS="${JAVA_TOOL_OPTIONS:-} $0" exec "$@"'


class Yarn:
    """YARN of a profile: its ResourceManager, and logs by whatever way is open. Use it as a context manager."""

    def __init__(self, cluster: Kubernetes, settings: Settings, reporter: Reporter) -> None:
        self._cluster = cluster
        self._yarn = parse_endpoint(settings.targets.yarn)
        self._history = parse_endpoint(settings.targets.jobhistory) if settings.targets.jobhistory else None
        self._pod = parse_endpoint(settings.targets.yarn_pod)
        self._reporter = reporter
        self._open = contextlib.ExitStack()
        self._manager: ResourceManager | None = None
        self._log_server: HttpService | None = None
        self._nodes: dict[str, HttpService] = {}
        self._silent_nodes: dict[str, float] = {}
        # Of forgotten applications: what YARN has gathered of them, which costs as much to ask for as all the rest.
        self._listings: dict[str, list[LogFile]] = {}
        self._program = self._open.enter_context(LogProgram(functools.partial(self.execute, java_options=_QUICK_START)))
        self._addresses = AddressBook(cluster, (self._yarn.namespace,), reporter)

    def __enter__(self) -> Yarn:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def manager(self) -> ResourceManager:
        """The ResourceManager through a forward, opened when first asked for."""
        if self._manager is None:
            url = self._open.enter_context(open_tunnel(self._cluster, self._yarn, self._reporter))
            self._manager = ResourceManager(url)
        return self._manager

    def application(self, name: str) -> Application:
        """An application by its id; one whose logs are still there also when the ResourceManager has forgotten it.

        Raises what asking the ResourceManager raises when there are no logs, either.
        """
        try:
            return self.manager.application(name)
        except (NotFound, NotReady, TimedOut, Unreachable) as error:
            self._reporter.note(f"{error}: looking for logs of {name}")
            app = forgotten(name)
            try:
                # The program asks the ResourceManager, too, and runs in its pod.
                files = self._gathered_files(app, thoroughly=isinstance(error, NotFound))
            except ReplayctlError as trouble:
                self._reporter.note(str(trouble))
                files = []
            if not files:
                if not isinstance(error, NotFound):
                    raise
                hint = "applications that it knows: replayctl yarn-apps"
                raise NotFound(f"{error}, and there are no logs of it", hint=hint, details=error.details) from error
            self._reporter.step(f"{error}; its logs are still there")
            self._listings[name] = files
            return self._from_logs(app, files)

    def _from_logs(self, app: Application, files: Sequence[LogFile]) -> Application:
        """What can be told of an application from its logs alone: its driver, and its own last word on its end."""
        masters = {each.container: match for each in files if (match := _MASTER.fullmatch(each.container))}
        driver = max(
            masters, key=lambda name: (int(masters[name]["epoch"] or 0), int(masters[name]["attempt"])), default=None
        )
        app = replace(app, am_container=driver)
        stderr = next((each for each in files if each.container == driver and each.name == "stderr"), None)
        service = self._gatherer()
        if stderr is None or service is None:
            return app
        try:
            pieces = list(self._pieces_over_http(service, stderr, _END_OF_LOG))
        except _TROUBLE as error:
            self._note(service, error, None)
            return app
        ends = _ENDED.findall(b"".join(piece.data for piece in pieces))
        return replace(app, final_status=ends[-1].decode()) if ends else app

    def execute(
        self,
        argv: list[str],
        on_stdout: Callable[[bytes], None],
        timeout_s: float | None = None,
        *,
        java_options: str = "",
    ) -> None:
        """Runs a program in the ResourceManager's pod; RemoteCommandFailed with its last words when it fails."""
        with_options = ["sh", "-c", _WITH_JAVA_OPTIONS, java_options] if java_options else []
        pod = self._cluster.ready_pod(self._pod)
        said = bytearray()

        def listen(data: bytes) -> None:
            said.extend(data)
            del said[:-_STDERR_KEPT]

        done: Executed = execute(
            self._cluster,
            pod,
            container_of(pod, None),
            [*with_options, *argv],
            on_stdout=on_stdout,
            on_stderr=listen,
            timeout_s=timeout_s,
        )
        if done.exit_code:
            lines = said.decode("utf-8", "replace").strip().splitlines()
            words = [line for line in lines if not line.startswith("Picked up JAVA_TOOL_OPTIONS")][-20:]
            raise RemoteCommandFailed(
                f"{' '.join(argv[:2])} in pod {pod.name} ended with status {done.exit_code}", details="\n".join(words)
            )

    def files(self, app: Application, *, wait_s: float, driver_only: bool = False) -> list[LogFile]:
        """All log files of an application, driver first. Waits until YARN has gathered those of a finished one.

        With `driver_only` those of others may be missing: then one node is asked, and not each of the cluster. Raises
        TimedOut when YARN has not gathered them after `wait_s`, NotFound when there are none, NotReady when it has not
        begun, which says what it waits for.
        """
        deadline = time.monotonic() + wait_s
        while True:
            settled = app.is_final and (app.aggregation in _SETTLED or app.am_container is None)
            files = self._files(app, driver_only, thoroughly=settled)
            if files:
                first = app.am_container or ""
                return sorted(files, key=lambda each: (each.container != first, each.container, each.name))
            if settled:
                why = "has no logs" if app.am_container else "ended before it was given a container: it has no logs"
                raise NotFound(f"{app.id} {why}", details=app.diagnostics or None)
            if not app.is_final:
                raise NotReady(_no_logs_yet(app), hint=f"see it begin: replayctl yarn-logs {app.id} --follow")
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"YARN has not gathered the logs of {app.id} after {wait_s:.0f} s (state {app.state}, "
                    f"gathering {app.aggregation or 'unknown'})",
                    hint="again later, or wait longer: --wait-for SECONDS",
                )
            self._reporter.status(
                f"waiting until YARN has gathered the logs of {app.id}: {app.aggregation or 'begins'}"
            )
            time.sleep(_POLL_S)
            if not app.is_forgotten:
                app = self.manager.application(app.id)

    def _files(self, app: Application, driver_only: bool, *, thoroughly: bool) -> list[LogFile]:
        try:
            if app.is_forgotten and app.id in self._listings:
                return self._listings[app.id]
            if app.is_final:
                return self._gathered_files(app, thoroughly=thoroughly)
            return self._running_files(app, driver_only)
        except NotFound:
            return []

    def expect(
        self, app: Application, files: Sequence[LogFile], *, again: Sequence[LogFile] = (), tail: int | None = None
    ) -> None:
        """Says which files will be read, which of them `again`, and how much of each.

        So one start of `yarn logs` does, where nothing faster is there.
        """
        if app.is_final:
            self._program.expect(app, files, again, tail)

    def pieces(self, app: Application, file: LogFile, *, tail: int | None = None) -> Iterator[Piece]:
        """One file's bytes as they come; with `tail` at most so many of its last ones. Memory stays flat.

        Raises OperationFailed that says how much came when the log is cut off in the middle.
        """
        service = self._http_of(file)
        if service is not None:
            begun = False
            try:
                for piece in self._pieces_over_http(service, file, tail):
                    begun = True
                    yield piece
                return
            except _TROUBLE as error:
                if begun:
                    raise
                self._note(service, error, file.node if file.running else None)
        yield from self._program.pieces(app, file, tail)

    def _pieces_over_http(self, service: HttpService, file: LogFile, tail: int | None) -> Iterator[Piece]:
        base = "/ws/v1/node/containerlogs" if file.running else "/ws/v1/history/containerlogs"
        path = f"{base}/{container_id(file.container)}/{log_file(file.name)}"
        return read_pieces(self._stream(service, path, tail), tail=tail)

    def _http_of(self, file: LogFile) -> HttpService | None:
        return self._node(file.node) if file.running else self._gatherer()

    def _stream(self, service: HttpService, path: str, tail: int | None) -> Iterator[bytes]:
        import urllib3

        parameters = {"size": str(-tail)} if tail else None
        answer = service.request("GET", path, parameters=parameters, accept="text/plain", stream=True)
        try:
            if answer.status != 200:
                raise service.refusal(answer.status, answer.read(), path.rpartition("/")[2])
            try:
                yield from answer.stream(_CHUNK)
            except urllib3.exceptions.HTTPError:
                # Whoever counts the bytes says how many are missing.
                return
        finally:
            answer.close()

    def _running_files(self, app: Application, driver_only: bool) -> list[LogFile]:
        if app.is_waiting and app.am_container is None:
            return []
        found: list[LogFile] = []
        answered = False
        for address in self._nodes_of(app, driver_only):
            service = self._node(address)
            if service is None:
                continue
            try:
                found += self._files_on(service, address, app)
                answered = True
            except _TROUBLE as error:
                # YARN lists a node that is gone for some minutes; others may have what is looked for.
                self._note(service, error, address)
        if answered:
            return found
        try:
            return self._program.files(app)
        except NotFound as error:
            raise Unreachable(f"no NodeManager with logs of {app.id} can be reached", details=error.details) from error

    def _nodes_of(self, app: Application, driver_only: bool) -> list[str]:
        if driver_only and app.am_address:
            return [app.am_address]
        nodes = self.manager.json("/ws/v1/cluster/nodes", "the nodes", {"states": "RUNNING"})
        return [str(node.get("nodeHTTPAddress") or "") for node in (nodes.get("nodes") or {}).get("node") or []]

    def _files_on(self, service: HttpService, address: str, app: Application) -> list[LogFile]:
        containers = service.json("/ws/v1/node/containers", f"the containers of {address}")
        return [
            file
            for each in (containers.get("containers") or {}).get("container") or []
            if _application_of(str(each["id"])) == app.id
            for file in self._listed(service, f"/ws/v1/node/containers/{each['id']}/logs", address, running=True)
        ]

    def _gathered_files(self, app: Application, *, thoroughly: bool) -> list[LogFile]:
        """What YARN has gathered; with `thoroughly` the program is asked also when the log server has none."""
        service = self._gatherer()
        if service is not None:
            try:
                return self._listed(service, f"/ws/v1/history/aggregatedlogs?appid={app.id}", "", running=False)
            except _TROUBLE as error:
                if isinstance(error, NotFound) and not thoroughly:
                    raise
                self._note(service, error, None)
        self._reporter.status("asking `yarn logs` in the ResourceManager's pod, which takes some seconds")
        return self._program.files(app)

    def _note(self, service: HttpService, error: ReplayctlError, node: str | None) -> None:
        """Tells of trouble with a NodeManager, or the log server, and remembers one that does not answer."""
        self._reporter.note(f"{error}; asking `yarn logs` instead")
        if not isinstance(error, (Unreachable, AuthFailed)):
            return
        if node is not None:
            self._silent_nodes[node] = time.monotonic()
        elif service is self._log_server:
            self._log_server = self._history = None

    def _listed(self, service: HttpService, path: str, node: str, *, running: bool) -> list[LogFile]:
        answer = service.json(path, "the log files")
        infos = answer.get("containerLogsInfo") or []
        return [
            LogFile(
                str(info["containerId"]),
                node or str(info.get("nodeId") or ""),
                name,
                int(str(each["fileSize"])),
                running,
            )
            for info in (infos if isinstance(infos, list) else [infos])
            for each in _as_list(info.get("containerLogInfo"))
            if (name := str(each["fileName"]))
        ]

    def _gatherer(self) -> HttpService | None:
        if self._log_server is None and self._history is not None:
            try:
                # A forward would wait for a pod to come; the program is quicker.
                self._cluster.ready_pod(self._history)
                url = self._open.enter_context(open_tunnel(self._cluster, self._history, self._reporter))
            except (NotFound, NotReady, AuthFailed, TimedOut) as error:
                self._reporter.note(f"no log server: {error}")
                self._history = None
                return None
            self._log_server = HttpService("the log server", url, timeout_s=_LOG_SERVER_TIMEOUT_S)
        return self._log_server

    def _node(self, address: str) -> HttpService | None:
        """The NodeManager at an address of YARN's; None when its pod cannot be found or reached."""
        if time.monotonic() - self._silent_nodes.get(address, float("-inf")) < _SILENT_NODE_FOR_S:
            return None
        if address not in self._nodes:
            # Until it is found.
            self._silent_nodes[address] = time.monotonic()
            host, _, port = address.partition(":")
            try:
                target = self._addresses.find(host, int(port or _NODE_MANAGER_PORT))
                if target is None:
                    self._reporter.note(f"no pod is called {host}")
                    return None
                url = self._open.enter_context(open_tunnel(self._cluster, target, self._reporter))
            except (NotFound, NotReady, AuthFailed, TimedOut) as error:
                self._reporter.note(f"NodeManager {address}: {error}")
                return None
            self._nodes[address] = HttpService(f"NodeManager {host}", url)
            del self._silent_nodes[address]
        return self._nodes[address]


def _no_logs_yet(app: Application) -> str:
    if app.is_waiting and app.waits_for is not None:
        return f"{app.id} has not started; it waits: {app.waits_for}"
    return f"{app.id} has written no logs yet"


def _application_of(container: str) -> str:
    found = re.fullmatch(r"container_(?:e[0-9]+_)?([0-9]+_[0-9]+)_[0-9]+_[0-9]+", container)
    return f"application_{found[1]}" if found else ""


def _as_list(value: object) -> list[Mapping[str, object]]:
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, dict) else []
