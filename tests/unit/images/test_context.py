"""The context of a build: the same bytes for the same folder, no unintended files, and none from outside the folder."""

import contextlib
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.errors import UsageProblem
from replayctl.images.context import plan_context
from replayctl.images.reference import Reference, parse_reference

NAME = "worker.Dockerfile"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docker"
    (root / "conf").mkdir(parents=True)
    (root / NAME).write_text("FROM scratch\n")
    (root / "conf" / "site.xml").write_text("<x/>")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    return root


def members(folder: Path) -> dict[str, tarfile.TarInfo]:
    with plan_context(folder, NAME).tar() as content, tarfile.open(fileobj=content) as archive:
        return {member.name: member for member in archive.getmembers()}


def test_times_owners_and_the_order_of_the_folder_do_not_matter(folder: Path, tmp_path: Path) -> None:
    before = plan_context(folder, NAME).digest()
    os.utime(folder / NAME, (1, 1))
    (folder / "conf" / "site.xml").chmod(0o600)
    assert plan_context(folder, NAME).digest() == before
    other = tmp_path / "other"
    other.mkdir()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            (other / path.relative_to(folder)).parent.mkdir(exist_ok=True)
            (other / path.relative_to(folder)).write_bytes(path.read_bytes())
    (other / "run.sh").chmod(0o755)
    assert plan_context(other, NAME).digest() == before


@pytest.mark.parametrize("change", ["content", "name", "executable"])
def test_what_matters_changes_the_digest(folder: Path, change: str) -> None:
    before = plan_context(folder, NAME).digest()
    if change == "content":
        (folder / "conf" / "site.xml").write_text("<y/>")
    elif change == "name":
        (folder / "conf" / "site.xml").rename(folder / "conf" / "site2.xml")
    else:
        (folder / "run.sh").chmod(0o644)
    assert plan_context(folder, NAME).digest() != before


def test_the_ignore_file_keeps_files_here_but_never_the_dockerfile(folder: Path) -> None:
    (folder / ".dockerignore").write_text("# not these\nconf\n*.Dockerfile\n!conf/site.xml\n")
    (folder / "conf" / "other.xml").write_text("")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("")
    plan = plan_context(folder, NAME)
    assert [file.path for file in plan.files] == ["conf/site.xml", "run.sh", NAME]
    assert set(plan.left_out) == {".dockerignore", "conf/other.xml", "__pycache__/x.pyc"}
    assert list(members(folder)) == ["conf/site.xml", "run.sh", NAME]
    assert members(folder)["run.sh"].mode == 0o755


def test_a_link_may_lead_to_a_file_of_the_folder_and_nowhere_else(folder: Path, tmp_path: Path) -> None:
    (folder / "same.xml").symlink_to("conf/site.xml")
    assert members(folder)["same.xml"].isreg()
    (tmp_path / "secret").write_text("key")
    (folder / "leak").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageProblem, match="points outside the folder"):
        plan_context(folder, NAME)


def test_what_cannot_be_sent_is_named(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageProblem, match="pipe is neither a file nor a folder"):
        plan_context(folder, NAME)
    (folder / "pipe").unlink()
    (folder / "dangling").symlink_to("nowhere")
    with pytest.raises(UsageProblem, match="cannot read .*dangling"):
        plan_context(folder, NAME)
    (folder / "dangling").unlink()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("")
    with pytest.raises(UsageProblem, match="is not UTF-8"):
        plan_context(folder, NAME)


def test_what_is_ignored_need_not_be_sendable(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "outside").symlink_to("/etc/hostname")
    (folder / "nested").symlink_to("conf")
    (folder / ".git").mkdir()
    os.mkfifo(folder / ".git" / "monitor")
    (folder / ".dockerignore").write_text("pipe\noutside\nnested\n")
    plan = plan_context(folder, NAME)
    assert [file.path for file in plan.files] == ["conf/site.xml", "run.sh", NAME]
    assert set(plan.left_out) == {".dockerignore", "pipe", "outside", "nested", ".git/monitor"}


def test_a_link_to_a_folder_is_not_left_out_in_silence(folder: Path) -> None:
    (folder / "nested").symlink_to("conf")
    with pytest.raises(UsageProblem, match="nested is a link to a folder"):
        plan_context(folder, NAME)


def test_a_folder_that_cannot_be_read_is_not_left_out_in_silence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("conf"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageProblem, match="cannot read .*conf: Permission denied"):
        plan_context(folder, NAME)


def test_a_folder_without_the_dockerfile(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=f"{NAME} does not exist in"):
        plan_context(tmp_path, NAME)


def test_a_file_that_grows_while_it_is_read(folder: Path) -> None:
    plan = plan_context(folder, NAME)
    (folder / "conf" / "site.xml").write_text("<longer/>")
    with pytest.raises(UsageProblem, match="changed while it was read"):
        plan.tar()
    (folder / "conf" / "site.xml").write_text("")
    with pytest.raises(UsageProblem, match="cannot read"):
        plan.tar()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python:3.11-slim", Reference(None, "python", "3.11-slim")),
        ("library/python", Reference(None, "library/python")),
        ("localhost/a", Reference("localhost", "a")),
        ("node2.bdcl:5000/airflow-worker:alice-0a", Reference("node2.bdcl:5000", "airflow-worker", "alice-0a")),
        ("localhost:5000/team/worker", Reference("localhost:5000", "team/worker")),
        ("host:5000/w", Reference("host:5000", "w")),
    ],
)
def test_names_are_read_as_docker_reads_them(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert str(expected) == text


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_a_usage_problem(text: str) -> None:
    with contextlib.suppress(UsageProblem):
        assert str(parse_reference(text)) == text
