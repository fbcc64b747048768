"""The engine on Spark: local[n], or an application on YARN."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
from pyspark.sql import DataFrame, SparkSession

from ...artifacts import Artifact
from ...storage import LocalPath, StoragePath

if TYPE_CHECKING:
    import ibis.expr.types as ir


class SparkEngine:
    """Tables as Spark's data frames, in the session that spark-submit has configured."""

    name = "spark"

    def __init__(self, exchange: StoragePath | None = None) -> None:
        self._exchange = exchange
        self._names = (f"replayctl_{number}" for number in itertools.count())
        self.session = SparkSession.builder.getOrCreate()
        self.session.sparkContext.setLogLevel("WARN")
        self._connection = ibis.pyspark.connect(self.session)
        self._kept: list[DataFrame] = []

    def file(self, path: Path) -> ir.Table:
        """One Parquet file of this machine as a table; executors on other machines read it from `exchange`."""
        shared: StoragePath = LocalPath(path)
        if self._exchange is not None and not self.session.sparkContext.master.startswith("local"):
            self._exchange.make_folder()
            shared = self._exchange / path.name
            with path.open("rb") as content:
                shared.write(content)
        return self._named(self.read(shared.uri))

    def table(self, artifact: Artifact, name: str) -> ir.Table:
        """One table of an artifact; ArtifactError when it has no such table."""
        return self._named(self.frame(artifact, name))

    def frame(self, artifact: Artifact, name: str) -> DataFrame:
        """One table of an artifact as a data frame; ArtifactError when it has no such table."""
        artifact.parts(name)
        return self.read((artifact.folder / name).uri)

    def frames(self, artifact: Artifact, names: Sequence[str]) -> DataFrame:
        """The rows of several tables together."""
        return reduce(DataFrame.unionByName, [self.frame(artifact, name) for name in names])

    def read(self, uri: str) -> DataFrame:
        """Parquet as a data frame. Spark takes addresses for patterns."""
        return self.session.read.parquet("".join(f"\\{letter}" if letter in "\\*?[]{}," else letter for letter in uri))

    def keep(self, table: ir.Table) -> ir.Table:
        """The same table, computed when it is first used, and cached."""
        frame = self.to_frame(table).cache()
        self._kept.append(frame)
        return self._named(frame)

    def write(self, table: ir.Table, artifact: Artifact, name: str) -> None:
        """Writes a table as a folder of Parquet files."""
        self.write_frame(self.to_frame(table), artifact, name)

    def write_frame(self, frame: DataFrame, artifact: Artifact, name: str) -> None:
        """Writes a data frame as a folder of Parquet files."""
        frame.write.parquet((artifact.folder / name).uri)

    def values(self, table: ir.Table) -> list[dict[str, object]]:
        """The rows of a small table."""
        return [row.asDict() for row in self.to_frame(table).collect()]

    def to_frame(self, table: ir.Table) -> DataFrame:
        """An expression over this engine's tables as a data frame."""
        return self.session.sql(self._connection.compile(table))

    def close(self) -> None:
        """Stops the session."""
        for frame in self._kept:
            frame.unpersist()
        self.session.stop()

    def _named(self, frame: DataFrame) -> ir.Table:
        name = next(self._names)
        frame.createOrReplaceTempView(name)
        return self._connection.table(name)
