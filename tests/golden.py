"""`python -m tests.golden` records the identities and the workloads' code that the golden tests compare with."""

import ast
import hashlib
import json
from pathlib import Path

from dags.dag_entities import WORKLOAD_VERSIONS, Namespace
from dags.dag_two_stage_scenarios import dag_specs

ROOT = Path(__file__).parent.parent
IDENTITIES = ROOT / "tests" / "unit" / "dags" / "golden_identities.json"
WORKLOADS = ROOT / "tests" / "unit" / "dags" / "golden_workloads.json"


def identities() -> dict[str, str]:
    """Step → identity, for the ml100k experiment."""
    return {step.name: step.identity for step in dag_specs(Namespace(None))[0].steps}


def workloads() -> dict[str, dict[str, object]]:
    """Workload → its version and a hash of its code, comments and docstrings left out."""
    found: dict[str, dict[str, object]] = {}
    for name, version in WORKLOAD_VERSIONS.items():
        tree = ast.parse((ROOT / "dags" / "workloads" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.FunctionDef)) and ast.get_docstring(node):
                node.body = node.body[1:]
        # Python 3.12 has one more field, always empty here.
        code = ast.dump(tree).replace(", type_params=[]", "")
        found[name] = {"version": version, "code": hashlib.sha256(code.encode()).hexdigest()[:16]}
    return found


if __name__ == "__main__":
    IDENTITIES.write_text(json.dumps(identities(), indent=2) + "\n")
    WORKLOADS.write_text(json.dumps(workloads(), indent=2) + "\n")
