"""Ranking metrics on arrays, as defined in replay.metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer]


def measure(
    recommended: tuple[Integers, Integers, Integers], truth: tuple[Integers, Integers], ks: Sequence[int]
) -> dict[str, float]:
    """NDCG, MAP, HitRate and Recall at each k, averaged over the queries of `truth`.

    `recommended` has query, item and rank (from 1) of each row, `truth` query and item, each pair once. A query without
    recommendations counts as 0. Keys look like `NDCG.10`.
    """
    queries, relevant = np.unique(truth[0], return_counts=True)
    query, item, rank = _of_queries(recommended, queries, max(ks))
    hit = _is_in(query, item, np.searchsorted(queries, truth[0]), truth[1])
    query, rank = query[hit], rank[hit]
    order = np.lexsort((rank, query))
    query, rank = query[order], rank[order]
    # The position of a hit among those of its query, from 1.
    place = np.arange(len(query)) - np.searchsorted(query, query) + 1
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(max(ks)) + 2))])

    def per_query(k: int, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.bincount(query[rank <= k], weights[rank <= k], minlength=len(queries))

    measured = {}
    for k in ks:
        reachable = np.minimum(relevant, k)
        hits = per_query(k, np.ones(len(query)))
        measured[f"NDCG.{k}"] = (per_query(k, 1.0 / np.log2(rank + 1.0)) / ideal[reachable]).mean()
        measured[f"MAP.{k}"] = (per_query(k, place / rank) / reachable).mean()
        measured[f"HitRate.{k}"] = (hits > 0).mean()
        measured[f"Recall.{k}"] = (hits / relevant).mean()
    return {name: float(value) for name, value in measured.items()}


def _of_queries(
    recommended: tuple[Integers, Integers, Integers], queries: Integers, top: int
) -> tuple[Integers, Integers, Integers]:
    """Rows of the given queries up to rank `top`, with the query's position instead of its id."""
    query, item, rank = recommended
    if not len(queries):
        raise ValueError("there are no queries to evaluate")
    position = np.minimum(np.searchsorted(queries, query), len(queries) - 1)
    kept = (queries[position] == query) & (rank <= top)
    return position[kept], item[kept], rank[kept]


def _is_in(query: Integers, item: Integers, true_query: Integers, true_item: Integers) -> npt.NDArray[np.bool_]:
    items = int(max(item.max(initial=0), true_item.max(initial=0))) + 1
    keys = query.astype(np.int64) * items + item
    return np.isin(keys, true_query.astype(np.int64) * items + true_item)
