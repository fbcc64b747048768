"""Steps on YARN: submitted once in cluster mode, followed to their end, and never left behind without a task.

The ResourceManager is asked by its REST API, by the tags that every submission carries; so a try finds the application
of an earlier one whose worker was lost, and follows it instead of submitting a second.
https://hadoop.apache.org/docs/r3.4.1/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

import contextlib
from typing import Any

import requests
from airflow.exceptions import AirflowException
from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

_LIVE_STATES = "NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING"
_TIMEOUT_S = 30


class YarnSparkSubmitHook(SparkSubmitHook):
    """spark-submit in cluster mode and its application, without a connection of Airflow's.

    `url` is the ResourceManager's web address as workers see it; `instance_tag` is the one that all applications of
    this task instance carry, and no other.
    """

    def __init__(self, *, url: str, instance_tag: str, **kwargs: Any) -> None:
        self._url = url.rstrip("/")
        self._instance_tag = instance_tag
        super().__init__(yarn_track_via_rm_api=True, **kwargs)

    def run(self, application: str) -> None:
        """Follows the live application of this task instance, or submits one; returns when it has succeeded.

        Raises RuntimeError with YARN's diagnostics when it ends otherwise. Whatever ends the call ends the application.
        """
        try:
            alive = self.live()
            if alive:
                self.log.info("following %s, which an earlier try has submitted", alive[0])
                self._yarn_application_id = alive[0]
            else:
                self.submit(application)
            if self._yarn_application_id is None:
                raise AirflowException("spark-submit named no application")
            self._start_yarn_application_status_tracking(self._yarn_application_id)
        except BaseException:
            self.end()
            raise

    def live(self) -> list[str]:
        """Ids of this task instance's applications that have not ended, the newest first."""
        answer = requests.get(
            f"{self._url}/ws/v1/cluster/apps",
            params={"applicationTags": self._instance_tag, "states": _LIVE_STATES},
            headers={"Accept": "application/json"},
            timeout=_TIMEOUT_S,
        )
        answer.raise_for_status()
        rows = (answer.json().get("apps") or {}).get("app") or []
        return [row["id"] for row in sorted(rows, key=lambda row: row["startedTime"], reverse=True)]

    def end(self) -> None:
        """Ends spark-submit, if it still runs, and every live application of this task instance."""
        if self._submit_sp and self._submit_sp.poll() is None:
            self._submit_sp.kill()
            self._submit_sp.wait()
        # Asked for by tag: spark-submit may have been ended before it could say which one it had submitted.
        try:
            alive = self.live()
        except requests.RequestException as error:
            self.log.warning("the ResourceManager does not tell what is left to end: %s", error)
            alive = [self._yarn_application_id] if self._yarn_application_id else []
        for each in alive:
            with contextlib.suppress(requests.RequestException):
                self._kill_yarn_application(each)

    def _resolve_connection(self) -> dict[str, Any]:
        return {
            "master": "yarn",
            "queue": self._yarn_queue,
            "deploy_mode": "cluster",
            "spark_binary": self.spark_binary or "spark-submit",
            "namespace": None,
            "principal": None,
            "keytab": None,
            "rest_scheme": "http",
            "rest_port": 6066,
            "rest_endpoint": None,
        }

    def _get_yarn_rm_base_url(self) -> str:
        return self._url
