"""MLflow's REST API (https://mlflow.org/docs/latest/api_reference/rest-api.html): experiments and runs."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replayctl.clients.proxies import make_pool
from replayctl.errors import NotFound, OperationFailed, Unreachable, in_words

_PAGE = 500
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class MlflowRun:
    """One run with its latest metrics; `start_unix_ms` is when it was recorded."""

    run_id: str
    name: str
    start_unix_ms: int
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    is_finished: bool = True
    is_deleted: bool = False
    experiment_id: str = ""

    @property
    def started(self) -> datetime.datetime:
        """`start_unix_ms` as a time in UTC."""
        return datetime.datetime.fromtimestamp(self.start_unix_ms / 1000, tz=datetime.UTC)


class DeletedExperiment(NotFound):
    """The experiment was deleted in MLflow, which keeps it, its runs and its name until they are purged."""


class MlflowApi:
    """A tracking server by its base URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def is_healthy(self) -> bool:
        """Whether the server answers its health check."""
        import urllib3

        try:
            with make_pool(self.url) as pool:
                answer = pool.request("GET", f"{self.url}/health", timeout=3.0, retries=False)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200

    def experiment_id(self, name: str) -> str:
        """The ID of an experiment. Raises NotFound if it does not exist, DeletedExperiment if it was deleted."""
        with self._as_mlflow("experiments/get-by-name"):
            experiment = self._call("GET", "experiments/get-by-name", {"experiment_name": name})["experiment"]
            is_deleted, identifier = experiment.get("lifecycle_stage") == "deleted", str(experiment["experiment_id"])
        if is_deleted:
            raise DeletedExperiment(f"experiment {name!r} was deleted in MLflow at {self.url}")
        return identifier

    def experiments(self) -> Iterator[tuple[str, str]]:
        """The name and ID of each experiment that is not deleted."""
        token: str | None = None
        while True:
            answer = self._call("POST", "experiments/search", {"max_results": _PAGE, "page_token": token or ""})
            with self._as_mlflow("experiments/search"):
                rows = [(str(row["name"]), str(row["experiment_id"])) for row in answer.get("experiments", [])]
            yield from rows
            token = answer.get("next_page_token")
            if not token:
                return

    def runs(self, *experiment_ids: str, filter_string: str = "") -> Iterator[MlflowRun]:
        """The finished runs of some experiments, newest first."""
        finished = " and ".join(filter(None, ["attributes.status = 'FINISHED'", filter_string]))
        return self._runs(experiment_ids, finished, "ACTIVE_ONLY")

    def all_runs(self, experiment_id: str, filter_string: str) -> Iterator[MlflowRun]:
        """The runs of an experiment, newest first, with unfinished and deleted ones."""
        return self._runs((experiment_id,), filter_string, "ALL")

    def create_experiment(self, name: str) -> str:
        """Creates an experiment; returns its id."""
        with self._as_mlflow("experiments/create"):
            return str(self._call("POST", "experiments/create", {"name": name})["experiment_id"])

    def record(
        self,
        experiment_id: str,
        *,
        name: str,
        start_unix_ms: int,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        metrics: Mapping[str, float],
    ) -> str:
        """Records a run, which stays unfinished until `finish`; returns its id."""
        labels = [{"key": key, "value": value} for key, value in tags.items()]
        request = {"experiment_id": experiment_id, "run_name": name, "start_time": start_unix_ms, "tags": labels}
        with self._as_mlflow("runs/create"):
            run_id = str(self._call("POST", "runs/create", request)["run"]["info"]["run_id"])
        values = [{"key": key, "value": value, "timestamp": start_unix_ms, "step": 0} for key, value in metrics.items()]
        parameters = [{"key": key, "value": value} for key, value in params.items()]
        self._call("POST", "runs/log-batch", {"run_id": run_id, "params": parameters, "metrics": values})
        return run_id

    def finish(self, run_id: str, end_unix_ms: int) -> None:
        """Marks a run as finished."""
        self._call("POST", "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": end_unix_ms})

    def delete_run(self, run_id: str) -> None:
        """Deletes a run; MLflow keeps it in its bin."""
        self._call("POST", "runs/delete", {"run_id": run_id})

    def restore_run(self, run_id: str) -> None:
        """Takes a run out of the bin."""
        self._call("POST", "runs/restore", {"run_id": run_id})

    def _runs(self, experiment_ids: Sequence[str], filter_string: str, view: str) -> Iterator[MlflowRun]:
        token: str | None = None
        while True:
            body = {
                "experiment_ids": list(experiment_ids),
                "filter": filter_string,
                "run_view_type": view,
                "max_results": _PAGE,
                "order_by": ["attributes.start_time DESC"],
            }
            if token:
                body["page_token"] = token
            answer = self._call("POST", "runs/search", body)
            with self._as_mlflow("runs/search"):
                runs = [_parse_run(run) for run in answer.get("runs", [])]
            yield from runs
            token = answer.get("next_page_token")
            if not token:
                return

    def _call(self, method: str, path: str, values: Mapping[str, Any]) -> dict[str, Any]:
        import urllib3

        url = f"{self.url}/api/2.0/mlflow/{path}"
        try:
            with make_pool(url) as pool:
                if method == "GET":
                    answer = pool.request(method, url, fields=dict(values), timeout=_TIMEOUT_S)
                else:
                    answer = pool.request(method, url, json=values, timeout=_TIMEOUT_S)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(
                f"MLflow at {self.url} does not answer",
                hint="check that it is running; in the local profile, run `replayctl local status`",
                details=in_words(error),
            ) from error
        try:
            content = answer.json()
            if not isinstance(content, dict):
                raise TypeError(type(content))
        except (ValueError, TypeError, RecursionError) as error:
            if answer.status >= 500:
                # A proxy's page.
                raise Unreachable(f"MLflow at {self.url} failed on {path} (HTTP {answer.status})") from error
            raise OperationFailed(
                f"MLflow at {self.url} did not answer {path} with JSON (HTTP {answer.status})"
            ) from error
        if answer.status == 404:
            raise NotFound(f"MLflow at {self.url}: {content.get('message', 'not found')}")
        if answer.status != 200:
            raise OperationFailed(
                f"MLflow at {self.url} failed on {path} (HTTP {answer.status})", details=str(content.get("message"))
            )
        return content

    @contextlib.contextmanager
    def _as_mlflow(self, path: str) -> Iterator[None]:
        """Raises OperationFailed where an answer lacks what MLflow's have: another server may be at the address."""
        try:
            yield
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise OperationFailed(
                f"{self.url} did not answer {path} as MLflow does",
                hint="run `replayctl settings show` to check mlflow.url",
            ) from error


def _parse_run(run: Mapping[str, Any]) -> MlflowRun:
    info, data = run["info"], run.get("data", {})
    return MlflowRun(
        run_id=info["run_id"],
        name=info.get("run_name", ""),
        start_unix_ms=int(info.get("start_time", 0)),
        metrics={row["key"]: float(row["value"]) for row in data.get("metrics", [])},
        params={row["key"]: row["value"] for row in data.get("params", [])},
        tags={row["key"]: row["value"] for row in data.get("tags", [])},
        is_finished=info.get("status") == "FINISHED",
        is_deleted=info.get("lifecycle_stage") == "deleted",
        experiment_id=str(info.get("experiment_id", "")),
    )
