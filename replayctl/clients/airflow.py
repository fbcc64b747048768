"""Airflow's REST API v2 through the generated client: DAGs, runs, tasks, import errors, pools, logs.

The only module that imports airflow_client; plain dataclasses come out, errors of our tree are raised.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from replayctl.clients.proxies import make_pool
from replayctl.errors import AuthFailed, NotFound, OperationFailed, Unreachable
from replayctl.settings.proxies import proxy_from_environment

if TYPE_CHECKING:
    from airflow_client.client import ApiClient, Configuration

T = TypeVar("T")
_PAGE = 100
_REQUEST_TIMEOUT_S = 30.0
_HEALTH_TIMEOUT_S = 5.0
_LIVE_TASK_STATES = (
    *("none", "scheduled", "queued", "running", "restarting"),
    *("up_for_retry", "up_for_reschedule", "deferred", "awaiting_input"),
)
FINAL_RUN_STATES = frozenset({"success", "failed"})


@dataclass(frozen=True, slots=True)
class DagInfo:
    """A DAG as the server knows it."""

    dag_id: str
    fileloc: str
    file_token: str
    is_paused: bool
    is_stale: bool


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """A file that the server could not load, with its traceback."""

    filename: str
    stack_trace: str
    timestamp: datetime.datetime


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run of a DAG."""

    dag_id: str
    run_id: str
    state: str
    start: datetime.datetime | None
    end: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task of a run; `start` and `seconds` are those of its latest try, None before it began or ended."""

    task_id: str
    state: str | None
    try_number: int
    map_index: int
    seconds: float | None
    start: datetime.datetime | None = None


class AirflowApi:
    """A server by its base URL (`http://host:8080`) and a user of it. Signs in at the first call."""

    def __init__(self, url: str, *, username: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._username = username
        self._password = password
        self._signed_in: ApiClient | None = None

    def tasks_docs(self, dag_id: str) -> Mapping[str, str]:
        """The documentation text of every task of a DAG, as serialised now; NotFound for an unknown DAG."""
        from airflow_client.client import TaskApi

        answer = self._call(f"DAG {dag_id}", lambda client: TaskApi(client).get_tasks(dag_id))
        return {task.task_id or "": task.doc_md or "" for task in answer.tasks}

    def find_dag(self, dag_id: str) -> DagInfo | None:
        """The DAG, or None when the server does not know it."""
        from airflow_client.client import DAGApi

        try:
            dag = self._call(f"DAG {dag_id}", lambda client: DAGApi(client).get_dag(dag_id))
        except NotFound:
            return None
        return DagInfo(dag.dag_id, dag.fileloc, dag.file_token, dag.is_paused, dag.is_stale)

    def dags(self) -> Iterator[DagInfo]:
        """All DAGs, the stale ones too: the file of a DAG that vanished is still worth a parse request."""
        from airflow_client.client import DAGApi

        offset = 0
        while True:
            start = offset
            page = self._call(
                "the list of DAGs",
                lambda client, start=start: DAGApi(client).get_dags(_PAGE, start, exclude_stale=False),
            )
            for dag in page.dags:
                yield DagInfo(dag.dag_id, dag.fileloc, dag.file_token, dag.is_paused, dag.is_stale)
            offset += _PAGE
            if offset >= page.total_entries or not page.dags:
                return

    def import_problems(self) -> list[ImportProblem]:
        """Every file that does not load now, anybody's."""
        from airflow_client.client import ImportErrorApi

        found: list[ImportProblem] = []
        while True:
            start = len(found)
            page = self._call(
                "import errors", lambda client, start=start: ImportErrorApi(client).get_import_errors(_PAGE, start)
            )
            found += [ImportProblem(row.filename, row.stack_trace, row.timestamp) for row in page.import_errors]
            if len(found) >= page.total_entries or not page.import_errors:
                return found

    def reparse(self, file_token: str) -> None:
        """Asks the DAG processor to parse a file at once and to look for new files; a repeated wish is no error."""
        from airflow_client.client import DAGParsingApi

        try:
            self._call("a parse request", lambda client: DAGParsingApi(client).reparse_dag_file(file_token))
        except OperationFailed as error:
            # 409: the same request is waiting already, which is all that we want.
            if not _has_status(error, 409):
                raise

    def trigger(self, dag_id: str, conf: Mapping[str, object]) -> RunInfo:
        """Starts a run; NotFound for an unknown or stale DAG."""
        from airflow_client.client import DagRunApi, TriggerDAGRunPostBody

        body = TriggerDAGRunPostBody(conf=dict(conf), logical_date=None)
        return _run_info(self._call(f"DAG {dag_id}", lambda client: DagRunApi(client).trigger_dag_run(dag_id, body)))

    def unpause(self, dag_id: str) -> None:
        """Lets the scheduler start runs of the DAG."""
        from airflow_client.client import DAGApi, DAGPatchBody

        body = DAGPatchBody(is_paused=False)
        self._call(f"DAG {dag_id}", lambda client: DAGApi(client).patch_dag(dag_id, body))

    def run(self, dag_id: str, run_id: str) -> RunInfo:
        """The run as it is now; NotFound when there is none."""
        from airflow_client.client import DagRunApi

        return _run_info(self._call(f"run {run_id}", lambda client: DagRunApi(client).get_dag_run(dag_id, run_id)))

    def tasks(self, dag_id: str, run_id: str) -> list[TaskInfo]:
        """The task instances of a run, in no particular order."""
        from airflow_client.client import TaskInstanceApi

        found: list[TaskInfo] = []
        while True:
            start = len(found)
            page = self._call(
                f"run {run_id}",
                lambda client, start=start: TaskInstanceApi(client).get_task_instances(
                    dag_id, run_id, limit=_PAGE, offset=start
                ),
            )
            found += [
                TaskInfo(
                    row.task_id,
                    row.state and row.state.value,
                    row.try_number,
                    row.map_index,
                    row.duration,
                    row.start_date,
                )
                for row in page.task_instances
            ]
            if len(found) >= (page.total_entries or 0) or not page.task_instances:
                return found

    def live_tries(self, dag_ids: Sequence[str]) -> list[datetime.datetime]:
        """When each try of these DAGs began that runs now; one that waits for a worker has not begun."""
        from airflow_client.client import TaskInstanceApi

        found: list[datetime.datetime] = []
        for dag_id in dag_ids:
            seen = 0
            while True:
                try:
                    page = self._call(
                        f"DAG {dag_id}",
                        lambda client, dag_id=dag_id, seen=seen: TaskInstanceApi(client).get_task_instances(
                            dag_id, "~", state=["running", "restarting"], limit=_PAGE, offset=seen
                        ),
                    )
                except NotFound:
                    # Forgotten in the meantime: nothing of it runs.
                    break
                found += [row.start_date for row in page.task_instances if row.start_date]
                seen += len(page.task_instances)
                if not page.task_instances or seen >= (page.total_entries or 0):
                    break
        return found

    def live_instances(self) -> Iterator[tuple[str, str, str, int]]:
        """Every task instance that has not come to its end, anybody's: its DAG, run, task and map index."""
        from airflow_client.client import TaskInstanceApi

        seen = 0
        while True:
            page = self._call(
                "the tasks that are alive",
                lambda client, seen=seen: TaskInstanceApi(client).get_task_instances(
                    "~", "~", state=list(_LIVE_TASK_STATES), limit=_PAGE, offset=seen, order_by=["id"]
                ),
            )
            for row in page.task_instances:
                yield row.dag_id, row.dag_run_id, row.task_id, row.map_index
            seen += len(page.task_instances)
            if not page.task_instances or seen >= (page.total_entries or 0):
                return

    def delete_dag(self, dag_id: str) -> None:
        """Forgets a DAG with its runs; NotFound for an unknown one, OperationFailed while something of it runs."""
        from airflow_client.client import DAGApi

        self._call(f"DAG {dag_id}", lambda client: DAGApi(client).delete_dag(dag_id))

    def task_log(self, dag_id: str, run_id: str, task: TaskInfo) -> list[str]:
        """The lines of one try's log, oldest first."""

        def fetch(client: ApiClient) -> Any:
            return client.call_api(
                "GET",
                f"{self.url}/api/v2/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances/"
                f"{_quoted(task.task_id)}/logs/{task.try_number}?map_index={task.map_index}&full_content=true",
                header_params={"Accept": "application/json", "Authorization": f"Bearer {self._token}"},
                _request_timeout=_REQUEST_TIMEOUT_S,
            )

        response = self._call(f"the log of task {task.task_id}", fetch)
        body = response.read()
        if response.status != 200:
            raise OperationFailed(f"Airflow gave no log of task {task.task_id} (HTTP {response.status})")
        content = json.loads(body)["content"]
        return [row["event"] if isinstance(row, dict) else str(row) for row in content]

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Creates the pool, or sets its number of slots."""
        from airflow_client.client import PoolApi, PoolBody, PoolPatchBody

        try:
            patch = PoolPatchBody(pool=name, slots=slots, include_deferred=False, description=description)
            self._call(f"pool {name}", lambda client: PoolApi(client).patch_pool(name, patch))
        except NotFound:
            body = PoolBody(name=name, slots=slots, description=description, include_deferred=False)
            self._call(f"pool {name}", lambda client: PoolApi(client).post_pool(body))

    def health(self) -> Mapping[str, str]:
        """Component → status, without signing in; Unreachable when nothing answers."""
        import urllib3

        # Without the generated client, whose import takes a second.
        try:
            with make_pool(self.url) as pool:
                address = f"{self.url}/api/v2/monitor/health"
                answer = pool.request("GET", address, timeout=_HEALTH_TIMEOUT_S, retries=False)
            parts = answer.json()
            return {name: str(part["status"]) for name, part in parts.items() if part and part.get("status")}
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(self.url, error) from error
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise OperationFailed(f"Airflow at {self.url} did not say how it is (HTTP {answer.status})") from error

    def _call(self, what: str, request: Callable[..., T]) -> T:
        with _translated(self.url, what):
            return request(self._client())

    def _client(self) -> ApiClient:
        if self._signed_in is None:
            from airflow_client.client import ApiClient

            self._token = self._sign_in()
            configuration = self._configuration(access_token=self._token)
            configuration.retries = 3
            self._signed_in = ApiClient(configuration)
        return self._signed_in

    def _configuration(self, access_token: str | None = None) -> Configuration:
        """The client's configuration, with the proxy that the environment names for this server, if any."""
        from airflow_client.client import Configuration

        proxy = proxy_from_environment(self.url, os.environ)
        # The client would take the proxy of the environment by itself, even on the way to this machine.
        return Configuration(host=self.url, access_token=access_token, proxy=proxy, no_proxy=None if proxy else "*")

    def _sign_in(self) -> str:
        """A token of the server's auth manager.

        See https://airflow.apache.org/docs/apache-airflow/stable/security/api.html.
        """
        from airflow_client.client import ApiClient

        with ApiClient(self._configuration()) as client:
            response = client.call_api(
                "POST",
                f"{self.url}/auth/token",
                header_params={"Content-Type": "application/json"},
                body={"username": self._username, "password": self._password},
                _request_timeout=_REQUEST_TIMEOUT_S,
            )
            body = response.read()
        if response.status in (401, 403):
            raise AuthFailed(
                f"Airflow at {self.url} refused user {self._username!r}",
                hint="check airflow.username and airflow.password_file with: replayctl settings show",
            )
        if response.status not in (200, 201):
            raise OperationFailed(f"Airflow at {self.url} gave no token (HTTP {response.status})")
        return str(json.loads(body)["access_token"])


def _run_info(run: Any) -> RunInfo:
    return RunInfo(run.dag_id, run.dag_run_id, run.state.value, run.start_date, run.end_date)


def _quoted(part: str) -> str:
    from urllib.parse import quote

    return quote(part, safe="")


def _has_status(error: BaseException, status: int) -> bool:
    return getattr(error.__cause__, "status", None) == status


@contextmanager
def _translated(url: str, what: str) -> Iterator[None]:
    """Foreign errors at the border: HTTP answers and lost connections as errors of our tree."""
    from airflow_client.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        detail = _detail(error)
        if error.status == 404:
            raise NotFound(f"Airflow at {url} does not know {what}", details=detail) from error
        if error.status in (401, 403):
            raise AuthFailed(f"Airflow at {url} does not allow {what} (HTTP {error.status})", details=detail) from error
        raise OperationFailed(f"Airflow at {url} failed on {what} (HTTP {error.status})", details=detail) from error
    except (HTTPError, OSError) as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"Airflow at {url} does not answer",
        hint="is it running? For the local profile: replayctl local status",
        details=str(error),
    )


def _detail(error: Any) -> str | None:
    try:
        return str(json.loads(error.body)["detail"])
    except (TypeError, ValueError, KeyError):
        return str(error.body) if error.body else None
