"""spark-submit on the worker itself, by the hook of Airflow's provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

from .dag_yarn import connection


class LocalSparkSubmitHook(SparkSubmitHook):
    """spark-submit on the worker itself; needs no connection in Airflow."""

    def __init__(self, *, cores: int, **kwargs: Any) -> None:
        self._cores = cores
        super().__init__(**kwargs)

    def _resolve_connection(self) -> dict[str, Any]:
        return connection(f"local[{self._cores}]", spark_binary=self.spark_binary)

    def _process_spark_submit_log(self, itr: Iterator[str]) -> None:
        # The provider strips each line, and a traceback without its indentation is hard to read.
        for line in itr:
            self.log.info("%s", line.rstrip())
