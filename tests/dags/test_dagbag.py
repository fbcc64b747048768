"""The shipped DAGs in a real DagBag, deployed for several users, without pyspark and RePlay."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_BAG = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyspark", "replay", "lightgbm", "mlflow", "pandas", "numpy"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
bag = DagBag(dag_folder=sys.argv[1])
found = {
    dag_id: {
        "file": dag.fileloc,
        "edges": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "release": sorted({task.doc_md.splitlines()[0] for task in dag.tasks}),
        "pool": sorted({task.pool for task in dag.tasks}),
        "serialized": json.dumps(DagSerialization.to_dict(dag), sort_keys=True, default=str),
    }
    for dag_id, dag in bag.dags.items()
}
print("@" + json.dumps({"dags": found, "errors": bag.import_errors}))
"""


def load(folder: Path, home: Path) -> dict:
    environ = {**os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    result = subprocess.run(
        [sys.executable, "-c", _BAG, str(folder)], env=environ, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.rpartition("@{")[2].join(("{", "")))


def deploy(folder: Path, user: str | None, dags: Path = ROOT / "dags") -> str:
    """Publishes the folder the way a deploy does, without the CLI's own environment."""
    sys.path.insert(0, str(ROOT))
    from replayctl.bundle.release import build_release
    from replayctl.bundle.stubs import stub_name, stub_text

    deployment = {
        "profile": "local",
        "user": user,
        "data_root": "/d",
        "artifacts_root": "/a",
        "spark_submit_files": "/f",
        "places": {"yarn": "pod"},
        "tiers": {tier: {"cores": 2, "memory_gib": 3} for tier in ("default", "big", "extra_big")},
        "pool": "p",
    }
    release = build_release(dags, json.dumps(deployment))
    owner = user or "_shared"
    store = folder / "replayctl_releases" / owner
    for file in release.files:
        path = store / release.name / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    (store / "current").write_text(release.name + "\n")
    (folder / ".airflowignore").write_text("replayctl_releases\n")
    for module in release.modules:
        (folder / stub_name(module, f"_{user}" if user else "")).write_text(stub_text(module, owner))
    return release.name


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, dict, Path]:
    folder = tmp_path_factory.mktemp("dags folder")
    home = tmp_path_factory.mktemp("airflow")
    releases = {user: deploy(folder, user) for user in ("alice", "b-o-b", None)}
    return load(folder, home), folder, releases, home


def test_all_users_dags_load_side_by_side(bag: tuple) -> None:
    dags, folder, *_ = bag
    assert dags["errors"] == {}
    for suffix in ("_alice", "_b-o-b", ""):
        dag = dags["dags"][f"two_stage_ml100k{suffix}"]
        assert dag["file"] == str(folder / f"dag_two_stage_scenarios{suffix}.py")
    assert len(dags["dags"]) == 81


def test_every_task_shows_the_release_of_its_user(bag: tuple) -> None:
    dags, _, releases, _ = bag
    assert len(set(releases.values())) == 3
    for user, release in releases.items():
        suffix = f"_{user}" if user else ""
        assert dags["dags"][f"two_stage_msd{suffix}"]["release"] == [f"Release: {release}"]


def test_the_two_stage_dag_has_the_edges_of_its_spec(bag: tuple) -> None:
    edges = bag[0]["dags"]["two_stage_ml100k_alice"]["edges"]
    assert edges["split"] == []
    assert edges["first_level_als"] == ["split"]
    assert edges["combine"] == ["first_level_als", "first_level_itemknn", "first_level_poprec", "split"]
    assert edges["second_level_lightgbm"] == ["combine", "split"]
    assert "second_level_lightgbm" in edges["evaluate"]
    second = bag[0]["dags"]["second_level_ml100k_alice"]["edges"]
    assert second["combine"] == []


def test_tasks_wait_in_the_deployments_pool(bag: tuple) -> None:
    assert bag[0]["dags"]["two_stage_ml100k_alice"]["pool"] == ["p"]


def test_the_graph_shows_each_tasks_engine(bag: tuple) -> None:
    tasks = json.loads(bag[0]["dags"]["two_stage_ml100k_alice"]["serialized"])["dag"]["tasks"]
    names = {task["__var"]["task_id"]: task["__var"]["_operator_name"] for task in tasks}
    assert names["split"] == names["first_level_als"] == "spark engine"
    # These need no Spark under either default.
    assert names["second_level_lightgbm"] == names["evaluate"] == "embedded engine"


def test_parsing_leaves_nothing_behind_and_gives_the_same_dags_again(bag: tuple) -> None:
    dags, folder, _, home = bag
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    second_load = load(folder, home)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert before == after
    # Airflow's own of the stubs may lie beside them; releases, whose content is their name, stay as they are.
    assert [path for path in folder.rglob("__pycache__") if path.parent != folder] == []
    assert {name: dag["serialized"] for name, dag in second_load["dags"].items()} == {
        name: dag["serialized"] for name, dag in dags["dags"].items()
    }


def test_a_stub_without_its_module_publishes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    folder.mkdir()
    deploy(folder, "alice")
    stub = (folder / "dag_two_stage_scenarios_alice.py").read_text()
    (folder / "dag_gone_alice.py").write_text(stub.replace("dag_two_stage_scenarios", "dag_gone"))
    dags = load(folder, tmp_path)
    assert dags["errors"] == {}
    assert len(dags["dags"]) == 27


def test_a_module_may_build_its_dags_itself(tmp_path: Path) -> None:
    import shutil

    own = tmp_path / "own"
    shutil.copytree(ROOT / "dags", own, ignore=shutil.ignore_patterns("__pycache__"))
    (own / "dag_mine.py").write_text(
        '"""Mine."""\nfrom airflow.sdk import DAG\n\n\ndef build_dags(namespace):\n'
        '    """One empty DAG."""\n    return [DAG(namespace.dag_id("mine"), schedule=None)]\n'
    )
    folder = tmp_path / "dags"
    folder.mkdir()
    deploy(folder, "alice", own)
    dags = load(folder, tmp_path)
    assert dags["errors"] == {}
    assert "mine_alice" in dags["dags"]


def test_tasks_of_a_module_that_builds_its_dags_show_the_release_too(tmp_path: Path) -> None:
    import shutil

    from replayctl.bundle import scaffold

    own = tmp_path / "own"
    shutil.copytree(ROOT / "dags", own, ignore=shutil.ignore_patterns("__pycache__", "dag_two_stage*"))
    scaffold.new_dag("mine", own, suffix="_alice", free_form=True)
    folder = tmp_path / "dags"
    folder.mkdir()
    release = deploy(folder, "alice", own)
    dags = load(folder, tmp_path)
    assert dags["errors"] == {}
    assert dags["dags"]["mine_alice"]["release"] == [f"Release: {release}"]


def test_stubs_before_the_publish_show_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    folder.mkdir()
    deploy(folder, "alice")
    (folder / "replayctl_releases" / "alice" / "current").unlink()
    dags = load(folder, tmp_path)
    assert dags == {"dags": {}, "errors": {}}


def test_a_dag_outside_the_namespace_does_not_load(tmp_path: Path) -> None:
    import shutil

    own = tmp_path / "own"
    shutil.copytree(ROOT / "dags", own, ignore=shutil.ignore_patterns("__pycache__", "dag_two_stage*"))
    (own / "dag_mine.py").write_text(
        '"""Mine."""\nfrom airflow.sdk import dag\n\n\ndef build_dags(namespace):\n    """One DAG."""\n\n'
        "    @dag(schedule=None)\n    def my_pipeline():\n        pass\n\n    return [my_pipeline()]\n"
    )
    folder = tmp_path / "dags"
    folder.mkdir()
    deploy(folder, "alice", own)
    dags = load(folder, tmp_path)
    assert dags["dags"] == {}
    assert "does not end in '_alice'" in next(iter(dags["errors"].values()))
