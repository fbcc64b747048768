"""Airflow's REST API v2 through the generated client: DAGs, import errors, pools and health.

Returns plain dataclasses, and raises errors of `replayctl.errors`. Runs and tasks are in `airflow_runs`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from replayctl.clients.airflow_runs import RunsApi
from replayctl.clients.airflow_session import PAGE, has_status, unreachable
from replayctl.clients.proxies import make_pool
from replayctl.errors import NotFound, OperationFailed

_HEALTH_TIMEOUT_S = 5.0
_T = TypeVar("_T")


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


class AirflowApi(RunsApi):
    """An Airflow server, by its base URL (`http://host:8080`) and a user. Signs in at the first call."""

    def tasks_docs(self, dag_id: str) -> Mapping[str, str]:
        """The documentation of every task of a DAG, as it is serialised now. Raises NotFound for an unknown DAG."""
        from airflow_client.client import TaskApi

        answer = self._call(f"DAG {dag_id}", lambda client: TaskApi(client).get_tasks(dag_id))
        return {task.task_id or "": task.doc_md or "" for task in answer.tasks}

    def task_graph(self, dag_id: str) -> Mapping[str, frozenset[str]]:
        """The tasks of a DAG, each with those that directly depend on it. Raises NotFound for an unknown DAG."""
        from airflow_client.client import TaskApi

        answer = self._call(f"DAG {dag_id}", lambda client: TaskApi(client).get_tasks(dag_id))
        return {task.task_id or "": frozenset(task.downstream_task_ids or ()) for task in answer.tasks}

    def find_dag(self, dag_id: str) -> DagInfo | None:
        """The DAG, or None if the server does not know it."""
        from airflow_client.client import DAGApi

        try:
            dag = self._call(f"DAG {dag_id}", lambda client: DAGApi(client).get_dag(dag_id))
        except NotFound:
            return None
        return DagInfo(dag.dag_id, dag.fileloc, dag.file_token, dag.is_paused, dag.is_stale)

    def dag_source(self, dag_id: str) -> str:
        """The source of a DAG's file. Raises NotFound for an unknown DAG, AuthFailed without the permission."""
        from airflow_client.client import DagSourceApi

        answer = self._call(f"the source of {dag_id}", lambda client: DagSourceApi(client).get_dag_source(dag_id))
        return str(answer.content or "")

    def dags(self) -> Iterator[DagInfo]:
        """All DAGs, including stale ones: the file of a DAG that has disappeared can still be parsed again."""
        from airflow_client.client import DAGApi

        offset = 0
        while True:
            start = offset
            page = self._call(
                "the list of DAGs",
                lambda client, start=start: DAGApi(client).get_dags(PAGE, start, exclude_stale=False),
            )
            for dag in page.dags:
                yield DagInfo(dag.dag_id, dag.fileloc, dag.file_token, dag.is_paused, dag.is_stale)
            # The server may be set to smaller pages.
            offset += len(page.dags)
            if offset >= page.total_entries or not page.dags:
                return

    def import_problems(self) -> list[ImportProblem]:
        """Every file that the server cannot load, of all users."""
        from airflow_client.client import ImportErrorApi

        problems: list[ImportProblem] = []
        while True:
            start = len(problems)
            page = self._call(
                "import errors", lambda client, start=start: ImportErrorApi(client).get_import_errors(PAGE, start)
            )
            problems += [ImportProblem(row.filename, row.stack_trace, row.timestamp) for row in page.import_errors]
            if len(problems) >= page.total_entries or not page.import_errors:
                return problems

    def reparse(self, file_token: str) -> None:
        """Asks the DAG processor to parse a file now and to look for new files; repeated requests are no error."""
        from airflow_client.client import DAGParsingApi

        try:
            self._call("a parse request", lambda client: DAGParsingApi(client).reparse_dag_file(file_token))
        except OperationFailed as error:
            # 409: the same request is already waiting.
            if not has_status(error, 409):
                raise

    def unpause(self, dag_id: str) -> None:
        """Unpauses the DAG, so that the scheduler starts its runs."""
        from airflow_client.client import DAGApi, DAGPatchBody

        body = DAGPatchBody(is_paused=False)
        self._call(f"DAG {dag_id}", lambda client: DAGApi(client).patch_dag(dag_id, body))

    def delete_dag(self, dag_id: str) -> None:
        """Deletes a DAG and its runs. Raises NotFound for an unknown DAG, OperationFailed while a task of it runs."""
        from airflow_client.client import DAGApi

        self._call(f"DAG {dag_id}", lambda client: DAGApi(client).delete_dag(dag_id))

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Creates the pool, or sets its number of slots."""
        from airflow_client.client import PoolApi, PoolBody, PoolPatchBody

        try:
            patch = PoolPatchBody(pool=name, slots=slots, include_deferred=False, description=description)
            self._call(f"pool {name}", lambda client: PoolApi(client).patch_pool(name, patch))
        except NotFound:
            body = PoolBody(name=name, slots=slots, description=description, include_deferred=False)
            self._call(f"pool {name}", lambda client: PoolApi(client).post_pool(body))

    def version(self) -> str:
        """The server's version, without signing in. Raises Unreachable if the server does not answer."""
        return self._open_to_all("version", "its version", lambda answer: str(answer["version"]))

    def health(self) -> Mapping[str, str]:
        """Component → status, without signing in. Raises Unreachable if the server does not answer."""
        return self._open_to_all(
            "monitor/health",
            "its health",
            lambda parts: {name: str(part["status"]) for name, part in parts.items() if part and part.get("status")},
        )

    def _open_to_all(self, path: str, what: str, read: Callable[[Any], _T]) -> _T:
        import urllib3

        # Without the generated client, which takes a second to import.
        try:
            with make_pool(self.url) as pool:
                address = f"{self.url}/api/v2/{path}"
                answer = pool.request("GET", address, timeout=_HEALTH_TIMEOUT_S, retries=False)
            return read(answer.json())
        except urllib3.exceptions.HTTPError as error:
            raise unreachable(self.url, error) from error
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise OperationFailed(f"Airflow at {self.url} did not report {what} (HTTP {answer.status})") from error
