"""`PYTHON tests/run_foreign.py TOOLS ARGUMENTS…` runs pytest from the folder TOOLS in an environment without it.

TOOLS goes to the end of the path, so that the environment's own packages are the ones that are tested.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.append(sys.argv[1])

import pytest

sys.exit(pytest.main(sys.argv[2:]))
