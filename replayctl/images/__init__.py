"""Images of the Airflow worker: what goes into them, how they are built and pushed, and where they are."""
