"""The workers that compute the pieces of a fit or of the candidates: threads of this process, or Spark's workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_Result = TypeVar("_Result")


class Workers(Protocol):
    """Computes pieces in parallel. The results must not depend on the number of pieces."""

    @property
    def threads(self) -> int:
        """How many threads a library may start in this process."""

    def map(self, function: Callable[[int], _Result], pieces: Sequence[int]) -> list[_Result]:
        """The function's results in the order of the pieces; `function` holds its data and can be pickled."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of this process."""

    threads: int

    def map(self, function: Callable[[int], _Result], pieces: Sequence[int]) -> list[_Result]:
        """See Workers."""
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(function, pieces))


@dataclass(frozen=True, slots=True)
class SparkWorkers:
    """Python workers of a Spark session; the function is sent to each of them once."""

    session: SparkSession
    threads: int

    def map(self, function: Callable[[int], _Result], pieces: Sequence[int]) -> list[_Result]:
        """See Workers."""
        context = self.session.sparkContext
        sent = context.broadcast(function)

        def apply(piece: int) -> _Result:
            return sent.value(piece)

        results = context.parallelize(pieces, max(1, len(pieces))).map(apply).collect()
        sent.destroy()
        return results
