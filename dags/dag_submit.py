"""What spark-submit runs: `dag_submit.py DOCUMENT`, with one step as a JSON document in base64.

Runs as `__main__`, outside the release package: the document names the package, whose zip spark-submit has put on
the path. Ends with status 0 only when the step's artifact is whole.
"""

import base64
import importlib
import json
import sys
import traceback


def main(argv: list[str]) -> int:
    """Runs the step in the single argument and returns the exit status."""
    if len(argv) != 2:
        print("usage: dag_submit.py DOCUMENT (JSON that describes a step, in URL-safe base64)", file=sys.stderr)
        return 2
    document = json.loads(base64.urlsafe_b64decode(argv[1]))
    runner = importlib.import_module(f"{document['package']}.workloads.runner")
    context = importlib.import_module(f"{document['package']}.workloads.context")
    artifacts = importlib.import_module(f"{document['package']}.artifacts")
    webhdfs = importlib.import_module(f"{document['package']}.webhdfs")
    try:
        runner.run(document)
    except (context.StepError, artifacts.ArtifactError, webhdfs.HdfsError) as error:
        # For errors that the user can fix, one line is enough; for all others, the traceback is needed.
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    # The interpreter's own traceback shows no source lines of modules in a zip.
    sys.excepthook = traceback.print_exception
    sys.exit(main(sys.argv))
