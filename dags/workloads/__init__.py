"""The workloads of the steps: one module each, with `run(context, output)`.

`run` writes its tables to the temporary artifact `output` and returns what the manifest records (counts and other
figures, as JSON values). `runner` does the rest: skip, publish. Tables are computed on the step's engine (`engines/`);
models are fitted there, too, and one scorer proposes the items of all models (`models/`).
"""
