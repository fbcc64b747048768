"""The DAGs and Spark workloads that replayctl deploys, as one package: a release is a copy of this folder.

Modules import each other relatively, so that releases of several users live side by side in one process.
Only `dag_operators` imports Airflow and only `workloads` imports pyspark and RePlay.
"""
