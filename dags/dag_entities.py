"""The experiments' entities: a user's namespace, data sets, resource tiers and model parameters.

Standard library only: the CLI, the DAG processor and the Spark driver all import this file. It does not read files, the
environment or the clock.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

_USER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_MAX_USER_NAME = 32
_MAX_READABLE = 60

Place = Literal["pod", "yarn"]
# The program that computes a step: one process without a JVM, or Spark, in any place.
Engine = Literal["embedded", "spark"]
# The unit of timestamps since 1970.
TimestampUnit = Literal["s", "ms", "us", "ns"]
SplitStrategy = Literal["query_time", "query_random", "global_time"]


@dataclass(frozen=True, slots=True)
class Namespace:
    """One user's corner of the shared services; `Namespace(None)` is the common one.

    Decides the suffix of dag_ids and stubs, the base path of artifacts, the MLflow experiment, the YARN tags and
    the names of Kubernetes objects. Raises ValueError for a name that is not `[a-z0-9]([a-z0-9-]*[a-z0-9])?`
    of at most 32 characters.
    """

    user: str | None

    def __post_init__(self) -> None:
        if self.user is None:
            return
        if len(self.user) > _MAX_USER_NAME or not _USER_NAME.fullmatch(self.user):
            raise ValueError(
                f"user name {self.user!r} is not valid: use at most {_MAX_USER_NAME} characters a-z, 0-9 and '-', "
                "starting and ending with a letter or a digit"
            )

    @property
    def suffix(self) -> str:
        """`_alice`; empty for the common namespace."""
        return f"_{self.user}" if self.user else ""

    @property
    def directory(self) -> str:
        """Name of the folder that holds this namespace's artifacts and releases.

        The common one has a name that no user can have.
        """
        return self.user or "_shared"

    def dag_id(self, name: str) -> str:
        """The id under which Airflow shows the DAG `name`."""
        return f"{name}{self.suffix}"

    def mlflow_experiment(self, name: str) -> str:
        """The MLflow experiment that collects the runs of the experiment `name`."""
        return f"{name}{self.suffix}"

    @property
    def yarn_tags(self) -> tuple[str, ...]:
        """Tags of every YARN application of this namespace (YARN lowers their case)."""
        return ("replay", f"replayctl-user-{self.directory}")

    def task_tags(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> tuple[str, ...]:
        """Tags of the YARN applications of one task instance, in this order: namespace, DAG, run, task, instance.

        The last one is the same for all tries of this instance, and no other instance has it.
        """
        words = (yarn_tag("dag", dag_id), yarn_tag("run", run_id), yarn_tag("task", task_id))
        return (*self.yarn_tags, *words, instance_tag(dag_id, run_id, task_id, map_index))

    def kubernetes_name(self, name: str) -> str:
        """Name of a Kubernetes object that belongs to this namespace (RFC 1123 label)."""
        return f"{name.replace('_', '-')}-{self.directory.strip('_')}"


def yarn_tag(kind: Literal["dag", "run", "task"], name: str) -> str:
    """The tag of an application for its DAG, run or task.

    YARN limits tags to 100 ASCII characters and lowercases them; a hash of the exact name tells similar names apart.
    """
    readable = re.sub(r"[^a-z0-9._-]", "-", name.lower())[:_MAX_READABLE]
    return f"replayctl-{kind}-{readable}-{_short_hash(name)}"


def instance_tag(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The tag of one task instance: all of its applications have it, and no others."""
    return f"replayctl-instance-{_short_hash(json.dumps([dag_id, run_id, task_id, map_index]), 16)}"


def artifact_tag(identity: str) -> str:
    """The tag that names the artifact that an application computes."""
    return f"replayctl-artifact-{identity}"


def _short_hash(text: str, length: int = 8) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True, slots=True)
class Resources:
    """What one step may use: cores, and memory of the whole process tree in GiB."""

    cores: int
    memory_gib: int


RESOURCE_TIERS: Mapping[str, Resources] = {
    "default": Resources(cores=6, memory_gib=30),
    "big": Resources(cores=12, memory_gib=40),
    "extra_big": Resources(cores=20, memory_gib=80),
    # A worker that only submits a step to YARN and waits for it.
    "submit": Resources(cores=1, memory_gib=2),
}


@dataclass(frozen=True, slots=True)
class Split:
    """How interactions are split into train and test, and train into its two parts.

    `test_share` of the positives goes to the test part, then `second_level_share` of the rest becomes the labels of the
    second level. `query_time` selects the last interactions of each query, `query_random` a seeded random sample of
    each query's (for data without timestamps), and `global_time` everything after one moment.
    """

    strategy: SplitStrategy = "query_time"
    test_share: float = 0.2
    second_level_share: float = 0.25
    seed: int = 42


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One data set: the location of its interactions, the meaning of its columns, and the identity of its content.

    `log_path` is relative to the data root of the deployment. `checksum` is the content checksum that the split step
    computes (see `workloads.split.content_checksum`); with None, changed data under the same name and version are not
    detected. Ratings of at least `positive_threshold` are positive interactions; without a rating column, every row is.
    `delimiter` separates the cells of a CSV file. Timestamps are integers in `timestamp_unit`; None means integers that
    only define an order.
    """

    name: str
    version: str
    log_path: str
    file_format: Literal["csv", "parquet"] = "csv"
    checksum: str | None = None
    query_column: str = "user_id"
    item_column: str = "item_id"
    rating_column: str | None = "rating"
    timestamp_column: str | None = "timestamp"
    delimiter: str = ","
    timestamp_unit: TimestampUnit | None = "s"
    positive_threshold: float = 3.0
    split: Split = field(default_factory=Split)
    model_overrides: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1:
            raise ValueError(f"data set {self.name}: delimiter {self.delimiter!r} is not one character")
        if self.timestamp_unit not in (None, *get_args(TimestampUnit)):
            raise ValueError(
                f"data set {self.name}: timestamp_unit {self.timestamp_unit!r} is not one of "
                f"{', '.join(get_args(TimestampUnit))} or None"
            )

    @property
    def identity(self) -> dict[str, object]:
        """The root of every artifact's identity: name, version and checksum of the raw data."""
        return {"name": self.name, "version": self.version, "checksum": self.checksum}


DATASETS: Mapping[str, DatasetInfo] = {
    dataset.name: dataset
    for dataset in (
        DatasetInfo(
            "ml100k",
            version="1998-04",
            log_path="replay/ml100k_ratings.csv",
            checksum="100000-54023d510bf2019a",
            model_overrides={"als": {"rank": 32}, "itemknn": {"num_neighbours": 100}},
        ),
        DatasetInfo("ml1m", version="2003-02", log_path="replay/ml1m_ratings.csv"),
        DatasetInfo("ml10m", version="2009-01", log_path="replay/ml10m_ratings.csv"),
        DatasetInfo("ml20m", version="2015-04", log_path="replay/ml20m_ratings.csv"),
        DatasetInfo("ml25m", version="2019-12", log_path="replay/ml25m_ratings.csv"),
        DatasetInfo("netflix", version="2009-09", log_path="replay/netflix_correct_timestamp.csv", timestamp_unit=None),
        DatasetInfo(
            "netflix_small",
            version="1m",
            log_path="replay_datasets/Netflix/train_1m.parquet",
            file_format="parquet",
            query_column="user_idx",
            item_column="item_idx",
            rating_column="relevance",
            timestamp_unit=None,
        ),
        DatasetInfo(
            "msd",
            version="2011-02",
            log_path="replay_datasets/MillionSongDataset/original.parquet",
            file_format="parquet",
            rating_column="play_count",
            timestamp_column=None,
            positive_threshold=1.0,
            split=Split(strategy="query_random"),
        ),
        DatasetInfo(
            "msd_small",
            version="1m",
            log_path="replay_datasets/MillionSongDataset/train_1m.parquet",
            file_format="parquet",
            rating_column="play_count",
            timestamp_column=None,
            positive_threshold=1.0,
            split=Split(strategy="query_random"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class FirstLevelModel:
    """A RePlay model by its class path and the keyword arguments of its constructor.

    `overridden` are the general values that the data set's own values have replaced; None means RePlay's default.
    """

    class_path: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    overridden: Mapping[str, object] = field(default_factory=dict)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines that have the model."""
        return ("embedded", "spark") if self.class_path in EMBEDDED_MODELS else ("spark",)


# The models that the embedded engine has, with the name of each engine's implementation if the results differ: such
# results are separate artifacts. If the mathematics are the same, an artifact of either engine serves both.
EMBEDDED_MODELS: Mapping[str, Mapping[Engine, str]] = {
    "replay.models.PopRec": {},
    "replay.models.ItemKNN": {},
    "replay.models.SLIM": {},
    "replay.models.ALSWrap": {"embedded": "implicit", "spark": "spark.ml"},
}


FIRST_LEVEL_MODELS: Mapping[str, FirstLevelModel] = {
    "als": FirstLevelModel("replay.models.ALSWrap", {"rank": 100, "seed": 42}),
    "itemknn": FirstLevelModel("replay.models.ItemKNN", {"num_neighbours": 1000}),
    "poprec": FirstLevelModel("replay.models.PopRec"),
    "slim": FirstLevelModel("replay.models.SLIM", {"seed": 42}),
    "word2vec": FirstLevelModel("replay.models.Word2VecRec", {"rank": 100, "seed": 42}),
    "ucb": FirstLevelModel("replay.models.UCB", {"seed": 42}),
}

# Chosen on ml100k by cross-validation over queries, on the second level's labels. Shallow trees and a low learning
# rate, because a model soon overfits the few thousand positives of small data.
SECOND_LEVEL_MODELS: Mapping[str, Mapping[str, object]] = {
    "lightgbm": {
        "objective": "lambdarank",
        "num_boost_round": 100,
        "learning_rate": 0.03,
        "num_leaves": 15,
        "min_data_in_leaf": 100,
        "feature_fraction": 0.9,
        "lambdarank_truncation_level": 30,
        "seed": 42,
    },
}


def model_params(*names: str, dataset: DatasetInfo | None = None) -> dict[str, FirstLevelModel]:
    """First-level models by short name, with the overrides that the data set declares.

    Raises ValueError with the known names for an unknown one.
    """
    models = {}
    for name in names:
        if name not in FIRST_LEVEL_MODELS:
            raise ValueError(f"unknown first-level model {name!r}; known: {', '.join(sorted(FIRST_LEVEL_MODELS))}")
        model = FIRST_LEVEL_MODELS[name]
        overrides = dataset.model_overrides.get(name, {}) if dataset else {}
        overridden = {key: model.parameters.get(key) for key in overrides}
        models[name] = FirstLevelModel(model.class_path, {**model.parameters, **overrides}, overridden)
    return models
