"""First-level models: the results of fits, and the one scorer that proposes items with them.

The result of a fit is small compared with the interactions and can score a block of queries; `scorer` does the rest:
unseen items, the best k, ties. `fits` has the fits of the embedded engine, `replay_fits` those of RePlay on Spark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int32]


class Model(Protocol):
    """A fitted model: everything that scoring needs, and small enough to be sent to every worker."""

    def scores(self, queries: Ids, seen: csr_matrix) -> Floats:
        """Scores of every item (columns) for some queries (rows), -inf where the model proposes nothing.

        `seen` has one row per query of `queries`, with a 1 for each item of its history.
        """


@dataclass(frozen=True, slots=True)
class ItemScores:
    """The same scores for all queries, such as popularity; -inf for items that were not seen in training."""

    items: Floats

    def scores(self, queries: Ids, seen: csr_matrix) -> Floats:
        """See Model."""
        return np.broadcast_to(self.items, (len(queries), len(self.items)))


@dataclass(frozen=True, slots=True)
class ItemSimilarities:
    """Sums of similarities from the items of a history (rows) to others (columns)."""

    matrix: csr_matrix

    def scores(self, queries: Ids, seen: csr_matrix) -> Floats:
        """See Model. Items without a similar one in the history are not proposed."""
        summed: Floats = (seen @ self.matrix).toarray()
        summed[summed == 0.0] = -np.inf
        return summed


@dataclass(frozen=True, slots=True)
class Factors:
    """Scalar products of factors; rows of queries or items without any are NaN."""

    queries: npt.NDArray[np.float32]
    items: npt.NDArray[np.float32]

    def scores(self, queries: Ids, seen: csr_matrix) -> Floats:
        """See Model. Queries and items that were not seen in training get nothing."""
        product = self.queries[queries] @ self.items.T
        return np.where(np.isnan(product), -np.inf, product).astype(np.float64)
