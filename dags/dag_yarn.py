"""Steps on YARN: submitted once in cluster mode, followed to their end, and ended with their task.

Every submission has tags, and a try asks the ResourceManager's REST API for them. So it finds the application of an
earlier try whose worker was lost, and follows it instead of submitting a second one.

https://hadoop.apache.org/docs/r3.4.1/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import requests
from airflow.exceptions import AirflowException
from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

_LIVE_STATES = "NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING"
_TIMEOUT_S = 30
# A restart of the ResourceManager takes a minute or two; after that, the next try may find the application again.
_PAUSES_S = (1, 2, 4, 8, 15, 30, 60)


def _without_python(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the worker's Python: in cluster mode, spark-submit passes it on to the driver's node."""
    return {name: value for name, value in environ.items() if not name.startswith("PYSPARK_")}


def connection(
    master: str, *, deploy_mode: str | None = None, queue: str | None = None, spark_binary: str | None = None
) -> dict[str, Any]:
    """Values that a hook would otherwise read from a connection in Airflow."""
    return {
        "master": master,
        "queue": queue,
        "deploy_mode": deploy_mode,
        "spark_binary": spark_binary or "spark-submit",
        "namespace": None,
        "principal": None,
        "keytab": None,
        "rest_scheme": "http",
        "rest_port": 6066,
        "rest_endpoint": None,
    }


class YarnSparkSubmitHook(SparkSubmitHook):
    """spark-submit in cluster mode and its application, without a connection in Airflow.

    `url` is the ResourceManager's web address as workers see it. All applications of this task instance have
    `instance_tag`, and no others do. `artifact_tag` names the artifact, so that an application that computes another
    one is not followed.
    """

    def __init__(self, *, url: str, instance_tag: str, artifact_tag: str, **kwargs: Any) -> None:
        self._url = url.rstrip("/")
        self._instance_tag = instance_tag
        self._artifact_tag = artifact_tag
        self._ended = False
        super().__init__(yarn_track_via_rm_api=True, **kwargs)

    def run(self, application: str) -> None:
        """Follows the live application of this task instance, or submits one; returns when it has succeeded.

        Raises RuntimeError with YARN's diagnostics if it ends otherwise, or if the ResourceManager has not answered for
        minutes; in that case the application continues, and the next try can follow it.
        """
        for row in self._asked_again(_LIVE_STATES):
            if not self._makes_the_artifact(row):
                self.log.warning("%s computes an artifact that is no longer needed: ending it", row["id"])
                self._end_application(row["id"])
            elif self._yarn_application_id is None:
                self.log.info("following %s, which an earlier try submitted", row["id"])
                self._yarn_application_id = row["id"]
        if self._yarn_application_id is None:
            self._check_not_ended()
            try:
                self.submit(application, env=_without_python(os.environ))
            finally:
                if self._ended:
                    # It was submitted while the task was being ended.
                    self.end()
            self._check_not_ended()
            # The newest one, ended or not: the output of spark-submit may name others, too.
            applications = [row["id"] for row in self._asked_again() if self._makes_the_artifact(row)]
            if not applications:
                raise AirflowException("the ResourceManager does not know what spark-submit has submitted")
            self._yarn_application_id = applications[0]
        self._start_yarn_application_status_tracking(self._yarn_application_id)

    def end(self) -> None:
        """Ends spark-submit if it still runs, and every live application of this task instance.

        Is called in a signal handler, so it does not wait for anything that the interrupted code may hold.
        """
        self._ended = True
        if self._submit_sp and self._submit_sp.returncode is None:
            self._submit_sp.kill()
        # Looked up by tag, because spark-submit may have been ended before it printed the application's ID.
        try:
            alive = [row["id"] for row in self._ask(_LIVE_STATES)]
        except requests.RequestException as error:
            self.log.error("cannot list the applications to end: %s", error)
            alive = [self._yarn_application_id] if self._yarn_application_id else []
        for application_id in alive:
            self._end_application(application_id)

    def _check_not_ended(self) -> None:
        if self._ended:
            raise AirflowException("the task was ended")

    def _makes_the_artifact(self, row: dict[str, Any]) -> bool:
        return self._artifact_tag in str(row.get("applicationTags") or "").split(",")

    def _asked_again(self, states: str | None = None) -> list[dict[str, Any]]:
        """The answer of `_ask`; repeats the request while nobody answers, but not if it is rejected."""
        for pause in _PAUSES_S:
            try:
                return self._ask(states)
            except requests.RequestException as error:
                if error.response is not None and error.response.status_code < 500:
                    raise
                self.log.warning("the ResourceManager does not answer; retrying in %d s: %s", pause, error)
                time.sleep(pause)
                self._check_not_ended()
        return self._ask(states)

    def _ask(self, states: str | None) -> list[dict[str, Any]]:
        """This task instance's applications in these states, or in any, the newest first."""
        answer = requests.get(
            f"{self._url}/ws/v1/cluster/apps",
            params={"applicationTags": self._instance_tag, "states": states},
            headers={"Accept": "application/json"},
            timeout=_TIMEOUT_S,
        )
        answer.raise_for_status()
        rows = (answer.json().get("apps") or {}).get("app") or []
        return sorted(rows, key=lambda row: row["startedTime"], reverse=True)

    def _end_application(self, name: str) -> None:
        try:
            answer = requests.put(
                f"{self._url}/ws/v1/cluster/apps/{name}/state", json={"state": "KILLED"}, timeout=_TIMEOUT_S
            )
            answer.raise_for_status()
        except requests.RequestException as error:
            self.log.warning("cannot end %s through the ResourceManager: %s", name, error)
            if not self._end_by_program(name):
                self.log.error("%s continues; end it with `yarn application -kill %s`", name, name)
            return
        self.log.info("requested the end of %s", name)

    def _end_by_program(self, name: str) -> bool:
        yarn = shutil.which("yarn")
        return yarn is not None and subprocess.run([yarn, "application", "-kill", name], check=False).returncode == 0

    def _resolve_connection(self) -> dict[str, Any]:
        return connection("yarn", deploy_mode="cluster", queue=self._yarn_queue, spark_binary=self.spark_binary)

    def _get_yarn_rm_base_url(self) -> str:
        return self._url
