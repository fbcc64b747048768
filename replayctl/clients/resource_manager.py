"""YARN's ResourceManager by its REST API: applications, and their end.

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
# Ours, of an application of which only the logs are left.
_FORGOTTEN = "FORGOTTEN"
_NOT_STARTED = ("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED")
FINAL_STATES = frozenset({"FINISHED", "FAILED", "KILLED"})
STATES = (*_NOT_STARTED, "RUNNING", *sorted(FINAL_STATES))


@dataclass(frozen=True, slots=True)
class Application:
    """One application as the ResourceManager tells of it; `am_container` is the driver in cluster mode.

    Of one that the ResourceManager has forgotten little is known but its logs, and that it has ended.
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
        """Whether it has come to its end, whichever."""
        return self.state in FINAL_STATES or self.is_forgotten

    @property
    def is_waiting(self) -> bool:
        """Whether it has not begun: it has no driver that runs."""
        return self.state in _NOT_STARTED

    @property
    def is_forgotten(self) -> bool:
        """Whether the ResourceManager does not know it any more."""
        return self.state == _FORGOTTEN

    @property
    def has_failed(self) -> bool:
        """Whether that end was another than success, as far as is known."""
        return self.is_final and self.final_status != "SUCCEEDED"

    @property
    def outcome(self) -> str:
        """Its state in one word: what came of it once it has ended, such as SUCCEEDED, before that where it is."""
        return self.final_status if self.is_final and self.final_status not in ("", "UNDEFINED") else self.state


def forgotten(name: str, known: Application | None = None) -> Application:
    """An application that the ResourceManager does not know any more, with what is `known` of it from before."""
    if known is not None:
        return replace(known, state=_FORGOTTEN, final_status="", aggregation="", waits_for=None)
    return Application(
        *(application_id(name), "", "", "", _FORGOTTEN, "", "", (), None, None, 0.0, ""),
        *(None, None, "", 0, 0),
    )


def application_id(text: str) -> str:
    """The text, if it is an application's id of any length; UsageProblem otherwise."""
    if not _APPLICATION.fullmatch(text):
        raise UsageProblem(f"{text!r} is no application id", hint="such as application_1700000000000_0042")
    return text


def state(text: str) -> str:
    """The text as a state of YARN's, or as what has come of an application; UsageProblem otherwise."""
    known = (*STATES, "SUCCEEDED")
    if text.upper() not in known:
        raise UsageProblem(f"{text!r} is no state of an application", hint=f"there are: {', '.join(known)}")
    return text.upper()


def states_with(words: Collection[str]) -> list[str]:
    """The states of YARN's in which an application may be of which one of the words is said."""
    finished = {"SUCCEEDED", "FAILED", "KILLED"} & set(words)
    return sorted((set(words) & set(STATES)) | ({"FINISHED"} if finished else set()))


def container_id(text: str) -> str:
    """The text, if it is a container's id; UsageProblem otherwise."""
    if not _CONTAINER.fullmatch(text):
        raise UsageProblem(f"{text!r} is no container id", hint="such as container_1700000000000_0042_01_000001")
    return text


def log_file(text: str) -> str:
    """The text, if it can be the name of a log file; UsageProblem otherwise."""
    if not _LOG_FILE.fullmatch(text) or ".." in text:
        raise UsageProblem(f"{text!r} is no log file", hint="such as stdout, stderr or prelaunch.err")
    return text


def log_files(text: str) -> tuple[str, ...]:
    """Names of log files from a list with commas, blanks or both, each once; UsageProblem for anything else."""
    names = tuple(dict.fromkeys(log_file(name) for name in re.split(r"[,\s]+", text) if name))
    if not names:
        raise UsageProblem(f"{text!r} names no log file", hint="such as --log-files stdout,stderr")
    return names


class HttpService:
    """A service of Hadoop's by its address: JSON and streams, with errors in words."""

    def __init__(self, name: str, url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        import urllib3

        self.name = name
        self.url = url
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(retries=False, maxsize=4)

    def json(self, path: str, what: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A JSON answer; NotFound and OperationFailed with the server's own words."""
        answer = self.request("GET", path, parameters=parameters, accept="application/json")
        if answer.status != 200:
            raise self.refusal(answer.status, answer.data, what)
        try:
            return dict(json.loads(answer.data))
        except ValueError as error:
            raise OperationFailed(f"{self.name} answered {what} with something that is no JSON") from error

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
        """Any request; Unreachable when there is no answer. A `stream` is read by the caller."""
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
            # To the library a refused connection is a timeout, too.
            if timed_out and not isinstance(error, urllib3.exceptions.NewConnectionError):
                raise Unreachable(f"{self.name} did not answer within {self._timeout_s:.0f} s") from error
            raise Unreachable(f"{self.name} does not answer: {in_words(error)}") from error

    def refusal(self, status: int, body: bytes, what: str) -> NotFound | AuthFailed | OperationFailed:
        """What an answer other than success means."""
        try:
            message = str(json.loads(body)["RemoteException"].get("message") or "")
        except (ValueError, KeyError, TypeError, AttributeError):
            message = ""
        if status in (401, 403):
            return AuthFailed(f"{self.name} does not allow {what}", details=message or None)
        if status == 404 or any(words in message for words in _NOT_FOUND):
            return NotFound(f"{self.name} knows nothing of {what}", details=message or None)
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
        """All applications that fit all conditions (any of the tags), the newest first.

        No limit is asked for: the ResourceManager would stop after the first ones that it meets, in no order.
        """
        parameters = {"deSelects": "timeouts"}
        if states:
            parameters["states"] = ",".join(states)
        if user:
            parameters["user"] = user
        if tags:
            # YARN keeps them in small letters.
            parameters["applicationTags"] = ",".join(tag.lower() for tag in tags)
        if started_since:
            parameters["startedTimeBegin"] = str(int(started_since.timestamp() * 1000))
        found = self.json("/ws/v1/cluster/apps", "the list of applications", parameters)
        rows = (found.get("apps") or {}).get("app") or []
        return sorted((_application(row) for row in rows), key=_age, reverse=True)

    def application(self, name: str) -> Application:
        """One application by its id; NotFound for one that the ResourceManager does not remember."""
        found = self.json(f"/ws/v1/cluster/apps/{application_id(name)}", name)
        return _application(found["app"])

    def kill(self, name: str) -> bool:
        """Asks for the end of an application; False when the ResourceManager does not let us."""
        path = f"/ws/v1/cluster/apps/{application_id(name)}/state"
        answer = self.request("PUT", path, body=json.dumps({"state": "KILLED"}).encode(), accept="application/json")
        if answer.status in (200, 202):
            return True
        if answer.status in (401, 403):
            return False
        raise self.refusal(answer.status, answer.data, f"the end of {name}")


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
    rows = [each for each in requests if isinstance(each, dict)] if isinstance(requests, list) else []
    if state in _NOT_STARTED:
        return waiting_to_start(diagnostics, queue, rows)
    return waiting_for_containers(queue, rows) if state not in FINAL_STATES else None


def _age(app: Application) -> tuple[float, str]:
    return (app.started.timestamp() if app.started else 0.0, app.id)


def _moment(milliseconds: object) -> datetime.datetime | None:
    if not isinstance(milliseconds, int) or milliseconds <= 0:
        return None
    return datetime.datetime.fromtimestamp(milliseconds / 1000, tz=datetime.UTC)
