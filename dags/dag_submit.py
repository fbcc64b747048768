"""What spark-submit runs: `dag_submit.py DOCUMENT`, with one step as a JSON document in base64.

Runs as `__main__`, outside the release package: the document names the package, whose zip spark-submit has put on
the path. Ends with status 0 only when the step's artifact is whole.
"""

import base64
import importlib
import json
import sys


def main(argv: list[str]) -> int:
    """Runs the step that the one argument describes; returns the exit status."""
    if len(argv) != 2:
        print("usage: dag_submit.py DOCUMENT (JSON that describes a step, in URL-safe base64)", file=sys.stderr)
        return 2
    document = json.loads(base64.urlsafe_b64decode(argv[1]))
    runner = importlib.import_module(f"{document['package']}.workloads.runner")
    runner.run(document)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
