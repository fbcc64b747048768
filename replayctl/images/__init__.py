"""Images of the Airflow worker: their inputs, builds, pushes and locations."""
