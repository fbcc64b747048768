"""One Spark session for all tests of the Spark engine."""

import os
import sys
from collections.abc import Iterator

import pytest

os.environ.update(
    PYSPARK_PYTHON=sys.executable,
    PYTHONPATH=os.pathsep.join(path for path in sys.path if path),
    SPARK_LOCAL_IP="127.0.0.1",
    PYSPARK_SUBMIT_ARGS=(
        "--master local[2] --driver-memory 2g --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=3 "
        "--conf spark.default.parallelism=3 --conf spark.driver.host=127.0.0.1 "
        "--conf spark.driver.extraJavaOptions=-XX:+UseSerialGC "
        "--conf spark.sql.execution.arrow.pyspark.enabled=true pyspark-shell"
    ),
)

from dags.workloads.engines.spark import SparkEngine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """py4j leaves its sockets to the garbage collector; that is not ours to mend."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
        item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


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
