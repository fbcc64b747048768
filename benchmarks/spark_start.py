"""What every Spark task pays: a session, RePlay's import and one job."""

from pyspark.sql import SparkSession
from replay.utils.session_handler import State

session = SparkSession.builder.getOrCreate()
State(session)
session.range(10).count()
session.stop()
