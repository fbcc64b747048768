"""Client of the REST API of YARN's ResourceManager: it lists and kills applications.

https://hadoop.apache.org/docs/r3.4.1/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

import datetime
import json
import re
import urllib.parse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from replayctl.clients.waiting import Waiting, waiting_for_containers, waiting_to_start
from replayctl.errors import AuthFailed, NotFound, OperationFailed, Unreachable, UsageProblem, in_words

if TYPE_CHECKING:
    import urllib3

_TIMEOUT_S = 30.0
_APPLICATION = re.compile(r"application_[0-9]{1,20}_[0-9]{4,20}")
_CONTAINER = re.compile(r"container_(e[0-9]{1,10}_)?[0-9]{1,20}_[0-9]{4,20}_[0-9]{2,10}_[0-9]{6,20}")
_NOT_FOUND = ("NotFoundException", "does not exist", "Can not find remote application directory")
_LOG_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
# Not a state of YARN: only the logs of the application are left.
_FORGOTTEN = "FORGOTTEN"
_NOT_STARTED = ("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED")
FINAL_STATES = frozenset({"FINISHED", "FAILED", "KILLED"})
STATES = (*_NOT_STARTED, "RUNNING", *sorted(FINAL_STATES))


@dataclass(frozen=True, slots=True)
class Application:
    """One application as the ResourceManager reports it; `am_container` is the driver in cluster mode.

    An application that the ResourceManager has forgotten has ended; little besides its logs is known of it.
    """

    id: str
    name: str
    user: str
    queue: str
    state: str
    final_status: str
    kind: str
    tags: tuple[str, ...]
    started: datetime.datetime | None
    finished: datetime.datetime | None
    progress: float
    diagnostics: str
    am_container: str | None
    am_address: str | None
    aggregation: str
    memory_mb: int
    vcores: int
    waits_for: Waiting | None = None

    @property
    def is_final(self) -> bool:
        """Whether it has ended, with any outcome."""
        return self.state in FINAL_STATES or self.is_forgotten

    @property
    def is_waiting(self) -> bool:
        """Whether it has not started: no driver is running."""
        return self.state in _NOT_STARTED

    @property
    def is_forgotten(self) -> bool:
        """Whether the ResourceManager has forgotten it."""
        return self.state == _FORGOTTEN

    @property
    def has_failed(self) -> bool:
        """Whether it has ended without success, or with an unknown outcome."""
        return self.is_final and self.final_status != "SUCCEEDED"

    @property
    def outcome(self) -> str:
        """Its final status once it has ended, such as SUCCEEDED; before that, its state."""
        return self.final_status if self.is_final and self.final_status not in ("", "UNDEFINED") else self.state


def forgotten(name: str, known: Application | None = None) -> Application:
    """An application that the ResourceManager has forgotten, with the details `known` from before."""
    if known is not None:
        return replace(known, state=_FORGOTTEN, final_status="", aggregation="", waits_for=None)
    return Application(
        *(application_id(name), "", "", "", _FORGOTTEN, "", "", (), None, None, 0.0, ""),
        *(None, None, "", 0, 0),
    )


def application_id(text: str) -> str:
    """The text, if it is an application ID of any length. Raises UsageProblem otherwise."""
    if not _APPLICATION.fullmatch(text):
        raise UsageProblem(
            f"{text!r} is not an application ID", hint="run `replayctl yarn-apps --mine` to list application IDs"
        )
    return text


def state(text: str) -> str:
    """The text as a state or a final status of an application. Raises UsageProblem otherwise."""
    known = (*STATES, "SUCCEEDED")
    if text.upper() not in known:
        raise UsageProblem(f"{text!r} is not a state of an application", hint=f"use one of: {', '.join(known)}")
    return text.upper()


def states_with(words: Collection[str]) -> list[str]:
    """YARN's states that an application with one of these states or final statuses can be in."""
    finished = {"SUCCEEDED", "FAILED", "KILLED"} & set(words)
    return sorted((set(words) & set(STATES)) | ({"FINISHED"} if finished else set()))


def container_id(text: str) -> str:
    """The text, if it is a container ID. Raises UsageProblem otherwise."""
    if not _CONTAINER.fullmatch(text):
        raise UsageProblem(
            f"{text!r} is not a container ID", hint="pass an ID such as container_1700000000000_0042_01_000001"
        )
    return text


def application_of(container: str) -> str:
    """The ID of a container's application; empty if the text is not a container ID."""
    match = re.fullmatch(r"container_(?:e[0-9]+_)?([0-9]+_[0-9]+)_[0-9]+_[0-9]+", container)
    return f"application_{match[1]}" if match else ""


def as_list(value: object) -> list[Mapping[str, object]]:
    """A list in an answer of YARN, which has a single entry as an object."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, dict) else []


def log_file(text: str) -> str:
    """The text, if it can be the name of a log file. Raises UsageProblem otherwise."""
    if not _LOG_FILE.fullmatch(text) or ".." in text:
        raise UsageProblem(
            f"{text!r} is not the name of a log file", hint="pass a name such as stdout, stderr or prelaunch.err"
        )
    return text


def log_files(text: str) -> tuple[str, ...]:
    """Distinct names of log files, separated by commas or spaces in the text. Raises UsageProblem otherwise."""
    names = tuple(dict.fromkeys(log_file(name) for name in re.split(r"[,\s]+", text) if name))
    if not names:
        raise UsageProblem(f"{text!r} names no log file", hint="pass --log-files stdout,stderr")
    return names


class HttpService:
    """A web service of Hadoop: JSON and streams, with readable errors."""

    def __init__(self, name: str, url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        import urllib3

        self.name = name
        self.url = url
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(retries=False, maxsize=4)

    def json(self, path: str, what: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A JSON answer. Raises NotFound and OperationFailed with the server's message."""
        answer = self.request("GET", path, parameters=parameters, accept="application/json")
        if answer.status != 200:
            raise self.refusal(answer.status, answer.data, what)
        try:
            document = json.loads(answer.data)
            if not isinstance(document, dict):
                raise TypeError(type(document))
            return document
        except (ValueError, TypeError, RecursionError) as error:
            raise OperationFailed(f"cannot read {what} from {self.name}: the answer is not a JSON object") from error

    def request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        accept: str = "*/*",
        body: bytes | None = None,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request. The caller reads a `stream`. Raises Unreachable without an answer."""
        import urllib3

        url = f"{self.url}{path}{'?' + urllib.parse.urlencode(parameters) if parameters else ''}"
        headers = {"Accept": accept, **({"Content-Type": "application/json"} if body else {})}
        try:
            return self._pool.request(
                method,
                url,
                headers=headers,
                body=body,
                timeout=self._timeout_s,
                preload_content=not stream,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            timed_out = isinstance(error, urllib3.exceptions.TimeoutError)
            # urllib3 counts a refused connection as a timeout.
            if timed_out and not isinstance(error, urllib3.exceptions.NewConnectionError):
                raise Unreachable(f"{self.name} did not answer within {self._timeout_s:.0f} s") from error
            raise Unreachable(f"{self.name} does not answer: {in_words(error)}") from error

    def refusal(self, status: int, body: bytes, what: str) -> NotFound | AuthFailed | OperationFailed:
        """The error for an answer other than success."""
        try:
            message = str(json.loads(body)["RemoteException"].get("message") or "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            message = ""
        if status in (401, 403):
            return AuthFailed(f"{self.name} does not allow {what}", details=message or None)
        if status == 404 or any(words in message for words in _NOT_FOUND):
            return NotFound(f"{self.name} cannot find {what}", details=message or None)
        return OperationFailed(f"{self.name} refused {what} with status {status}", details=message or None)


class ResourceManager(HttpService):
    """YARN's ResourceManager."""

    def __init__(self, url: str) -> None:
        super().__init__("the ResourceManager", url)

    def applications(
        self,
        *,
        states: Sequence[str] = (),
        user: str | None = None,
        tags: Sequence[str] = (),
        started_since: datetime.datetime | None = None,
    ) -> list[Application]:
        """All applications that match all conditions (any of the tags), newest first.

        The request has no limit: the ResourceManager would return that many applications in arbitrary order.
        """
        parameters = {"deSelects": "timeouts"}
        if states:
            parameters["states"] = ",".join(states)
        if user:
            parameters["user"] = user
        if tags:
            # YARN stores tags in lower case.
            parameters["applicationTags"] = ",".join(tag.lower() for tag in tags)
        if started_since:
            parameters["startedTimeBegin"] = str(int(started_since.timestamp() * 1000))
        answer = self.json("/ws/v1/cluster/apps", "the list of applications", parameters)
        try:
            applications = [_application(row) for row in (answer.get("apps") or {}).get("app") or []]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _not_yarn(self.url, "the list of applications") from error
        return sorted(applications, key=_age, reverse=True)

    def application(self, name: str) -> Application:
        """One application by its ID. Raises NotFound for one that the ResourceManager does not know."""
        answer = self.json(f"/ws/v1/cluster/apps/{application_id(name)}", name)
        try:
            return _application(answer["app"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _not_yarn(self.url, name) from error

    def kill(self, name: str) -> bool:
        """Ask the ResourceManager to kill an application; False when it does not allow it."""
        path = f"/ws/v1/cluster/apps/{application_id(name)}/state"
        answer = self.request("PUT", path, body=json.dumps({"state": "KILLED"}).encode(), accept="application/json")
        if answer.status in (200, 202):
            return True
        if answer.status in (401, 403):
            return False
        raise self.refusal(answer.status, answer.data, f"the request to kill {name}")


def _not_yarn(url: str, what: str) -> OperationFailed:
    return OperationFailed(f"{url} did not answer the request for {what} as a ResourceManager does")


def _application(row: Mapping[str, Any]) -> Application:
    container = re.search(_CONTAINER, str(row.get("amContainerLogs") or ""))
    state, queue, diagnostics = (str(row.get(key) or "") for key in ("state", "queue", "diagnostics"))
    return Application(
        id=str(row["id"]),
        name=str(row.get("name") or ""),
        user=str(row.get("user") or ""),
        queue=queue,
        state=state,
        final_status=str(row.get("finalStatus") or ""),
        kind=str(row.get("applicationType") or ""),
        tags=tuple(tag for tag in str(row.get("applicationTags") or "").split(",") if tag),
        started=_moment(row.get("startedTime")),
        finished=_moment(row.get("finishedTime")),
        progress=float(row.get("progress") or 0),
        diagnostics=diagnostics,
        am_container=container[0] if container else None,
        am_address=str(row["amHostHttpAddress"]) if row.get("amHostHttpAddress") else None,
        aggregation=str(row.get("logAggregationStatus") or ""),
        memory_mb=max(0, int(row.get("allocatedMB") or 0)),
        vcores=max(0, int(row.get("allocatedVCores") or 0)),
        waits_for=_waits_for(state, diagnostics, queue, row.get("resourceRequests")),
    )


def _waits_for(state: str, diagnostics: str, queue: str, requests: object) -> Waiting | None:
    rows = [row for row in requests if isinstance(row, dict)] if isinstance(requests, list) else []
    if state in _NOT_STARTED:
        return waiting_to_start(diagnostics, queue, rows)
    return waiting_for_containers(queue, rows) if state not in FINAL_STATES else None


def _age(app: Application) -> tuple[float, str]:
    return (app.started.timestamp() if app.started else 0.0, app.id)


def _moment(milliseconds: object) -> datetime.datetime | None:
    if not isinstance(milliseconds, int) or milliseconds <= 0:
        return None
    try:
        return datetime.datetime.fromtimestamp(milliseconds / 1000, tz=datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return None
