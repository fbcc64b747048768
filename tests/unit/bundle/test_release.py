"""Releases as data: the same folder gives the same release, and what cannot be deployed is refused."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayctl.bundle import release
from replayctl.bundle.specs import dags_text, load_specs
from replayctl.bundle.stubs import StubHeader, read_header, stub_text
from replayctl.errors import TimedOut, UsageProblem

ROOT = Path(__file__).parents[3]
DEPLOYMENT = (
    '{"profile": "local", "user": "alice", "data_root": "/d", "artifacts_root": "/a", "spark_submit_files": "/f"}'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "dags", tmp_path / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "dags"


def test_the_same_folder_gives_the_same_release_at_any_path(folder: Path) -> None:
    one = release.build_release(folder, DEPLOYMENT)
    other = release.build_release(ROOT / "dags", DEPLOYMENT)
    assert one == other
    assert one.zip_bytes() == other.zip_bytes()
    assert one.modules == ("dag_two_stage_scenarios",)


def test_every_change_of_content_changes_the_name(folder: Path) -> None:
    names = {release.build_release(folder, DEPLOYMENT).name}
    module = folder / "dag_specs.py"
    # The same size and, within a second, the same time: what rsync's quick check misses.
    module.write_text(module.read_text().replace("FORCE_ALL", "FORCE_ANY"))
    names.add(release.build_release(folder, DEPLOYMENT).name)
    module.rename(folder / "dag_specs2.py")
    names.add(release.build_release(folder, DEPLOYMENT).name)
    names.add(release.build_release(folder, DEPLOYMENT + "\n").name)
    assert len(names) == 4


@pytest.mark.parametrize(
    "path", [".git/x.py", "__pycache__/x.py", "workloads/__pycache__/a.py", ".venv/x.py", "notes.ipynb", "env/lib/x.py"]
)
def test_files_without_code_are_not_deployed(folder: Path, path: str) -> None:
    before = release.build_release(folder, DEPLOYMENT)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("raise SystemExit")
    if path.startswith("env/"):
        (folder / "env" / "pyvenv.cfg").touch()
    after = release.build_release(folder, DEPLOYMENT)
    assert (after.name, after.files) == (before.name, before.files)
    assert after.left_out == (("notes.ipynb",) if path == "notes.ipynb" else ())


def test_the_zip_holds_one_folder_named_like_the_package(folder: Path) -> None:
    built = release.build_release(folder, DEPLOYMENT)
    with zipfile.ZipFile(io.BytesIO(built.zip_bytes())) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert {name.partition("/")[0] for name in names} == {built.name}
    assert f"{built.name}/workloads/split.py" in names


def test_code_that_does_not_compile_is_named_with_its_line(folder: Path) -> None:
    (folder / "dag_mine.py").write_text("x = 1\nreturn x\n")
    with pytest.raises(UsageProblem, match=r"dag_mine\.py:2 does not compile: 'return' outside function") as excinfo:
        release.build_release(folder, DEPLOYMENT)
    assert "    return x\n" in (excinfo.value.details or "")


def test_oversized_files_and_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "big.json").write_bytes(b" " * (6 * 1024 * 1024))
    with pytest.raises(UsageProblem, match="more than"):
        release.build_release(folder, DEPLOYMENT)
    with pytest.raises(UsageProblem, match="not a DAG folder"):
        release.build_release(tmp_path, DEPLOYMENT)
    (tmp_path / "__init__.py").touch()
    shutil.rmtree(folder)
    with pytest.raises(UsageProblem, match="no DAG module"):
        release.build_release(tmp_path, DEPLOYMENT)


def test_names_that_an_archive_has_no_room_for_are_refused(folder: Path) -> None:
    (folder / f"{'ф' * 60}.md").touch()
    with pytest.raises(UsageProblem, match="cannot be deployed"):
        release.build_release(folder, DEPLOYMENT)


def test_a_deployment_file_of_a_subfolder_is_a_file_as_any(folder: Path) -> None:
    (folder / "conf").mkdir()
    (folder / "conf" / "deployment.json").write_text("{}")
    assert release.build_release(folder, DEPLOYMENT).content("conf/deployment.json") == b"{}"


def test_a_module_is_a_dag_module_by_what_it_defines(folder: Path) -> None:
    (folder / "dag_mine.py").write_text("def build_dags(namespace):\n    return []\n")
    (folder / "dag_helper.py").write_text("def helper():\n    return []\n")
    (folder / "mine.py").write_text("def dag_specs(namespace):\n    return []\n")
    assert release.build_release(folder, DEPLOYMENT).modules == ("dag_mine", "dag_two_stage_scenarios")


def test_stubs_name_their_owner_and_compile() -> None:
    text = stub_text("dag_two_stage_scenarios", "a-b")
    compile(text, "stub", "exec")
    assert read_header(text) == StubHeader("a-b", "dag_two_stage_scenarios", edited=False)
    assert read_header(text.replace("airflow.sdk", "airflow")) == StubHeader(
        "a-b", "dag_two_stage_scenarios", edited=True
    )
    assert read_header("# some DAG of somebody\n") is None
    assert "@" not in text


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_a_file_of_another_user_never_looks_like_a_stub_by_accident(text: str) -> None:
    if "replayctl-stub" not in text:
        assert read_header(text) is None


def test_specs_load_in_a_bare_interpreter(folder: Path) -> None:
    dags = load_specs(release.build_release(folder, DEPLOYMENT), timeout_s=30)
    assert len(dags) == 27
    assert dags[0].dag_id == "two_stage_ml100k_alice"
    assert dags[0].steps[0].artifact.startswith("/a/alice/ml100k/split/")
    assert set(dags[0].steps[-2].upstream) == {"split", "combine"}


def test_a_module_that_fails_is_shown_with_its_own_traceback(folder: Path) -> None:
    (folder / "dag_mine.py").write_text("def dag_specs(namespace):\n    return [1 / 0]\n")
    with pytest.raises(UsageProblem) as excinfo:
        load_specs(release.build_release(folder, DEPLOYMENT), timeout_s=30)
    assert "ZeroDivisionError" in (excinfo.value.details or "")
    assert "dags/dag_mine.py" in (excinfo.value.details or "")


def test_a_module_that_imports_what_the_parser_lacks_is_refused(folder: Path) -> None:
    (folder / "dag_mine.py").write_text("import pyspark\n\ndef dag_specs(namespace):\n    return []\n")
    with pytest.raises(UsageProblem) as excinfo:
        load_specs(release.build_release(folder, DEPLOYMENT), timeout_s=30)
    assert "No module named 'pyspark'" in (excinfo.value.details or "")


def test_two_dags_with_one_id_are_refused(folder: Path) -> None:
    copy = (folder / "dag_two_stage_scenarios.py").read_text()
    (folder / "dag_again.py").write_text(copy)
    with pytest.raises(
        UsageProblem,
        match=r"same dag_id: first_level_\w+_alice \(in dag_again.py and dag_two_stage_scenarios.py\), .* and 24 more",
    ):
        load_specs(release.build_release(folder, DEPLOYMENT), timeout_s=30)


def test_a_module_that_never_ends_is_stopped(folder: Path) -> None:
    (folder / "dag_mine.py").write_text("while True:\n    pass\n\ndef dag_specs(namespace):\n    return []\n")
    with pytest.raises(TimedOut, match="dag_mine"):
        load_specs(release.build_release(folder, DEPLOYMENT), timeout_s=1)


@pytest.mark.parametrize(
    ("dags", "modules", "text"),
    [
        (29, 0, "29 DAGs"),
        (1, 1, "1 DAG and those of 1 free-form module"),
        (0, 2, "those of 2 free-form modules"),
        (0, 0, "0 DAGs"),
    ],
)
def test_dags_that_only_airflow_knows_are_named_and_not_counted(dags: int, modules: int, text: str) -> None:
    assert dags_text(dags, modules) == text
