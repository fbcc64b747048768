"""The embedded stack: environments, Airflow and MLflow on this machine, data sets."""
