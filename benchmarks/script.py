"""The experiment as a data scientist would type it on one machine: a peer to measure against, not ours to improve.

Arguments: the log (CSV), how many neighbours and factors, where to write the answer (JSON: metrics). implicit's ALS and
cosine neighbours, popularity, LightGBM's ranker on pandas, on the same split as ours: by time within each user.
"""

import json
import sys

import lightgbm
import numpy as np
import pandas as pd
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

TOP = 100


def split(log: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Positives of each user by time: the last fifth is the test, of the rest the last quarter the second level's."""
    log = log.sort_values("timestamp", kind="stable").drop_duplicates(["user_id", "item_id"], keep="last")
    log = log[log.rating >= 3].sort_values(["user_id", "timestamp"], kind="stable")
    size = log.groupby("user_id")["item_id"].transform("size")
    from_end = size - log.groupby("user_id").cumcount() - 1
    test = from_end < size // 5
    second = ~test & (from_end < size // 5 + (size - size // 5) // 4)
    return log[~test & ~second], log[second], log[test]


def candidates(train: pd.DataFrame, queries: np.ndarray, neighbours: int, factors: int) -> pd.DataFrame:
    """The best unseen items of three models, as one table of scores and ranks."""
    seen = csr_matrix((np.ones(len(train), np.float32), (train.user, train.item)))
    popular = np.asarray(seen.sum(axis=0)).ravel()
    als = AlternatingLeastSquares(factors=factors, random_state=42, iterations=10)
    knn = CosineRecommender(K=neighbours)
    tables = []
    with threadpool_limits(1, "blas"):
        for name, model in (("als", als), ("knn", knn)):
            model.fit(seen, show_progress=False)
            items, scores = model.recommend(queries, seen[queries], N=TOP, filter_already_liked_items=True)
            tables.append(table(name, queries, items, scores))
    order = np.argsort(-popular, kind="stable")
    history = train.groupby("user")["item"].agg(set)
    proposals = [
        [item for item in order[: TOP + len(history.get(q, ()))] if item not in history.get(q, ())][:TOP]
        for q in queries
    ]
    items = np.array([row + [-1] * (TOP - len(row)) for row in proposals])
    tables.append(table("popular", queries, items, popular[items]))
    whole = tables[0]
    for column in tables[1:]:
        whole = whole.merge(column, on=["user", "item"], how="outer")
    whole["user_count"] = whole.user.map(train.user.value_counts())
    whole["item_count"] = whole.item.map(train.item.value_counts())
    return whole


def table(name: str, queries: np.ndarray, items: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Recommendations as rows."""
    rank = np.tile(np.arange(1, items.shape[1] + 1), len(queries))
    frame = pd.DataFrame({"user": np.repeat(queries, items.shape[1]), "item": items.ravel()})
    frame[f"{name}_score"], frame[f"{name}_rank"] = scores.ravel(), rank
    return frame[frame.item >= 0]


def ndcg(frame: pd.DataFrame, score: str, truth: pd.DataFrame) -> float:
    """NDCG@10 over the users of the truth."""
    best = frame.dropna(subset=[score]).sort_values(["user", score, "item"], ascending=[True, False, True])
    best = best.groupby("user").head(10)
    place = best.groupby("user").cumcount() + 1
    hits = best.merge(truth[["user", "item"]].assign(hit=1), on=["user", "item"], how="left").hit.fillna(0).to_numpy()
    gain = pd.Series(hits / np.log2(place.to_numpy() + 1)).groupby(best.user.to_numpy()).sum()
    ideal = truth.groupby("user").size().map(lambda n: (1 / np.log2(np.arange(2, min(n, 10) + 2))).sum())
    return float((gain.reindex(ideal.index).fillna(0) / ideal).mean())


def main() -> None:
    """Runs the experiment and writes the metrics."""
    log, neighbours, factors, answer = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    first, second, test = split(pd.read_csv(log))
    merged = pd.concat([first, second])
    for key in ("user", "item"):
        ids = pd.Index(np.sort(merged[f"{key}_id"].unique()))
        for part in (first, second, test, merged):
            part[key] = ids.get_indexer(part[f"{key}_id"])
    test = test[test.item >= 0]
    train = candidates(first, np.sort(second.user.unique()), neighbours, factors)
    train = train.merge(second[["user", "item"]].assign(target=1), on=["user", "item"], how="left").fillna(
        {"target": 0}
    )
    chance = np.random.default_rng(42)
    train["chance"] = chance.random(len(train))
    train = train[train.groupby("user").target.transform("sum") > 0]
    place = train.sort_values("chance").groupby(["user", "target"]).cumcount()
    train = train[(train.target == 1) | (place.reindex(train.index) < 30)].sort_values("user")
    features = [name for name in train.columns if name.endswith(("_score", "_rank", "_count"))]
    ranker = lightgbm.LGBMRanker(
        n_estimators=100, learning_rate=0.03, num_leaves=15, min_child_samples=100, colsample_bytree=0.9, verbosity=-1
    )
    ranker.fit(train[features], train.target, group=train.groupby("user").size().to_numpy())
    predict = candidates(merged, np.sort(test.user.unique()), neighbours, factors)
    predict["second_score"] = ranker.predict(predict[features])
    scores = ("als_score", "knn_score", "popular_score", "second_score")
    with open(answer, "w") as file:
        json.dump({score: ndcg(predict, score, test) for score in scores}, file)


main()
