"""Folders as people have them: whatever lies in one, the answer is a release or one clear error, and no bug of ours."""

import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from replayctl.bundle import validation
from replayctl.bundle.release import Release, build_release
from replayctl.bundle.source_files import SourceFile, read_source
from replayctl.bundle.specs import load_specs
from replayctl.errors import TimedOut, UsageProblem

ROOT = Path(__file__).parents[3]
DEPLOYMENT = (
    '{"profile": "local", "user": "alice", "data_root": "/d", "artifacts_root": "/a", "spark_submit_files": "/f"}'
)
DEEP = "dag_mine.py"
ENTRY = b"\ndef dag_specs(namespace):\n    return ()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "dags", tmp_path / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "dags"


def build(folder: Path) -> Release:
    release = build_release(folder, DEPLOYMENT)
    validation.check(release, folder, artifacts_root="/opt/spark_data/replay")
    return release


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"caf\xe9.py", "character"),
        (b"new\nline.py", "character"),
        (b"tab\t.json", "character"),
        (b"x" * 101 + b".py", "long"),
    ],
)
def test_names_that_no_release_may_have(folder: Path, name: bytes, kind: str) -> None:
    Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).touch()
    with pytest.raises(UsageProblem, match=f"cannot be deployed: its name .*{kind}") as excinfo:
        build(folder)
    assert str(excinfo.value).encode()
    assert "\n" not in str(excinfo.value)


def test_names_of_what_is_not_deployed_may_be_any(folder: Path) -> None:
    Path(os.fsdecode(os.path.join(os.fsencode(folder), b"caf\xe9.ipynb"))).touch()
    assert build(folder).left_out == ("caf\udce9.ipynb",)


@pytest.mark.parametrize(
    "code",
    [
        b"X = " + b" + ".join([b"1"] * 1500),
        b"import os\nX = " + b" + ".join([b"os.sep"] * 1500),
        b"X = [" + b"".join(b"%d, " % number for number in range(20_000)) + b"]",
        b"\n".join(b"def f%d():\n    return f%d()" % (number, number + 1) for number in range(3000)) + b"\nf0()\n",
        b"\xef\xbb\xbfX = 1",
        b"# -*- coding: latin-1 -*-\nX = '\xe9'",
    ],
    ids=["terms", "attributes", "list", "calls", "bom", "latin-1"],
)
def test_code_that_python_takes_is_taken(folder: Path, code: bytes) -> None:
    (folder / DEEP).write_bytes(code + b"\n" + ENTRY)
    assert "dag_mine" in build(folder).modules


@pytest.mark.parametrize(
    "code",
    [
        b"X = " + b"-" * 100_000 + b"1",
        b"X = " + b"(" * 5000,
        b"X = " + b" + ".join([b"a"] * 5000),
        b"X = a" + b".b" * 3000,
        b"f" + b"()" * 4000,
        b"if a: pass\n" + b"elif a: pass\n" * 3000,
        b"X = 1\0",
        "X = 1".encode("utf-16"),
        b"X = '\xe9'",
        b"# -*- coding: nonsense -*-\n",
        b"# -*- coding: rot_13 -*-\n",
        b"X = " + b"1" * 5000,
        b"return 1",
    ],
)
def test_code_that_python_does_not_take_is_refused(folder: Path, code: bytes) -> None:
    (folder / DEEP).write_bytes(code + b"\n" + ENTRY)
    with pytest.raises(UsageProblem, match=r"dag_mine.py.* does not compile: ."):
        build(folder)


def test_what_the_compiler_warns_of_is_not_printed_in_between(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    (folder / DEEP).write_bytes(b"X = 1 is 1\nY = '\\d'\n" + ENTRY)
    build(folder)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["feed.sock", "helper.py"])
@pytest.mark.parametrize(
    "kind", ["a named pipe", "a socket", "cannot be followed", "itself", "a link to a folder", "a device"]
)
def test_special_files_are_named_and_never_opened(folder: Path, name: str, kind: str, tmp_path: Path) -> None:
    path = folder / name
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        working_dir = Path.cwd()
        os.chdir(folder)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(name)
        finally:
            os.chdir(working_dir)
    else:
        target = {"cannot be followed": "/nowhere", "itself": name, "a link to a folder": str(tmp_path)}
        path.symlink_to(target.get(kind, "/dev/zero"))
    reason = "cannot be followed" if kind == "itself" else kind
    if name == "feed.sock":
        (left_out,) = build_release(folder, DEPLOYMENT).left_out
        assert left_out.startswith("feed.sock (")
        assert reason in left_out
    else:
        with pytest.raises(UsageProblem, match="helper.py' cannot be deployed: it is ") as excinfo:
            build(folder)
        assert reason in str(excinfo.value)


def test_links_to_files_are_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text("X = 1\n")
    (folder / "helper.py").symlink_to(tmp_path / "shared.py")
    assert build(folder).content("helper.py") == b"X = 1\n"


def test_files_that_vanish_or_change_their_kind_meanwhile(folder: Path) -> None:
    with pytest.raises(UsageProblem, match="was removed while"):
        read_source(folder / "gone.py", 10)
    os.mkfifo(folder / "pipe.py")
    with pytest.raises(UsageProblem, match="not a regular file any more"):
        read_source(folder / "pipe.py", 10)
    (folder / "large.txt").write_bytes(b"x" * 11)
    with pytest.raises(UsageProblem, match="more than 10 bytes"):
        read_source(folder / "large.txt", 10)
    assert SourceFile(folder, "x").oddity is None


def test_a_file_in_place_of_the_folder_and_names_of_no_folder(folder: Path) -> None:
    for path in (folder / "__init__.py", folder / ("x" * 300), Path("/proc/self/mem"), folder / "a\nb"):
        with pytest.raises(UsageProblem, match="is not a DAG folder"):
            build(path)


def _as_nobody(folder: Path) -> str:
    """What somebody without root's rights is told; the test itself may be run by root."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            build(folder)
            answer = "built"
        except UsageProblem as error:
            answer = f"refused: {error}"
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            answer = f"bug: {error!r}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize("name", ["dag_two_stage_scenarios.py", "workloads", ".", "__init__.py"])
def test_what_cannot_be_read_is_named(name: str) -> None:
    import tempfile

    # Below a folder that everybody may enter, which pytest's own is not.
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        Path(scratch).chmod(0o755)
        folder = Path(scratch) / "dags"
        shutil.copytree(ROOT / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / name).chmod(0)
        try:
            answer = _as_nobody(folder)
        finally:
            (folder / name).chmod(0o755)
    assert answer.startswith("refused: ")
    assert "Permission denied" in answer or "is not a DAG folder" in answer


_LEAVES_A_CHILD = """
import os, time
if os.fork() == 0:
    {escape}
    time.sleep(600)
    os._exit(0)
open({pid!r}, "a").write("x")
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by /proc")
@pytest.mark.parametrize("escape", ["pass", "os.setsid()", "os.setsid()\n    if os.fork(): os._exit(0)"])
@pytest.mark.parametrize("ends", ["well", "badly", "too late"])
def test_no_process_of_a_module_outlives_the_loading(folder: Path, tmp_path: Path, escape: str, ends: str) -> None:
    marker = tmp_path / "marker"
    code = _LEAVES_A_CHILD.format(escape=escape, pid=str(marker))
    code += {"well": "", "badly": "raise ValueError\n", "too late": "time.sleep(600)\n"}[ends]
    (folder / DEEP).write_bytes(code.encode() + ENTRY)
    started = time.monotonic()
    try:
        load_specs(build_release(folder, DEPLOYMENT), timeout_s=30 if ends != "too late" else 3)
    except (UsageProblem, TimedOut):
        assert ends != "well"
    assert marker.exists()
    assert time.monotonic() - started < 25
    assert _loaders() == []


def _loaders() -> list[str]:
    loaders = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"spec_loader.py") for word in words) and str(os.getpid()).encode() in _ancestors(path):
            loaders.append(path.parent.name)
    return loaders


def _ancestors(path: Path) -> set[bytes]:
    """With what the test's own environment marks: processes of other tests at the same time are not ours."""
    try:
        environ = (path.parent / "environ").read_bytes().split(b"\0")
    except OSError:
        return set()
    return {entry.partition(b"=")[2] for entry in environ if entry.startswith(b"RCTL_TEST_PID=")}


@pytest.fixture(autouse=True)
def _mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCTL_TEST_PID", str(os.getpid()))
