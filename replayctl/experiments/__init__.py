"""Runs in Airflow, and their results in MLflow."""
