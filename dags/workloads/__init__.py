"""The work of the steps: one module per workload, each with `run(context, output)`.

`run` writes its tables into the temporary artifact `output` and returns what the manifest records (counts and
figures, JSON values). `runner` does the rest: skip, publish. Tables are computed on the step's engine (`engines/`);
models are fitted there, too, and all propose their items by one scorer (`models/`).
"""
