"""The context of a workload: its parameters, the artifacts of its inputs, and the engine, which starts on demand."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..artifacts import Artifact
from ..storage import StoragePath
from .engines import Engine, open_engine

log = logging.getLogger("replay")


class StepError(ValueError):
    """A step cannot be computed for a reason that the user can fix; the message names it."""


@dataclass(frozen=True)
class Input:
    """One input of a step: its workload, its parameters, and the artifact itself."""

    workload: str
    label: str
    identity: str
    parameters: Mapping[str, Any]
    artifact: Artifact

    @property
    def column(self) -> str:
        """A name for columns that are computed from this input; it depends on the artifact and not on its label."""
        kind = str(self.parameters.get("class_path", self.workload)).rpartition(".")[2]
        return f"{kind}_{self.identity[:6]}"


class StepContext:
    """One step as its workload sees it.

    `document` comes from `Deployment.step_document`, with `run` and `force` added. `scratch` is a folder for data that
    do not fit into memory, and `exchange` one that executors can read, or None if they can read `scratch`. Both are
    removed after the step.
    """

    def __init__(self, document: Mapping[str, Any], scratch: Path, exchange: StoragePath | None = None) -> None:
        self.document = document
        self.scratch = scratch
        self.exchange = exchange
        self.parameters: Mapping[str, Any] = document["parameters"]
        self.dataset: str = document["dataset"]
        self.data_root: str = document["data_root"]
        self.cores: int = document["cores"]
        self.memory_gib: int = document["memory_gib"]
        self.inputs = tuple(
            Input(
                entry["workload"],
                entry["label"],
                entry["identity"],
                entry["parameters"],
                Artifact(entry["path"], document.get("hdfs")),
            )
            for entry in document["inputs"]
        )

    def input(self, workload: str) -> Input:
        """The only input that `workload` has computed; LookupError if there is none or more than one."""
        matching = [entry for entry in self.inputs if entry.workload == workload]
        if len(matching) != 1:
            raise LookupError(
                f"step {self.document['step']}: {len(matching)} inputs of workload {workload!r}, expected 1"
            )
        return matching[0]

    @cached_property
    def engine(self) -> Engine:
        """The engine of this step, started when it is first used."""
        return open_engine(
            self.document["engine"],
            cores=self.cores,
            memory_gib=self.memory_gib,
            scratch=self.scratch,
            exchange=self.exchange,
        )

    def close(self) -> None:
        """Stops the engine if it was started."""
        if "engine" in self.__dict__:
            self.engine.close()
