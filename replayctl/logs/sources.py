"""Finds the log files of an application and streams their bytes.

There are three sources, fastest first: the NodeManager for running containers, the log server for aggregated logs (both
over HTTP through a forward), and `yarn logs` in the ResourceManager's pod, which always works. A source that does not
answer is remembered, so that a command waits for it only once.
https://hadoop.apache.org/docs/r3.4.1/hadoop-yarn/hadoop-yarn-site/NodeManagerRest.html
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from replayctl.clients.patience import wait_until
from replayctl.clients.resource_manager import (
    Application,
    HttpService,
    ResourceManager,
    application_of,
    as_list,
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
# Short, because `yarn logs` is asked when the log server does not answer.
_LOG_SERVER_TIMEOUT_S = 15.0
# A NodeManager may recover: an application can be followed for hours.
_SILENT_NODE_FOR_S = 30.0
_TROUBLE = (Unreachable, OperationFailed, AuthFailed, NotFound)
# In these states log aggregation is over.
_SETTLED = ("SUCCEEDED", "DISABLED", "FAILED", "TIME_OUT")
_MASTER = re.compile(r"container_(?:e(?P<epoch>[0-9]+)_)?[0-9]+_[0-9]+_(?P<attempt>[0-9]+)_0*1")
_ENDED = re.compile(rb" (?:Final app status:|Unregistering ApplicationMaster with) (SUCCEEDED|FAILED|KILLED)\b")
_END_OF_LOG = 1 << 16
# Options for a JVM that runs only for seconds. They are added to the pod's own options.
_QUICK_START = "-XX:+IgnoreUnrecognizedVMOptions -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
_WITH_JAVA_OPTIONS = 'JAVA_TOOL_OPTIONS="${JAVA_TOOL_OPTIONS:-} $0" exec "$@"'


class Yarn:
    """YARN of a profile: its ResourceManager and its logs. Use it as a context manager."""

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
        # Aggregated log files of forgotten applications; listing them again would be slow.
        self._listings: dict[str, list[LogFile]] = {}
        self._program = self._open.enter_context(LogProgram(functools.partial(self.execute, java_options=_QUICK_START)))
        self._addresses = AddressBook(cluster, (self._yarn.namespace,), reporter)

    def __enter__(self) -> Yarn:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def manager(self) -> ResourceManager:
        """The ResourceManager through a forward, which is opened at first use."""
        if self._manager is None:
            url = self._open.enter_context(open_tunnel(self._cluster, self._yarn, self._reporter))
            self._manager = ResourceManager(url)
        return self._manager

    def application(self, name: str) -> Application:
        """An application by its ID, also one that the ResourceManager has forgotten but whose logs still exist.

        Raises the ResourceManager's error if there are no logs, either.
        """
        try:
            return self.manager.application(name)
        except (NotFound, NotReady, TimedOut, Unreachable) as error:
            self._reporter.note(f"{error}; looking for its logs")
            app = forgotten(name)
            try:
                # Without a ResourceManager that answers, `yarn logs` cannot run: it needs its pod.
                files = self._aggregated_files(app, thoroughly=isinstance(error, NotFound))
            except ReplayctlError as trouble:
                self._reporter.note(str(trouble))
                files = []
            if not files:
                if not isinstance(error, NotFound):
                    raise
                hint = "run `replayctl yarn-apps` to list applications"
                raise NotFound(f"{error}, and YARN has no logs of it", hint=hint, details=error.details) from error
            self._reporter.step(f"{error}; its logs still exist")
            self._listings[name] = files
            return self._from_logs(app, files)

    def _from_logs(self, app: Application, files: Sequence[LogFile]) -> Application:
        """The driver and the final status of a forgotten application, as far as its logs contain them."""
        masters = {file.container: match for file in files if (match := _MASTER.fullmatch(file.container))}
        driver = max(
            masters, key=lambda name: (int(masters[name]["epoch"] or 0), int(masters[name]["attempt"])), default=None
        )
        app = replace(app, am_container=driver)
        stderr = next((file for file in files if file.container == driver and file.name == "stderr"), None)
        service = self._aggregation_service()
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
        """Run a program in the ResourceManager's pod. Raises RemoteCommandFailed with the end of its stderr."""
        with_options = ["sh", "-c", _WITH_JAVA_OPTIONS, java_options] if java_options else []
        pod = self._cluster.ready_pod(self._pod)
        stderr = bytearray()

        def listen(data: bytes) -> None:
            stderr.extend(data)
            del stderr[:-_STDERR_KEPT]

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
            lines = stderr.decode("utf-8", "replace").strip().splitlines()
            last_lines = [line for line in lines if not line.startswith("Picked up JAVA_TOOL_OPTIONS")][-20:]
            raise RemoteCommandFailed(
                f"{' '.join(argv[:2])} in pod {pod.name} ended with status {done.exit_code}",
                details="\n".join(last_lines),
            )

    def files(self, app: Application, *, wait_s: float, driver_only: bool = False) -> list[LogFile]:
        """All log files of an application, driver first. Waits until YARN has aggregated those of a finished one.

        With `driver_only` those of executors may be missing, because only the driver's node is asked. Raises TimedOut
        if YARN has not aggregated them after `wait_s`, NotFound if there are none, and NotReady, with what the
        application waits for, if it has not started.
        """
        if not app.is_final:
            files = self._files(app, driver_only, thoroughly=False)
            if not files:
                raise NotReady(
                    _no_logs_yet(app), hint=f"run `replayctl yarn-logs {app.id} --follow` to wait for its start"
                )
        else:
            files = self._gathered_files(app, wait_s)
        first = app.am_container or ""
        return sorted(files, key=lambda file: (file.container != first, file.container, file.name))

    def _gathered_files(self, app: Application, wait_s: float) -> list[LogFile]:
        """The log files of an application that has ended, once YARN has aggregated them."""
        latest: Application | None = None

        def look() -> list[LogFile] | None:
            nonlocal latest
            latest = app if latest is None or app.is_forgotten else self.manager.application(app.id)
            settled = latest.aggregation in _SETTLED or latest.am_container is None
            files = self._files(latest, driver_only=False, thoroughly=settled)
            if files:
                return files
            if settled:
                why = "has no logs" if latest.am_container else "has no logs: it ended before a container was allocated"
                raise NotFound(f"{latest.id} {why}", details=latest.diagnostics or None)
            state = latest.aggregation or "not started"
            self._reporter.status(f"waiting until YARN has aggregated the logs of {latest.id}: {state}")
            return None

        def late(waited_s: float, trouble: ReplayctlError | None) -> ReplayctlError:
            last = latest or app
            return trouble or TimedOut(
                f"YARN has not aggregated the logs of {last.id} after {waited_s:.0f} s (state {last.state}, "
                f"aggregation {last.aggregation or 'unknown'})",
                hint="pass a longer --wait-for SECONDS, or try again later",
            )

        return wait_until(look, late, timeout_s=wait_s, poll_s=_POLL_S, reporter=self._reporter)

    def _files(self, app: Application, driver_only: bool, *, thoroughly: bool) -> list[LogFile]:
        try:
            if app.is_forgotten and app.id in self._listings:
                return self._listings[app.id]
            if app.is_final:
                return self._aggregated_files(app, thoroughly=thoroughly)
            return self._running_files(app, driver_only)
        except NotFound:
            return []

    def expect(
        self, app: Application, files: Sequence[LogFile], *, again: Sequence[LogFile] = (), tail: int | None = None
    ) -> None:
        """Announce which log files will be read, which of them `again`, and how many of their last bytes.

        Where only `yarn logs` is available, one run of it then serves all of them.
        """
        if app.is_final:
            self._program.expect(app, files, again, tail)

    def pieces(self, app: Application, file: LogFile, *, tail: int | None = None) -> Iterator[Piece]:
        """Stream the bytes of a log file; with `tail` at most that many of its last ones. Memory use is bounded.

        Raises OperationFailed with the number of bytes received if the log is cut off.
        """
        service = self._http_of(file)
        if service is not None:
            started = False
            try:
                for piece in self._pieces_over_http(service, file, tail):
                    started = True
                    yield piece
                return
            except _TROUBLE as error:
                if started:
                    raise
                self._note(service, error, file.node if file.running else None)
        yield from self._program.pieces(app, file, tail)

    def _pieces_over_http(self, service: HttpService, file: LogFile, tail: int | None) -> Iterator[Piece]:
        base = "/ws/v1/node/containerlogs" if file.running else "/ws/v1/history/containerlogs"
        path = f"{base}/{container_id(file.container)}/{log_file(file.name)}"
        return read_pieces(self._stream(service, path, tail), tail=tail)

    def _http_of(self, file: LogFile) -> HttpService | None:
        return self._node(file.node) if file.running else self._aggregation_service()

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
                # `read_pieces` counts the bytes and reports how many are missing.
                return
        finally:
            answer.close()

    def _running_files(self, app: Application, driver_only: bool) -> list[LogFile]:
        if app.is_waiting and app.am_container is None:
            return []
        files: list[LogFile] = []
        answered = False
        for address in self._nodes_of(app, driver_only):
            service = self._node(address)
            if service is None:
                continue
            try:
                files += self._files_on(service, address, app)
                answered = True
            except _TROUBLE as error:
                # YARN lists a lost node for some minutes; other nodes may have the logs.
                self._note(service, error, address)
        if answered:
            return files
        try:
            return self._program.files(app)
        except NotFound as error:
            raise Unreachable(f"cannot reach a NodeManager with logs of {app.id}", details=error.details) from error

    def _nodes_of(self, app: Application, driver_only: bool) -> list[str]:
        if driver_only and app.am_address:
            return [app.am_address]
        nodes = self.manager.json("/ws/v1/cluster/nodes", "the nodes", {"states": "RUNNING"})
        return [str(node.get("nodeHTTPAddress") or "") for node in (nodes.get("nodes") or {}).get("node") or []]

    def _files_on(self, service: HttpService, address: str, app: Application) -> list[LogFile]:
        containers = service.json("/ws/v1/node/containers", f"the containers of {address}")
        return [
            file
            for container in (containers.get("containers") or {}).get("container") or []
            if application_of(str(container["id"])) == app.id
            for file in self._listed(service, f"/ws/v1/node/containers/{container['id']}/logs", address, running=True)
        ]

    def _aggregated_files(self, app: Application, *, thoroughly: bool) -> list[LogFile]:
        """Aggregated log files; with `thoroughly`, `yarn logs` is run even if the log server has none."""
        service = self._aggregation_service()
        if service is not None:
            try:
                return self._listed(service, f"/ws/v1/history/aggregatedlogs?appid={app.id}", "", running=False)
            except _TROUBLE as error:
                if isinstance(error, NotFound) and not thoroughly:
                    raise
                self._note(service, error, None)
        self._reporter.status("running `yarn logs` in the ResourceManager's pod, which takes some seconds")
        return self._program.files(app)

    def _note(self, service: HttpService, error: ReplayctlError, node: str | None) -> None:
        """Report an error of a NodeManager or the log server, and remember one that does not answer."""
        self._reporter.note(f"{error}; using `yarn logs` instead")
        if not isinstance(error, (Unreachable, AuthFailed)):
            return
        if node is not None:
            self._silent_nodes[node] = time.monotonic()
        elif service is self._log_server:
            self._log_server = self._history = None

    def _listed(self, service: HttpService, path: str, node: str, *, running: bool) -> list[LogFile]:
        answer = service.json(path, "the log files")
        return [
            LogFile(
                str(info["containerId"]),
                node or str(info.get("nodeId") or ""),
                name,
                int(str(row["fileSize"])),
                running,
            )
            for info in as_list(answer.get("containerLogsInfo"))
            for row in as_list(info.get("containerLogInfo"))
            if (name := str(row["fileName"]))
        ]

    def _aggregation_service(self) -> HttpService | None:
        if self._log_server is None and self._history is not None:
            try:
                # A forward would wait for a ready pod; `yarn logs` is faster.
                self._cluster.ready_pod(self._history)
                url = self._open.enter_context(open_tunnel(self._cluster, self._history, self._reporter))
            except (NotFound, NotReady, AuthFailed, TimedOut) as error:
                self._reporter.note(f"cannot use the log server: {error}")
                self._history = None
                return None
            self._log_server = HttpService("the log server", url, timeout_s=_LOG_SERVER_TIMEOUT_S)
        return self._log_server

    def _node(self, address: str) -> HttpService | None:
        """The NodeManager at an address that YARN reports; None if its pod cannot be found or reached."""
        if time.monotonic() - self._silent_nodes.get(address, float("-inf")) < _SILENT_NODE_FOR_S:
            return None
        if address not in self._nodes:
            # Marked as silent until it is found.
            self._silent_nodes[address] = time.monotonic()
            host, _, port = address.partition(":")
            try:
                target = self._addresses.find(host, int(port or _NODE_MANAGER_PORT))
                if target is None:
                    self._reporter.note(f"no pod has the name {host}")
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
        return f"{app.id} has not started; it is waiting: {app.waits_for}"
    return f"{app.id} has written no logs yet"
