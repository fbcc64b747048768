"""The workload of the how-to is computed exactly as it is printed there."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from dags.artifacts import Artifact

from .conftest import rows, sample_rows, write_log

ROOT = Path(__file__).parents[2]
COMPUTE = """
import json, sys
from pathlib import Path
from mine.dag_entities import RESOURCE_TIERS, Namespace, Resources
from mine.dag_popularity import dag_specs
from mine.dag_specs import Deployment
from mine.workloads import runner

root = Path(sys.argv[1])
tiers = {tier: Resources(2, 3) for tier in RESOURCE_TIERS}
folders = (f"{root}/data", f"{root}/artifacts", "/f")
deployment = Deployment("mine", "local", "alice", *folders, tiers=tiers, engine="embedded")
(spec,) = dag_specs(Namespace("alice"))
for step in spec.steps:
    document = deployment.step_document(spec, step)
    document["parameters"] = json.loads(json.dumps(document["parameters"]))
    if step.name == "split":
        document["parameters"]["dataset"]["checksum"] = None
    runner.run(document)
print(document["output"])
"""


def test_the_workload_of_the_how_to_is_computed_as_it_stands_there(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "own-workload.md").read_text("utf-8")
    workload, module = (textwrap.dedent(block) for block in re.findall(r" *```python\n(.*?) *```", text, re.DOTALL))
    dags = tmp_path / "mine"
    shutil.copytree(ROOT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    (dags / "workloads" / "popularity.py").write_text(workload)
    (dags / "dag_popularity.py").write_text(module)
    write_log(tmp_path / "data" / "replay" / "ml100k_ratings.csv", sample_rows())
    result = subprocess.run(
        [sys.executable, "-c", COMPUTE, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    output = Path(result.stdout.strip())
    popularity = rows(output, "popularity")
    assert Artifact(str(output)).manifest()["results"] == {"items": 100}
    assert len(popularity) == 100
    seen = [row["seen"] for row in popularity]
    assert min(seen) > 0
    assert max(seen) > min(seen)
