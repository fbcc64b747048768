"""init and new-dag: what people begin with deploys as it is."""

import json
import subprocess
from pathlib import Path

import pytest

from dags.dag_entities import FIRST_LEVEL_MODELS
from replayctl.bundle import scaffold, validation
from replayctl.bundle.release import build_release
from replayctl.bundle.specs import load_specs
from replayctl.errors import Conflict, NotFound, UsageProblem

DEPLOYMENT = json.dumps(
    {"profile": "local", "user": "alice", "data_root": "/d", "artifacts_root": "/a", "spark_submit_files": "/f"}
)


def test_a_new_folder_with_new_dags_is_a_release_without_findings(tmp_path: Path) -> None:
    scaffolded = scaffold.init(tmp_path / "my project")
    assert "workloads/split.py" in scaffolded.files
    assert scaffold.new_dag("mine", scaffolded.path, suffix="_alice").path == scaffolded.path / "dag_mine.py"
    scaffold.new_dag("dag_free.py", scaffolded.path, suffix="_alice", free_form=True)
    release = build_release(scaffolded.path, DEPLOYMENT)
    assert release.modules == ("dag_free", "dag_mine", "dag_two_stage_scenarios")
    assert release.free_modules == ("dag_free",)
    assert validation.check(release, scaffolded.path, artifacts_root="/a") == ()
    ids = [dag.dag_id for dag in load_specs(release, timeout_s=30) if dag.module == "dag_mine"]
    assert ids == ["mine_alice"]


def test_a_new_dag_says_which_models_need_spark(tmp_path: Path) -> None:
    text = scaffold.new_dag("mine", scaffold.init(tmp_path).path, suffix="").path.read_text().replace("\n# ", " ")
    either = [name for name, model in FIRST_LEVEL_MODELS.items() if "embedded" in model.engines]
    spark = [name for name, model in FIRST_LEVEL_MODELS.items() if "embedded" not in model.engines]
    assert f"{', '.join(either[:-1])} and {either[-1]} run on either engine" in text
    assert f"{', '.join(spark)} and other models of RePlay need Spark" in text


def test_nothing_is_overwritten_and_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    assert scaffold.init(tmp_path, dry_run=True).dry_run
    assert list(tmp_path.iterdir()) == []
    scaffolded = scaffold.init(tmp_path)
    with pytest.raises(Conflict, match="already exists"):
        scaffold.init(tmp_path)
    scaffold.new_dag("mine", scaffolded.path, suffix="", dry_run=True)
    assert not (scaffolded.path / "dag_mine.py").exists()
    scaffold.new_dag("mine", scaffolded.path, suffix="")
    with pytest.raises(Conflict, match="already exists"):
        scaffold.new_dag("mine", scaffolded.path, suffix="")
    assert [path.name for path in tmp_path.iterdir()] == ["dags"]


@pytest.mark.parametrize("name", ["", "1x", "A", "a-b", "a b", "a/b", "../x", "ä", "import", "x" * 80])
def test_names_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    scaffolded = scaffold.init(tmp_path)
    with pytest.raises(UsageProblem, match="is not a valid DAG name"):
        scaffold.new_dag(name, scaffolded.path, suffix="_alice")


def test_a_name_with_the_suffix_and_a_strange_folder_are_refused(tmp_path: Path) -> None:
    scaffolded = scaffold.init(tmp_path)
    with pytest.raises(UsageProblem, match="which the deploy appends"):
        scaffold.new_dag("mine_alice", scaffolded.path, suffix="_alice")
    with pytest.raises(NotFound, match="is not a copy of the shipped DAGs"):
        scaffold.new_dag("mine", tmp_path, suffix="_alice")


def test_a_copy_has_only_the_tracked_files_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout" / "dags"
    checkout.mkdir(parents=True)
    (checkout / "dag_entities.py").touch()
    monkeypatch.setattr(scaffold, "shipped_dir", lambda _: checkout)
    assert scaffold.init(tmp_path / "without git").files == ("dag_entities.py",)
    subprocess.run(["git", "init", "-q", checkout.parent], check=True)
    subprocess.run(["git", "-C", checkout, "add", "."], check=True)
    (checkout / "dag_mine.py").touch()
    assert scaffold.init(tmp_path / "with git").files == ("dag_entities.py",)
    assert not (tmp_path / "with git" / "dags" / "dag_mine.py").exists()


def test_folders_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="init creates the folder dags itself") as excinfo:
        scaffold.init(tmp_path / "x" / "dags")
    assert excinfo.value.hint == f"run `replayctl init {tmp_path / 'x'}`"
    with pytest.raises(NotFound, match="dags does not exist"):
        scaffold.new_dag("mine", tmp_path / "dags", suffix="")
