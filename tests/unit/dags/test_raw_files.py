"""Raw data that change after a split was computed from them are noticed, and nothing else is."""

import os
from pathlib import Path

import pytest

from dags.artifacts import Artifact
from dags.raw_files import RAW_FILES, changed_data, raw_record, raw_state
from dags.reuse import prospect

DOCUMENT = {"log_path": "shop/orders", "dataset": {"name": "shop", "version": "1"}}


@pytest.fixture(params=["file", "folder"])
def data(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The first raw file; its data set is that file, or a folder with one more."""
    folder = tmp_path / "data" / "shop"
    folder.mkdir(parents=True)
    files = [folder / "orders"]
    if request.param == "folder":
        (folder / "orders" / "2025").mkdir(parents=True)
        files = [folder / "orders" / "2025" / "a.csv", folder / "orders" / "b.csv"]
        (folder / "orders" / "_SUCCESS").touch()
    for file in files:
        file.write_text("query,item\n1,2\n")
    return files[0]


def computed(tmp_path: Path) -> tuple[Artifact, dict]:
    artifact = Artifact(str(tmp_path / "artifacts" / "split" / "1"))
    path = tmp_path / "data" / "shop" / "orders"
    temporary = artifact.begin("task")
    temporary.add(RAW_FILES, raw_record(path, raw_state(path)))
    assert artifact.commit(temporary, {"text": "split"})
    document = {"output": str(artifact), "data_root": str(tmp_path / "data"), "parameters": DOCUMENT}
    return artifact, document


def test_the_same_data_are_no_change_though_they_were_copied_again(tmp_path: Path, data: Path) -> None:
    artifact, document = computed(tmp_path)
    assert changed_data(artifact, document) == ""
    os.utime(data, ns=(1, 1))
    (data.parent / ".hidden").write_text("x")
    assert changed_data(artifact, document) == ""
    assert prospect(document)["outcome"] == "reuse"


@pytest.mark.parametrize(
    ("text", "words"), [("query,item\n1,3\n", "has other content"), ("longer" * 9, "15 bytes and has 54")]
)
def test_other_rows_are_named_with_their_file(tmp_path: Path, data: Path, text: str, words: str) -> None:
    artifact, document = computed(tmp_path)
    data.write_text(text)
    os.utime(data, ns=(1, 1))
    assert f"{data} " in (change := changed_data(artifact, document))
    assert words in change
    assert prospect(document) == {"outcome": "compute", "why": f"{change}: fails if the rows have changed, too"}


def test_a_file_more_or_less_is_a_change_and_data_that_are_gone_are_none(tmp_path: Path, data: Path) -> None:
    artifact, document = computed(tmp_path)
    if data.name == "a.csv":
        data.with_name("c.csv").write_text("x")
        assert f"{data.with_name('c.csv')} is new" in changed_data(artifact, document)
        data.unlink()
        assert f"{data} is gone, and 1 more" in changed_data(artifact, document)
        data.with_name("c.csv").unlink()
        (data.parent.parent / "b.csv").unlink()
    else:
        data.unlink()
    # Results outlive their data.
    assert changed_data(artifact, document) == ""


@pytest.mark.parametrize("record", ["[", "[1]", "[" * 100_000, '{"NAME": {}}', '{"NAME": 1}'])
def test_a_record_that_is_none_is_one_error(tmp_path: Path, data: Path, record: str) -> None:
    artifact, document = computed(tmp_path)
    name = "." if data.name == "orders" else "2025/a.csv"
    (artifact.path / RAW_FILES).write_text(record.replace("NAME", name))
    assert f"{RAW_FILES} of {artifact} cannot be read and compared" in changed_data(artifact, document)


def test_a_step_without_raw_data_has_nothing_to_compare(tmp_path: Path, data: Path) -> None:
    artifact, document = computed(tmp_path)
    data.write_text("x")
    assert changed_data(artifact, {**document, "parameters": {}}) == ""
    (artifact.path / RAW_FILES).unlink()
    assert changed_data(artifact, document) == ""


def test_a_file_that_may_not_be_read_is_not_taken_for_the_same(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, document = computed(tmp_path)
    os.utime(data, ns=(1, 1))

    def refuse(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("dags.raw_files._sha256", refuse)
    assert "Permission denied" in changed_data(artifact, document)
