"""The digest of a workload's code: what changes it, what does not, and how results are declared equal."""

import shutil
from pathlib import Path

import pytest

from dags.workload_code import code_digest, workload_code, workload_names

ROOT = Path(__file__).parents[3]
WORKLOAD = '''"""Adds."""
import json
from typing import TYPE_CHECKING

from ..helpers import add
from . import sibling

if TYPE_CHECKING:
    from .other import Thing


def run(context, output):
    """Runs."""
    # A comment.
    value = f"{context!r:>{10}} and {output}" "!"
    return add(1.5, -2, text=value, known=("a", b"b", None, True, ...))
'''
SAME = """import json
from typing import TYPE_CHECKING
from . import sibling
from ..helpers import add
def run(context, output):
    "Other words."

    value = (
        f"{context!r:>{10}} and "
        f"{output}!"
    )
    return add(1.5, -2, text=value,
        known=("a", b"b", None, True, ...),
    )
"""


def write(folder: Path, **files: str) -> Path:
    defaults = {
        "__init__": "",
        "helpers": "def add(a, b, **more):\n    return a + b\n",
        "unused": "X = 1\n",
        "workloads/__init__": "",
        "workloads/mine": WORKLOAD,
        "workloads/other": "class Thing: ...\n",
        "workloads/sibling": "def late():\n    from ..deep import inner\n    return inner\n",
        "deep/__init__": "",
        "deep/inner": "Y = 2\n",
    }
    # Digests are read once per process, so each folder is a new one.
    folder = folder / str(len(list(folder.iterdir())))
    for name, text in {**defaults, **{key.replace("__in", "/"): value for key, value in files.items()}}.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_code_is_the_module_and_all_that_it_imports_of_the_release(tmp_path: Path) -> None:
    assert list(workload_code("mine", write(tmp_path))) == [
        *("__init__.py", "deep/__init__.py", "deep/inner.py", "helpers.py", "workloads/__init__.py"),
        *("workloads/mine.py", "workloads/sibling.py"),
    ]


def test_a_digest_is_the_same_on_every_machine_and_python(tmp_path: Path) -> None:
    assert code_digest("mine", write(tmp_path)) == "d0213d46bdc49d34"


def test_comments_docstrings_layout_and_the_order_of_imports_do_not_count(tmp_path: Path) -> None:
    assert code_digest("mine", write(tmp_path)) == code_digest("mine", write(tmp_path, workloads__inmine=SAME))


@pytest.mark.parametrize(
    "changed",
    [
        {"workloads__inmine": WORKLOAD.replace("1.5", "1.6")},
        {"workloads__inmine": WORKLOAD.replace("return add", "raise RuntimeError\n    return add")},
        {"workloads__inmine": WORKLOAD.replace("True", "1")},
        {"workloads__inmine": WORKLOAD.replace('"a", b"b"', '"a", "b"')},
        {"helpers": "def add(a, b, **more):\n    return a - b\n"},
        {"deep__ininner": "Y = 3\n"},
    ],
)
def test_what_the_code_does_counts(tmp_path: Path, changed: dict[str, str]) -> None:
    assert code_digest("mine", write(tmp_path)) != code_digest("mine", write(tmp_path, **changed))


def test_what_a_workload_does_not_import_does_not_count(tmp_path: Path) -> None:
    changed = write(tmp_path, unused="X = 2\n", workloads__inother="class Thing:\n    x = 1\n")
    assert code_digest("mine", write(tmp_path)) == code_digest("mine", changed)


def test_results_declared_the_same_count_for_exactly_that_code(tmp_path: Path) -> None:
    name, before = "workloads/mine.py", write(tmp_path)
    changed = WORKLOAD.replace("1.5", "3 / 2")
    old, new = (workload_code("mine", folder)[name] for folder in (before, write(tmp_path, workloads__inmine=changed)))
    assert old != new
    declaration = f'SAME_RESULTS = {{"{new}": "{old}"}}\n'
    assert code_digest("mine", write(tmp_path, workloads__inmine=changed + declaration)) == code_digest("mine", before)
    again = write(tmp_path, workloads__inmine=changed.replace("-2", "-3") + declaration)
    assert code_digest("mine", again) != code_digest("mine", before)


def test_a_declaration_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine.py: SAME_RESULTS is not a dictionary"):
        code_digest("mine", write(tmp_path, workloads__inmine=f"{WORKLOAD}SAME_RESULTS = [1]\n"))


def test_workloads_are_the_modules_that_define_run(tmp_path: Path) -> None:
    assert workload_names(write(tmp_path)) == ("mine",)
    assert "runner" not in workload_names(ROOT / "dags")
    with pytest.raises(ValueError, match=r"unknown workload 'nobody'.*known: mine"):
        code_digest("nobody", write(tmp_path))


def test_workloads_do_not_import_dag_modules() -> None:
    """Else a change of one DAG or data set would move every artifact."""
    for name in workload_names():
        assert not [path for path in workload_code(name) if path.startswith("dag_")]


def test_copies_have_equal_digests(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dags", tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in workload_names():
        assert code_digest(name, tmp_path / "copy") == code_digest(name)
