"""The best unseen items of every query, a block of queries at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from . import Floats, Ids, Model

CANDIDATES = pa.schema(
    [("query_id", pa.int32()), ("item_id", pa.int32()), ("score", pa.float64()), ("rank", pa.int32())]
)
# The ids of a block's queries have the same quotient, so a block is the same however the work is divided, and so are
# the last bits of the sums in a matrix product.
BLOCK = 256


def propose(model: Model, seen: csr_matrix, queries: Ids, top: int, *, threads: int) -> Iterator[pa.Table]:
    """Candidates (query_id, item_id, score, rank from 1) of the given queries, which are ascending.

    `seen` is the history of all queries: rows are queries, columns items, values 1. Blocks are computed in threads
    and come in order; only a few of them are in memory at once.
    """
    from threadpoolctl import threadpool_limits

    # The blocks run in parallel; libraries with threads of their own would compete with them.
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[pa.Table]] = deque()
        for block in blocks(queries):
            pending.append(pool.submit(best, model, block, seen[block], top))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def blocks(queries: Ids) -> list[Ids]:
    """The given queries, which are ascending, divided into blocks."""
    borders = np.flatnonzero(np.diff(queries // BLOCK)) + 1
    return np.split(queries, borders) if len(queries) else []


def best(model: Model, queries: Ids, seen: csr_matrix, top: int) -> pa.Table:
    """Candidates of one block: at most `top` items per query, without those in its row of `seen`.

    Equal scores are ordered by item.
    """
    scores = np.array(model.scores(queries, seen), copy=True)
    rows, columns = seen.nonzero()
    scores[rows, columns] = -np.inf
    rows, columns = np.nonzero(scores >= _thresholds(scores, top)[:, None])
    values = scores[rows, columns]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.searchsorted(rows, np.arange(len(queries)))
    ranks = np.arange(len(rows)) - starts[rows] + 1
    kept = ranks <= top
    arrays = [queries[rows[kept]], columns[kept].astype(np.int32), values[kept], ranks[kept].astype(np.int32)]
    return pa.table(arrays, schema=CANDIDATES)


def _thresholds(scores: Floats, top: int) -> Floats:
    """The `top`-th greatest score of each row, or the smallest number if the row has fewer."""
    lowest = np.finfo(np.float64).min
    if scores.shape[1] <= top:
        return np.full(len(scores), lowest)
    place = scores.shape[1] - top
    return np.maximum(np.partition(scores, place, axis=1)[:, place], lowest)
