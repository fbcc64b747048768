"""Static checks: what parsing would do that it must not, and what is none of their business."""

import json
import shutil
from pathlib import Path

import pytest

from replayctl.bundle import validation
from replayctl.bundle.release import build_release
from replayctl.errors import UsageProblem

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "dags", tmp_path / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "dags"


def check(folder: Path) -> list[str]:
    """Findings as `path:line rule`, in order."""
    findings = validation.check(build_release(folder, json.dumps({})), folder, artifacts_root="/opt/spark_data/replay")
    return [f"{finding.path}{f':{finding.line}' if finding.line else ''} {finding.rule}" for finding in findings]


def write(folder: Path, text: str, name: str = "dag_mine.py") -> None:
    (folder / name).write_text(text)


def test_the_shipped_dags_have_no_findings(folder: Path) -> None:
    assert check(folder) == []


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import uuid\nX = uuid.uuid4()", "random"),
        ("from uuid import uuid4 as new\nX = new()", "random"),
        ("import random\nX = random.random()", "random"),
        ("from datetime import datetime\nX = datetime.now()", "clock"),
        ("import datetime as dt\nX = dt.datetime.utcnow()", "clock"),
        ("import time\nX = time.time()", "clock"),
        ("import os\nX = os.environ['HOME']", "environment"),
        ("import os\nX = os.environ.get('HOME')", "environment"),
        ("from os import environ\nenviron['A'] = 'b'", "environment"),
        ("import os\nX = os.getenv('HOME')", "environment"),
        ("open('/tmp/x', 'w')", "write"),
        ("open('/tmp/x', mode='ab')", "write"),
        ("from pathlib import Path\nPath('/tmp/x').write_text('')", "write"),
        ("import pickle\npickle.dump({}, None)", "write"),
        ("open('x')", "read"),
        ("open('x', 'rb')", "read"),
        ("import io\nX = io.open('x')", "read"),
        ("from pathlib import Path\nX = Path('x').read_text()", "read"),
        ("from pathlib import Path\nX = Path('x').open()", "read"),
        ("from pathlib import Path\nX = Path('x').exists()", "read"),
        ("from pathlib import Path\nX = [path for path in Path('x').iterdir()]", "read"),
        ("import os\nX = os.listdir('x')", "read"),
        ("from os.path import exists\nX = exists('x')", "read"),
        ("import os\nX = os.stat('x').st_mtime", "read"),
        ("from glob import glob\nX = glob('*')", "read"),
        ("import gzip\nX = gzip.open('x')", "read"),
        ("import sqlite3\nX = sqlite3.connect('x')", "read"),
        ("import time\nX = time.monotonic()", "clock"),
        ("import time\ntime.sleep(1)", "wait"),
        ("from time import perf_counter as now\nX = now()", "clock"),
        ("import time\nnow = time.time\nX = now()", "clock"),
        ("import time\nnow: object = time.perf_counter_ns\nX = now()", "clock"),
        ("import time\nX = getattr(time, 'time')()", "clock"),
        ("import time\nclock = time\nX = clock.monotonic()", "clock"),
        ("import datetime\nday = datetime.datetime\nX = day.now()", "clock"),
        ("from time import *\nX = monotonic()", "clock"),
        ("from os.path import *\nX = exists('x')", "read"),
        ("X = __import__('time').time()", "clock"),
        ("import importlib\nX = importlib.import_module('time').monotonic()", "clock"),
        ("from importlib import import_module\nX = import_module('time').monotonic()", "clock"),
        ("import time\nX = time.strftime('%Y')", "clock"),
        ("import time\nX = time.localtime()", "clock"),
        ("import pendulum\nX = pendulum.yesterday()", "clock"),
        ("from datetime import date as d\nX = d.today()", "clock"),
        (
            "import time\nfrom dataclasses import dataclass, field\n@dataclass\nclass C:\n"
            "    at: float = field(default_factory=time.time)",
            "clock",
        ),
        ("X = hash('x')", "random"),
        ("import os\nX = os.getcwd()", "environment"),
        ("import getpass\nX = getpass.getuser()", "environment"),
        ("from pathlib import Path\nX = Path.home()", "environment"),
        ("import os\nX = os.fork()", "program"),
        ("import subprocess\nsubprocess.run(['ls'])", "program"),
        ("import requests\nX = requests.get('http://x')", "network"),
        ("from pathlib import Path\nwith Path('x').open('w') as f:\n    pass", "write"),
        ("from airflow.sdk import BaseHook\nX = BaseHook.get_connection('x')", "database"),
        ("from urllib.request import urlopen\nurlopen('http://x')", "network"),
        ("import pyspark.sql", "heavy-import"),
        ("from replay.models import ALSWrap", "heavy-import"),
        ("import pandas as pd", "heavy-import"),
        ("from airflow.sdk import Variable\nX = Variable.get('x')", "database"),
        ("BASE = '/opt/spark_data/replay/experiments/mine'", "namespace"),
        ("from airflow.sdk import DAG\nX = DAG('mine', schedule=None)", "namespace"),
        ("from airflow.sdk import DAG\nX = DAG(dag_id='mine')", "namespace"),
        ("class C:\n    import numpy", "heavy-import"),
        ("X = [__import__('os') for _ in ()]\nimport random\nY = [random.choice([1]) for _ in range(3)]", "random"),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", "heavy-import"),
    ],
)
def test_what_the_top_level_must_not_do(folder: Path, code: str, rule: str) -> None:
    write(folder, f"{code}\n\ndef dag_specs(namespace):\n    return ()\n")
    findings = check(folder)
    assert len(findings) == 1, findings
    assert findings[0].startswith("dag_mine.py:")
    assert findings[0].endswith(f" {rule}")


def test_entry_functions_and_what_they_call_are_looked_at(folder: Path) -> None:
    write(
        folder,
        "from .helpers import name\n\ndef dag_specs(namespace):\n    return helper()\n\n"
        "def helper():\n    import uuid\n    name()\n    return (uuid.uuid4(),)\n",
    )
    write(
        folder, "import time\n\ndef name():\n    return time.time()\n\ndef unused():\n    time.sleep(1)\n", "helpers.py"
    )
    assert check(folder) == ["dag_mine.py:9 random", "helpers.py:4 clock"]


@pytest.mark.parametrize(
    "code",
    [
        "from airflow.sdk import DAG, task\n\ndef build_dags(namespace):\n    with DAG(namespace.dag_id('x')) as dag:\n"
        "        @task\n        def now():\n            import pandas, time\n            return time.time()\n"
        "        now()\n    return [dag]\n",
        "from airflow.providers.standard.operators.python import PythonOperator\n\ndef work():\n    import torch\n\n"
        "def build_dags(namespace):\n    return [PythonOperator(task_id='x', python_callable=work)]\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas\n\n"
        "def dag_specs(namespace):\n    return ()\n",
        "def dag_specs(namespace):\n    return ()\n\n"
        "if __name__ == '__main__':\n    import time\n    print(time.time())\n",
        "import datetime\nSTART = datetime.datetime(2024, 1, 1)\n\ndef dag_specs(namespace):\n    return ()\n",
        "import uuid\nX = uuid.uuid4()  # replayctl: allow\n\ndef dag_specs(namespace):\n    return ()\n",
        "def dag_specs(namespace):\n    return ()\n\n"
        "class Late:\n    def run(self):\n        import time\n        return time.time()\n",
        "PATHS = ('/opt/spark_data/replay_other', '/', '')\n\ndef dag_specs(namespace):\n    return ()\n",
        "from kubernetes.client import models as k8s\nX = k8s.V1Pod()\n\ndef dag_specs(namespace):\n    return ()\n",
        "import random, time, requests\nX = random.Random(42), time.gmtime(0), time.strftime('%Y', time.gmtime(0))\n\n"
        "def dag_specs(namespace):\n    return ()\n",
        "from airflow.sdk import setup\n\ndef build_dags(namespace):\n    @setup\n    def make():\n"
        "        import pandas\n    make()\n    return []\n",
        "from pathlib import Path\nX = (Path(__file__).parent / 'x.json').read_text()\nY = open(__file__)\n\n"
        "def dag_specs(namespace):\n    return ()\n",
    ],
)
def test_what_only_a_task_does_or_somebody_has_allowed_passes(folder: Path, code: str) -> None:
    write(folder, code)
    assert check(folder) == []


def test_workloads_may_import_what_they_like(folder: Path) -> None:
    write(folder, "import pandas\nimport time\nX = time.time()\n", "workloads/mine.py")
    assert check(folder) == []


def test_helpers_in_packages_are_followed_by_where_they_lie(folder: Path) -> None:
    (folder / "helpers").mkdir()
    write(folder, "from .dates import today\nfrom ..dag_entities import DATASETS\n", "helpers/__init__.py")
    write(
        folder,
        "import pandas\nfrom datetime import datetime\n\ndef today():\n    return datetime.now()\n",
        "helpers/dates.py",
    )
    write(folder, "from .helpers import dates\n\ndef dag_specs(namespace):\n    return (dates.today(),)\n")
    assert check(folder) == ["helpers/dates.py:1 heavy-import", "helpers/dates.py:5 clock"]
    write(folder, "import numpy\n", "__init__.py")
    assert "__init__.py:1 heavy-import" in check(folder)


def test_names_of_one_function_do_not_hide_those_of_another(folder: Path) -> None:
    write(
        folder,
        "import time\n\ndef build_dags(namespace):\n    return [time.time()]\n\n"
        "def late():\n    from time import time\n    return time()\n",
    )
    assert check(folder) == ["dag_mine.py:4 clock"]


def test_a_dag_file_of_the_classic_kind_is_pointed_out(folder: Path) -> None:
    write(folder, "from airflow.sdk import DAG\nwith DAG('x_alice', schedule=None):\n    pass\n", "dag_classic.py")
    assert check(folder) == ["dag_classic.py:2 entry"]


def test_links_and_stray_environments_are_found(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "pyvenv.cfg").touch()
    (folder / ".venv" / "lib64").symlink_to(folder / ".venv")
    (folder / ".git").mkdir()
    (folder / ".git" / "x").symlink_to(folder)
    assert check(folder) == ["loop link", ".venv environment-folder"]


def test_errors_are_refused_all_at_once_with_a_way_out(folder: Path) -> None:
    write(folder, "import pandas\nimport uuid\nX = uuid.uuid4()\n\ndef dag_specs(namespace):\n    return ()\n")
    findings = validation.check(build_release(folder, "{}"), folder, artifacts_root="/a")
    with pytest.raises(UsageProblem, match="2 errors") as excinfo:
        validation.refuse(findings)
    assert "dag_mine.py:1: import of pandas" in (excinfo.value.details or "")
    assert "--no-validate" in (excinfo.value.hint or "")
    validation.refuse([finding for finding in findings if finding.severity == "warning"])


def test_equal_modules_are_each_checked(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        write(folder, "", f"{name}/__init__.py")
        write(folder, "import time\n\n\ndef now():\n    return time.time()\n", f"{name}/clock.py")
    imports = "from .one import clock as a\nfrom .two import clock as b\n"
    write(folder, f"{imports}def dag_specs(namespace):\n    return [a.now(), b.now()]\n")
    assert check(folder) == ["one/clock.py:5 clock", "two/clock.py:5 clock"]
