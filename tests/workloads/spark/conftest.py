"""One Spark session for all tests of the Spark engine."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dags.dag_jvm import ARCHIVE_VARIABLE, jvm_conf
from dags.workloads.engines.spark import SparkEngine

ARCHIVE = next(Path(sys.prefix).glob("spark-classes-*.jsa"), None)
JVM = jvm_conf({ARCHIVE_VARIABLE: str(ARCHIVE)}, light=True)
os.environ.update(
    PYSPARK_PYTHON=sys.executable,
    PYTHONPATH=os.pathsep.join(path for path in sys.path if path),
    SPARK_LOCAL_IP="127.0.0.1",
    PYSPARK_SUBMIT_ARGS=(
        "--master local[2] --driver-memory 2g --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=3 "
        "--conf spark.default.parallelism=3 --conf spark.driver.host=127.0.0.1 "
        f"--conf {shlex.quote('spark.driver.extraJavaOptions=' + JVM['spark.driver.extraJavaOptions'])} "
        "--conf spark.sql.execution.arrow.pyspark.enabled=true pyspark-shell"
    ),
)


# Of libraries, about themselves; none of our calls could be written otherwise.
WARNINGS_OF_OTHERS = (
    # py4j leaves its sockets to the garbage collector.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:distutils Version classes are deprecated:DeprecationWarning:pyspark",
    "ignore:is_categorical_dtype is deprecated:DeprecationWarning:pyspark",
    "ignore:fetch_arrow_table:DeprecationWarning:ibis",
    # RePlay's models can be tuned by optuna, which is not installed, and its SLIM collects what it trains on.
    "ignore:Optimization feature not enabled",
    "ignore:Spark Data Frame is collected to master node",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves the summary to warnings of our own."""
    for item in items:
        for warning in WARNINGS_OF_OTHERS:
            item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def spark_engine() -> Iterator[SparkEngine]:
    engine = SparkEngine()
    engine.session.sparkContext.setLogLevel("ERROR")
    stop = engine.close
    patch = pytest.MonkeyPatch()
    # Steps stop their session at the end; the tests' steps share one.
    patch.setattr(SparkEngine, "close", lambda self: None)
    yield engine
    patch.undo()
    stop()


@contextmanager
def cut(engine: SparkEngine, partitions: int) -> Iterator[None]:
    """Files and shuffles in so many partitions."""
    conf = engine.session.conf
    read = SparkEngine.read
    patch = pytest.MonkeyPatch()
    patch.setattr(SparkEngine, "read", lambda self, path: read(self, path).repartition(partitions))
    before = {name: conf.get(name) for name in ("spark.sql.shuffle.partitions", "spark.sql.adaptive.enabled")}
    conf.set("spark.sql.shuffle.partitions", str(partitions))
    conf.set("spark.sql.adaptive.enabled", "false")
    try:
        yield
    finally:
        patch.undo()
        for name, value in before.items():
            conf.set(name, value)
