"""Where the logs of an application are, and their bytes as they come.

Three ways lead to them, the fastest first: the NodeManager for containers that run, the log server for what YARN has
gathered (both over HTTP through a forward), and `yarn logs` in the ResourceManager's pod, which always works.
https://hadoop.apache.org/docs/r3.4.1/hadoop-yarn/hadoop-yarn-site/NodeManagerRest.html
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from replayctl.clients.resource_manager import (
    Application,
    HttpService,
    ResourceManager,
    application_id,
    container_id,
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
from replayctl.logs.stream import Piece, read_pieces
from replayctl.settings.declared import Settings

_CHUNK = 1 << 18
_STDERR_KEPT = 20_000
_POLL_S = 1.0
_NODE_MANAGER_PORT = 8042
_LISTED = re.compile(r"Container: (?P<container>container_\w+) on (?P<node>\S+)")
_LISTED_FILE = re.compile(r"^\s*(?P<name>[A-Za-z0-9][\w.-]*)\s+(?P<size>[0-9]+)\s+\w{3} \w{3} ")


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log file of one container: its size in bytes, and whether the container still runs."""

    container: str
    node: str
    name: str
    size: int
    running: bool


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

    def execute(self, argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        """Runs a program in the ResourceManager's pod; RemoteCommandFailed with its last words when it fails."""
        pod = self._cluster.ready_pod(self._pod)
        said = bytearray()

        def listen(data: bytes) -> None:
            said.extend(data)
            del said[:-_STDERR_KEPT]

        done: Executed = execute(
            self._cluster,
            pod,
            container_of(pod, None),
            argv,
            on_stdout=on_stdout,
            on_stderr=listen,
            timeout_s=timeout_s,
        )
        if done.exit_code:
            words = said.decode("utf-8", "replace").strip().splitlines()[-20:]
            raise RemoteCommandFailed(
                f"{' '.join(argv[:2])} in pod {pod.name} ended with status {done.exit_code}", details="\n".join(words)
            )

    def files(self, app: Application, *, wait_s: float, driver_only: bool = False) -> list[LogFile]:
        """All log files of an application, driver first. Waits until YARN has gathered those of a finished one.

        With `driver_only` those of others may be missing: then one node is asked, and not each of the cluster. Raises
        TimedOut when YARN has not gathered them after `wait_s`, NotFound when there are none.
        """
        deadline = time.monotonic() + wait_s
        while True:
            try:
                found = self._gathered_files(app) if app.is_final else self._running_files(app, driver_only)
            except NotFound:
                found = []
            if found:
                first = app.am_container or ""
                return sorted(found, key=lambda each: (each.container != first, each.container, each.name))
            if app.is_final and app.aggregation in ("SUCCEEDED", "DISABLED"):
                raise NotFound(f"{app.id} has no logs", details=app.diagnostics or None)
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
            app = self.manager.application(app.id)

    def pieces(self, app: Application, file: LogFile, *, tail: int | None = None) -> Iterator[Piece]:
        """One file's bytes as they come; with `tail` at most so many of its last ones. Memory stays flat.

        Raises OperationFailed that says how much came when the log is cut off in the middle.
        """
        service = self._http_of(file)
        if service is not None:
            base = "/ws/v1/node/containerlogs" if file.running else "/ws/v1/history/containerlogs"
            path = f"{base}/{container_id(file.container)}/{log_file(file.name)}"
            begun = False
            try:
                for piece in read_pieces(self._stream(service, path, tail), tail=tail):
                    begun = True
                    yield piece
                return
            except (Unreachable, OperationFailed, AuthFailed, NotFound) as error:
                if begun:
                    raise
                self._reporter.note(f"{service.name}: {error}; asking `yarn logs` instead")
        yield from self._pieces_by_program(app, file, tail)

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
        found: list[LogFile] = []
        answered = False
        for address in self._nodes_of(app, driver_only):
            service = self._node(address)
            if service is None:
                continue
            try:
                found += self._files_on(service, address, app)
                answered = True
            except (Unreachable, OperationFailed, AuthFailed, NotFound) as error:
                # YARN lists a node that is gone for some minutes; others may have what is looked for.
                self._reporter.note(f"{service.name}: {error}")
        return found if answered else self._files_by_program(app)

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

    def _gathered_files(self, app: Application) -> list[LogFile]:
        service = self._gatherer()
        if service is not None:
            try:
                return self._listed(service, f"/ws/v1/history/aggregatedlogs?appid={app.id}", "", running=False)
            except (Unreachable, OperationFailed, AuthFailed) as error:
                self._reporter.note(f"{service.name}: {error}; asking `yarn logs` instead")
        return self._files_by_program(app)

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

    def _files_by_program(self, app: Application) -> list[LogFile]:
        text = bytearray()
        argv = ["yarn", "logs", "-applicationId", application_id(app.id), "-appOwner", app.user]
        try:
            self.execute([*argv, "-show_container_log_info"], text.extend, timeout_s=120.0)
        except RemoteCommandFailed as error:
            raise NotFound(f"yarn knows no logs of {app.id}", details=error.details) from error
        found: list[LogFile] = []
        container = node = ""
        for line in text.decode("utf-8", "replace").splitlines():
            if header := _LISTED.search(line):
                container, node = header["container"], header["node"]
            elif container and (row := _LISTED_FILE.match(line)):
                found.append(LogFile(container, node, row["name"], int(row["size"]), running=False))
        return found

    def _pieces_by_program(self, app: Application, file: LogFile, tail: int | None) -> Iterator[Piece]:
        argv = ["yarn", "logs", "-applicationId", application_id(app.id), "-appOwner", app.user]
        argv += ["-containerId", container_id(file.container), "-log_files", log_file(file.name)]
        argv += ["-size", str(-tail)] if tail else []
        yield from read_pieces(self._chunks_of(argv), tail=tail)

    def _chunks_of(self, argv: list[str]) -> Iterator[bytes]:
        """A program's stdout in chunks; a few of them wait at most, so that a slow reader holds the program back."""
        chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
        failed: list[ReplayctlError] = []
        unwanted = threading.Event()

        def take(data: bytes) -> None:
            while not unwanted.is_set():
                with contextlib.suppress(queue.Full):
                    chunks.put(data, timeout=0.5)
                    return
            raise OperationFailed("nobody reads any more")

        def work() -> None:
            try:
                self.execute(argv, take)
            except ReplayctlError as error:
                failed.append(error)
            finally:
                with contextlib.suppress(OperationFailed):
                    take(b"")

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while data := chunks.get():
                yield data
            thread.join()
            if failed:
                raise failed[0]
        finally:
            unwanted.set()

    def _gatherer(self) -> HttpService | None:
        if self._log_server is None and self._history is not None:
            try:
                url = self._open.enter_context(open_tunnel(self._cluster, self._history, self._reporter))
            except (NotFound, NotReady, AuthFailed, TimedOut) as error:
                self._reporter.note(f"no log server: {error}")
                self._history = None
                return None
            self._log_server = HttpService("the log server", url)
        return self._log_server

    def _node(self, address: str) -> HttpService | None:
        """The NodeManager at an address of YARN's; None when its pod cannot be found or reached."""
        if address not in self._nodes:
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
        return self._nodes[address]


def _application_of(container: str) -> str:
    found = re.fullmatch(r"container_(?:e[0-9]+_)?([0-9]+_[0-9]+)_[0-9]+_[0-9]+", container)
    return f"application_{found[1]}" if found else ""


def _as_list(value: object) -> list[Mapping[str, object]]:
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, dict) else []
