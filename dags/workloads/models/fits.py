"""Fits with sparse algebra for both engines, and the embedded engine's ALS.

Arguments have the names of RePlay's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from ...model_parameters import unknown_parameters
from ..context import StepError
from . import Factors, Floats, Ids, ItemScores, ItemSimilarities, Model
from .bounds import check_parameters
from .workers import Workers

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

_ITEM_BLOCK = 512
_REGRESSION_BLOCK = 64
# Spark's ALS weighs the regularisation by each row's number of interactions, implicit's does not. On the second
# level's labels of ml100k, NDCG@10 is .1796 with 0.01, .1825 with 5, .1833 with 8, .1862 with 12, .1505 with 40.
_ALS_REGULARIZATION = 8.0
_ALS_ITERATIONS = 10


@dataclass(frozen=True, slots=True)
class Interactions:
    """The training data of a model: parallel arrays with a row per interaction, and the numbers of ids."""

    query: Ids
    item: Ids
    rating: Floats
    timestamp: npt.NDArray[np.int64]
    shape: tuple[int, int]

    def seen(self) -> csr_matrix:
        """Queries by items, 1 where there is an interaction."""
        matrix = csr_matrix((np.ones(len(self.query)), (self.query, self.item)), shape=self.shape)
        matrix.data[:] = 1.0
        return matrix


def fit(class_path: str, kwargs: Mapping[str, Any], interactions: Interactions, workers: Workers) -> Model:
    """A model by RePlay's class path and keyword arguments.

    Raises StepError for a class or argument that the embedded engine does not support, or a value out of bounds.
    """
    check_parameters(class_path, kwargs)
    if class_path not in FITS:
        raise StepError(
            f"the embedded engine has no model {class_path!r} (it has {', '.join(sorted(FITS))}): run the step on "
            "Spark, with `replayctl run EXPERIMENT --engine spark` or engine='spark' in its spec"
        )
    compute = FITS[class_path]
    arguments = inspect.signature(compute).parameters.values()
    known = [argument.name for argument in arguments if argument.kind is argument.KEYWORD_ONLY]
    if trouble := unknown_parameters(class_path, kwargs, known):
        raise StepError(trouble)
    return compute(interactions, workers, **kwargs)


def fit_popularity(interactions: Interactions, workers: Workers, *, use_rating: bool = False) -> Model:
    """PopRec: the share of queries that have the item (as replay.models.PopRec), or the sum of ratings over them."""
    weights = interactions.rating if use_rating else None
    totals = np.bincount(interactions.item, weights, minlength=interactions.shape[1])
    known = np.bincount(interactions.item, minlength=interactions.shape[1]) > 0
    return ItemScores(np.where(known, totals / len(np.unique(interactions.query)), -np.inf))


def fit_item_knn(
    interactions: Interactions,
    workers: Workers,
    *,
    num_neighbours: int = 10,
    use_rating: bool = False,
    shrink: float = 0.0,
    weighting: str | None = None,
) -> Model:
    """ItemKNN: cosine similarity of items to their nearest ones (as replay.models.ItemKNN).

    Of equally similar items, those with the greater ids are used.
    """
    from scipy.sparse import vstack

    values = interactions.rating if use_rating else np.ones(len(interactions.rating))
    matrix = csr_matrix((values, (interactions.query, interactions.item)), shape=interactions.shape)
    if weighting is not None:
        matrix = _reweighted(matrix, weighting)
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel())
    nearest = _Nearest(matrix, matrix.T.tocsr(), norms, num_neighbours, shrink)
    return ItemSimilarities(vstack(workers.map(nearest, range(0, matrix.shape[1], _ITEM_BLOCK)), format="csr"))


@dataclass(frozen=True, slots=True)
class _Nearest:
    """The nearest items of a block of items that starts at a number: rows of the matrix of similarities."""

    matrix: csr_matrix
    columns: csr_matrix
    norms: Floats
    neighbours: int
    shrink: float

    def __call__(self, start: int) -> csr_matrix:
        items = self.matrix.shape[1]
        rows = np.arange(start, min(start + _ITEM_BLOCK, items))
        similar = (self.columns[rows] @ self.matrix).tocsr()
        one = np.repeat(rows, np.diff(similar.indptr))
        other = similar.indices
        data = similar.data / (self.norms[one] * self.norms[other] + self.shrink)
        kept = one != other
        one, other, data = one[kept], other[kept], data[kept]
        order = np.lexsort((-other, -data, one))
        one, other, data = one[order], other[order], data[order]
        place = np.arange(len(one)) - np.searchsorted(one, rows)[one - start]
        best = place < self.neighbours
        return csr_matrix((data[best], (one[best] - start, other[best])), shape=(len(rows), items))


def _reweighted(matrix: csr_matrix, weighting: str) -> csr_matrix:
    matrix = matrix.copy()
    items = len(np.unique(matrix.indices))
    lengths = np.diff(matrix.indptr)
    if weighting == "bm25":
        per_item = np.bincount(matrix.indices, minlength=matrix.shape[1])
        relative = per_item[matrix.indices] / (len(matrix.data) / items)
        matrix.data = matrix.data * 2.2 / (matrix.data + 1.2 * (0.25 + 0.75 * relative))
        idf = np.log1p((items - lengths + 0.5) / (lengths + 0.5))
    else:
        idf = np.log1p(items / np.maximum(lengths, 1))
    matrix.data = matrix.data * np.repeat(idf, lengths)
    return matrix


def fit_als(
    interactions: Interactions,
    workers: Workers,
    *,
    rank: int = 10,
    implicit_prefs: bool = True,
    seed: int | None = None,
) -> Model:
    """ALS by implicit (Hu, Koren and Volinsky 2008); its initial values, solver and factors differ from Spark's."""
    if not implicit_prefs:
        raise StepError("the embedded engine has ALS for implicit feedback only: run the step on Spark")
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    # Confidence 2 for an interaction and 1 for the rest, as Spark's alpha = 1 gives.
    model = AlternatingLeastSquares(
        factors=rank,
        regularization=_ALS_REGULARIZATION,
        alpha=2.0,
        iterations=_ALS_ITERATIONS,
        num_threads=workers.threads,
        random_state=seed if seed is not None else 0,
        dtype=np.float32,
    )
    matrix = interactions.seen().astype(np.float32)
    with threadpool_limits(1, "blas"):
        model.fit(matrix, show_progress=False)
    queries, items = np.array(model.user_factors), np.array(model.item_factors)
    queries[np.diff(matrix.indptr) == 0] = np.nan
    items[np.bincount(matrix.indices, minlength=matrix.shape[1]) == 0] = np.nan
    return Factors(queries, items)


def fit_slim(
    interactions: Interactions,
    workers: Workers,
    *,
    beta: float = 0.01,
    lambda_: float = 0.01,
    seed: int | None = None,
) -> Model:
    """SLIM: each item regressed on all others by scikit-learn's elastic net (as replay.models.SLIM).

    RePlay computes the same regressions, so with a seed, the similarities are the same; without one, its are random.
    """
    from scipy.sparse import csc_matrix, hstack

    # The numbers of queries and items affect the regression: RePlay counts up to the greatest id.
    shape = (int(interactions.query.max()) + 1, int(interactions.item.max()) + 1)
    matrix = csc_matrix((interactions.rating, (interactions.query, interactions.item)), shape=shape)
    regress = _ElasticNets(matrix, beta, lambda_, seed if seed is not None else 0)
    similar = hstack(workers.map(regress, range(0, shape[1], _REGRESSION_BLOCK)), format="csr")
    similar.resize((interactions.shape[1],) * 2)
    return ItemSimilarities(similar)


@dataclass(frozen=True, slots=True)
class _ElasticNets:
    """Regressions of a block of items, which starts at a number, on all others: columns of positive coefficients."""

    matrix: csc_matrix
    beta: float
    lambda_: float
    seed: int

    def __call__(self, start: int) -> csc_matrix:
        from scipy.sparse import csc_matrix, hstack
        from sklearn.linear_model import ElasticNet

        strength = self.beta + self.lambda_
        net = ElasticNet(
            alpha=strength,
            l1_ratio=self.lambda_ / strength,
            fit_intercept=False,
            max_iter=5000,
            random_state=self.seed,
            selection="random",
            positive=True,
        )
        # Each regression removes its own item from the matrix for a moment, while others run.
        matrix = self.matrix.copy()
        columns = []
        for item in range(start, min(start + _REGRESSION_BLOCK, matrix.shape[1])):
            place = slice(matrix.indptr[item], matrix.indptr[item + 1])
            ratings = matrix.data[place].copy()
            coefficients = np.zeros(matrix.shape[1])
            if len(ratings):
                target = matrix[:, [item]].toarray().ravel()
                matrix.data[place] = 0.0
                coefficients = np.maximum(net.fit(matrix, target).coef_, 0.0)
                matrix.data[place] = ratings
            columns.append(csc_matrix(coefficients[:, None]))
        return hstack(columns, format="csc")


FITS: Mapping[str, Callable[..., Model]] = {
    "replay.models.PopRec": fit_popularity,
    "replay.models.ItemKNN": fit_item_knn,
    "replay.models.SLIM": fit_slim,
    "replay.models.ALSWrap": fit_als,
}
# These compute on the workers that they get, so Spark supports them, too.
ON_ANY_WORKERS = frozenset({"replay.models.PopRec", "replay.models.ItemKNN", "replay.models.SLIM"})
