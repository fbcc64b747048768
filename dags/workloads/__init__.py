"""The work of the steps, on Spark: one module per workload, each with `run(context, output)`.

`run` writes its tables into the temporary artifact `output` and returns what the manifest records (counts and
figures, JSON values). `runner` does the rest: session, skip, publish.
"""
