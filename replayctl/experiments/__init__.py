"""Runs and their results, by Airflow and MLflow."""
