"""The few requests of MLflow's REST API (2.0) that an evaluation makes.

MLflow's own client takes longer to import than a small experiment to run, and brings fifty packages. The variables
of it that matter here count: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .context import StepError, log

_TIMEOUT_S = 60.0
_PAGE = 1000
# Timeouts and limits of a proxy before the server.
_PASSING = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class ServerRun:
    """A run as the server has it."""

    run_id: str
    is_finished: bool
    is_deleted: bool
    started_unix_ms: int
    tags: Mapping[str, str]


class MlflowServer:
    """A tracking server by its http(s) address; StepError for another kind of address."""

    def __init__(self, url: str) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise StepError(f"tracking server {url!r} is not an address with http:// or https://")
        self.url = url.rstrip("/")

    def experiment_id(self, name: str) -> str:
        """The id of the experiment, which is created when it does not exist.

        One that was deleted in MLflow's pages comes back with its runs: its name stays taken.
        """
        for _ in range(2):
            try:
                answer = self._ask("experiments/get-by-name", query={"experiment_name": name})
                experiment = answer["experiment"]
                if experiment.get("lifecycle_stage") == "deleted":
                    log.warning("experiment %r was deleted in MLflow: restoring it", name)
                    self._ask("experiments/restore", {"experiment_id": experiment["experiment_id"]})
                return str(experiment["experiment_id"])
            except MlflowRefused as refused:
                if refused.code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            try:
                return str(self._ask("experiments/create", {"name": name})["experiment_id"])
            except MlflowRefused as refused:
                # Somebody else has made it in the meantime.
                if refused.code != "RESOURCE_ALREADY_EXISTS":
                    raise
        raise StepError(f"MLflow at {self.url} has an experiment {name!r} but does not return it")

    def runs(self, experiment_id: str, condition: str) -> list[ServerRun]:
        """The experiment's runs that meet a condition in MLflow's words, with deleted ones."""
        runs: list[ServerRun] = []
        token = ""
        while True:
            request = {"experiment_ids": [experiment_id], "filter": condition, "max_results": _PAGE}
            request |= {"run_view_type": "ALL", **({"page_token": token} if token else {})}
            page = self._ask("runs/search", request)
            runs += [_run(row) for row in page.get("runs", [])]
            token = page.get("next_page_token", "")
            if not token:
                return runs

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], started_unix_ms: int) -> str:
        """Begins a run; returns its id."""
        listed = [{"key": key, "value": value} for key, value in tags.items()]
        request = {"experiment_id": experiment_id, "run_name": name, "start_time": started_unix_ms, "tags": listed}
        return str(self._ask("runs/create", request)["run"]["info"]["run_id"])

    def log(self, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """Adds parameters and metrics to a run."""
        now = _now()
        request = {
            "run_id": run_id,
            "params": [{"key": key, "value": value} for key, value in params.items()],
            "metrics": [{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in metrics.items()],
        }
        self._ask("runs/log-batch", request)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Sets a tag of a run; MlflowRefused if the run was deleted or does not exist."""
        self._ask("runs/set-tag", {"run_id": run_id, "key": key, "value": value})

    def end_run(self, run_id: str, status: str) -> None:
        """Ends a run as FINISHED or FAILED."""
        self._ask("runs/update", {"run_id": run_id, "status": status, "end_time": _now()})

    def delete_run(self, run_id: str) -> None:
        """Deletes a run, which MLflow keeps in its bin."""
        self._ask("runs/delete", {"run_id": run_id})

    def restore_run(self, run_id: str) -> None:
        """Takes a run out of the bin."""
        self._ask("runs/restore", {"run_id": run_id})

    def _ask(
        self, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        url = f"{self.url}/api/2.0/mlflow/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **_authorization()}
        request = urllib.request.Request(url, data, headers)  # noqa: S310 - the scheme is checked
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            if error.code >= 500 or error.code in _PASSING:
                raise MlflowAway(f"MLflow at {self.url} failed on {path} (HTTP {error.code})") from error
            raise MlflowRefused(self.url, path, error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MlflowAway(f"MLflow at {self.url} did not answer {path}: {error}") from error


class MlflowAway(StepError):
    """The server does not answer, or cannot do its work."""


class MlflowRefused(StepError):
    """The server answered with an error; `code` is MLflow's word for it."""

    def __init__(self, url: str, path: str, error: urllib.error.HTTPError) -> None:
        try:
            text = error.read(100_000).decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException):
            text = error.reason
        try:
            answer = dict(json.loads(text))
        except (ValueError, TypeError):
            answer = {}
        self.code = str(answer.get("error_code", ""))
        message = str(answer.get("message") or text)[:500]
        super().__init__(f"MLflow at {url} refused {path} (HTTP {error.code} {self.code}): {message}")


def _run(row: Mapping[str, Any]) -> ServerRun:
    info = row["info"]
    return ServerRun(
        run_id=str(info["run_id"]),
        is_finished=info.get("status") == "FINISHED",
        is_deleted=info.get("lifecycle_stage") == "deleted",
        started_unix_ms=int(info.get("start_time", 0)),
        tags={tag["key"]: tag["value"] for tag in row.get("data", {}).get("tags", [])},
    )


def _authorization() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"Authorization": f"Bearer {token}"}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if user and password:
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    return {}


def _now() -> int:
    return int(time.time() * 1000)
