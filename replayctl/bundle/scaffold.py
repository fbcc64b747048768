"""init and new-dag: create an editable copy of the shipped DAGs, and a new DAG module in it."""

from __future__ import annotations

import keyword
import re
import shlex
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from replayctl.bundle.git import tracked_files
from replayctl.errors import Conflict, NotFound, OperationFailed, UsageProblem
from replayctl.shipped import shipped_dir

_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")

_SPECS = '''"""@TITLE@: which models, on which data, and what makes it worth a run."""

from .dag_entities import DATASETS, Namespace, model_params
from .dag_specs import DagSpec
from .dag_two_stage_scenarios import build_two_stage_dag

NAME = "@NAME@"
# Any of the data sets in dag_entities.py (ml100k is there without a cluster), or a DatasetInfo of your own.
DATASET = DATASETS["ml100k"]
# Short names of FIRST_LEVEL_MODELS in dag_entities.py; add a model or change its parameters there. A data set's own
# values (model_overrides of its DatasetInfo) come before them. als, itemknn, poprec and slim run on either engine;
# word2vec, ucb and other models of RePlay need Spark (on one machine: replayctl local up --engine spark).
MODELS = ("als", "poprec")


def dag_specs(namespace: Namespace) -> tuple[DagSpec, ...]:
    """The DAGs of this module. Runs at each parse: nothing here may compute, read or wait."""
    models = model_params(*MODELS, dataset=DATASET)
    return (build_two_stage_dag(namespace.dag_id(NAME), namespace.mlflow_experiment(NAME), models, DATASET),)
'''

_FREE = '''"""@TITLE@: tasks of any kind, made with Airflow's own API."""

from airflow.sdk import DAG, task

from .dag_entities import Namespace

NAME = "@NAME@"


def build_dags(namespace: Namespace) -> list[DAG]:
    """The DAGs of this module. Runs at each parse: only the tasks may compute, read or wait."""
    with DAG(namespace.dag_id(NAME), schedule=None, is_paused_upon_creation=False) as dag:

        @task
        def hello() -> str:
            return "hello"

        hello()
    return [dag]
'''


@dataclass(frozen=True, slots=True)
class Scaffolded:
    """The files that were written, or would be."""

    path: Path
    files: tuple[str, ...]
    dry_run: bool


def init(folder: Path, *, dry_run: bool = False) -> Scaffolded:
    """Copies the shipped DAGs and workloads to `folder/dags`, completely or not at all.

    Raises UsageProblem for a folder that is named `dags` itself, Conflict if `dags` exists, OperationFailed if it
    cannot be written.
    """
    shipped, target = shipped_dir("dags"), folder / "dags"
    if folder.resolve().name == "dags":
        above = folder.parent if folder.name else folder / ".."
        raise UsageProblem(
            f"the copy would be in {target}: init creates the folder dags itself",
            hint=f"run `replayctl init {shlex.quote(str(above))}`",
        )
    if target.exists() or target.is_symlink():
        raise Conflict(f"{target} already exists", hint="choose another folder, or remove it first")
    files = _shipped_files(shipped)
    if dry_run:
        return Scaffolded(target, tuple(files), True)
    temporary = folder / f".dags.{uuid.uuid4().hex}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(shipped / name, temporary / name)
        temporary.rename(target)
    except OSError as error:
        raise OperationFailed(f"cannot write {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Scaffolded(target, tuple(files), False)


def _shipped_files(shipped: Path) -> list[str]:
    """The files to copy; in a checkout, not those that only its user has there."""
    tracked = tracked_files(shipped)
    names = (
        path.relative_to(shipped).as_posix()
        for path in shipped.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    return sorted(name for name in names if not tracked or name in tracked)


def new_dag(name: str, dags_dir: Path, *, suffix: str, free_form: bool = False, dry_run: bool = False) -> Scaffolded:
    """Writes `dag_<name>.py` into a DAG folder: an experiment, or with `free_form` a DAG with Airflow's own API.

    `suffix` is the namespace's. Raises UsageProblem for an invalid name, NotFound for a folder that does not exist or
    is not a copy of the shipped DAGs, Conflict if the file exists.
    """
    name = name.removeprefix("dag_").removesuffix(".py")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageProblem(
            f"{name!r} is not a valid DAG name: it starts with a letter a-z, followed by letters, digits and '_'"
        )
    if suffix and name.endswith(suffix):
        raise UsageProblem(
            f"{name!r} ends in {suffix!r}, which the deploy appends", hint=f"use the name {name.removesuffix(suffix)}"
        )
    if not dags_dir.is_dir():
        raise NotFound(
            f"folder {dags_dir} does not exist",
            hint="run `replayctl init .` to create dags, or pass --dags-dir",
        )
    if not (dags_dir / "dag_entities.py").is_file():
        raise NotFound(f"{dags_dir} is not a copy of the shipped DAGs", hint="run `replayctl init .`")
    path = dags_dir / f"dag_{name}.py"
    text = (_FREE if free_form else _SPECS).replace("@NAME@", name).replace("@TITLE@", name.replace("_", " "))
    if path.exists():
        raise Conflict(f"{path} already exists", hint="choose another name")
    if not dry_run:
        try:
            # "x" does not overwrite a file that was created meanwhile.
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise OperationFailed(f"cannot write {path}: {error.strerror}") from error
    return Scaffolded(path, (path.name,), dry_run)
