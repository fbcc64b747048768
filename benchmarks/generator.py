"""A seeded log of interactions: items drawn by Zipf's law, users by how active they are, moments in order."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

_BLOCK = 1_000_000


def write_log(path: Path, rows: int, *, users: int = 6040, items: int = 3700, seed: int = 42) -> None:
    """Writes `rows` interactions as CSV (user_id, item_id, rating 1 to 5, timestamp), of which about 83 % are positive.

    The defaults are MovieLens-1M's users and items. A pair may come more than once.
    """
    chance = np.random.default_rng(seed)
    popularity = 1.0 / np.arange(1, items + 1) ** 0.8
    activity = chance.gamma(0.7, size=users) + 0.05
    # Each user likes some kinds of items more than others, so that there is something to learn.
    kinds = chance.integers(0, 20, items)
    taste = chance.integers(0, 20, (users, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.csv.CSVWriter(path, _schema()) as writer:
        written = 0
        while written < rows:
            count = min(_BLOCK, rows - written)
            user = chance.choice(users, count, p=activity / activity.sum())
            item = chance.choice(items, count, p=popularity / popularity.sum())
            other = chance.choice(items, count, p=popularity / popularity.sum())
            liked = (kinds[other][:, None] == taste[user]).any(axis=1)
            item = np.where(liked, other, item)
            rating = chance.choice([1, 2, 3, 4, 5], count, p=[0.06, 0.11, 0.27, 0.35, 0.21])
            moment = 978_300_000 + np.sort(chance.integers(0, 50, count)) + written * 50 // 1000
            writer.write_table(pa.table([user + 1, item + 1, rating, moment], schema=_schema()))
            written += count


def _schema() -> pa.Schema:
    return pa.schema([(name, pa.int64()) for name in ("user_id", "item_id", "rating", "timestamp")])


if __name__ == "__main__":
    write_log(Path(sys.argv[1]), int(sys.argv[2]))
