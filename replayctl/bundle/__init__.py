"""A DAG folder as a release: its files, what its modules say, and whether it can be deployed."""
