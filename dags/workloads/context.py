"""What a workload gets: its parameters, its inputs' artifacts and a Spark session when it asks for one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from ..artifacts import Artifact

log = logging.getLogger("replay")


@dataclass(frozen=True)
class Input:
    """One input of a step: what made it, with which parameters, and the artifact itself."""

    workload: str
    label: str
    identity: str
    parameters: Mapping[str, Any]
    artifact: Artifact

    @property
    def column(self) -> str:
        """A name for columns made of this input: follows from what the artifact is, and not from its label."""
        kind = str(self.parameters.get("class_path", self.workload)).rpartition(".")[2]
        return f"{kind}_{self.identity[:6]}"


class StepContext:
    """One step as its workload sees it. `document` is what `Deployment.step_document` made, plus `run` and `force`."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.parameters: Mapping[str, Any] = document["parameters"]
        self.dataset: str = document["dataset"]
        self.data_root: str = document["data_root"]
        self.cores: int = document["cores"]
        self.inputs = tuple(
            Input(entry["workload"], entry["label"], entry["identity"], entry["parameters"], Artifact(entry["path"]))
            for entry in document["inputs"]
        )
        self._spark_started = False

    def input(self, workload: str) -> Input:
        """The one input made by `workload`; LookupError when there is none or several."""
        found = [entry for entry in self.inputs if entry.workload == workload]
        if len(found) != 1:
            raise LookupError(f"step {self.document['step']}: {len(found)} inputs of workload {workload!r}, expected 1")
        return found[0]

    @cached_property
    def spark(self) -> SparkSession:
        """The Spark session of this step, started at the first use and known to RePlay.

        RePlay would otherwise build one of its own, with 70 % of the machine's memory and a jar from the internet.
        """
        from replay.utils.session_handler import State

        session = SparkSession.builder.getOrCreate()
        session.sparkContext.setLogLevel("WARN")
        State(session)
        self._spark_started = True
        return session

    def read(self, entry: Input, table: str) -> DataFrame:
        """One Parquet table of an input's artifact."""
        return self.spark.read.parquet(entry.artifact.table(table))

    def close(self) -> None:
        """Stops the session if one was started."""
        if self._spark_started:
            self.spark.stop()
