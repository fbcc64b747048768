"""Uses Spark as the steps of an experiment do, for the archive of its classes: `spark_training.py FOLDER`.

Runs in the environment of the Spark engine, in the worker's image and on machines that run Spark's steps themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def main(folder: str) -> None:
    """Reads and writes Parquet, joins, aggregates, ranks, sends data through Python and fits ALS."""
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import SparkSession, Window
    from pyspark.sql import functions as F

    def unchanged(batches: Iterator[Any]) -> Iterator[Any]:
        yield from batches

    def plus_one(number: int) -> int:
        return number + int(sent.value)

    session = SparkSession.builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    path = f"file://{folder}/rows"
    numbers = session.range(0, 400, 1, 2)
    numbers.selectExpr(
        "cast(id % 20 as int) query_id", "cast(id % 31 as int) item_id", "1d rating", "id timestamp"
    ).write.parquet(path)
    rows = session.read.parquet(path).cache()
    rows.createOrReplaceTempView("rows")
    order = Window.partitionBy("query_id").orderBy(
        F.col("timestamp").desc(), F.sha2(F.col("item_id").cast("string"), 256)
    )
    ranked = rows.withColumn("place", F.row_number().over(order)).withColumn("n", F.count("*").over(order))
    counted = session.sql("select item_id, count(*) n, count(distinct query_id) m from rows group by item_id")
    joined = ranked.join(counted.drop("n"), "item_id", "left").where("place < 10")
    joined.unionByName(joined).write.parquet(f"file://{folder}/joined")
    joined.mapInArrow(unchanged, joined.schema).write.parquet(f"file://{folder}/unchanged")
    sent = session.sparkContext.broadcast(1)
    session.sparkContext.parallelize(range(4), 2).map(plus_one).collect()
    model = ALS(
        rank=4, maxIter=2, userCol="query_id", itemCol="item_id", ratingCol="rating", implicitPrefs=True, seed=1
    )
    model.fit(rows).itemFactors.toPandas()
    counted.toPandas()
    session.stop()


if __name__ == "__main__":
    main(sys.argv[1])
