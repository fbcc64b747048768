"""What is taken out of an environment, what would keep it from running elsewhere, and how it is packed."""

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from replayctl.bundle.package_files import Runtime
from replayctl.errors import OperationFailed, UsageProblem
from replayctl.python_env.archive import pack
from replayctl.python_env.check import check_interpreter, check_tree, imports_of, installed_modules, resolve_links
from replayctl.python_env.recipe import Interpreter
from replayctl.python_env.trim import trim
from replayctl.python_env.zips import may_be_zipped

RUNTIME = Runtime("3.11", "2.12", "2.36", "x86_64")
PACKAGES = Path("lib") / "python3.11" / "dist-packages"


def write(tree: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def files(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}


def test_only_what_steps_need_is_left(tmp_path: Path) -> None:
    expected = {
        "bin/python3",
        "lib/libgomp.so.1",
        "lib/python3.11/os.py",
        f"{PACKAGES}/a/__init__.py",
        f"{PACKAGES}/a/testing.py",
        f"{PACKAGES}/a-1.dist-info/METADATA",
        f"{PACKAGES}/a/data.csv",
    }
    write(tmp_path, *expected)
    write(
        tmp_path,
        "bin/pip",
        "include/Python.h",
        "share/man/x",
        "lib/pkgconfig/x.pc",
        "lib/python3.11/test/x.py",
        "lib/python3.11/config-3.11/Makefile",
        f"{PACKAGES}/a/tests/test_a.py",
        f"{PACKAGES}/a/include/a.py",
        f"{PACKAGES}/a/__pycache__/a.pyc",
        f"{PACKAGES}/a/a.pyi",
        f"{PACKAGES}/a/a.pxd",
        f"{PACKAGES}/a/gpu/_cuda.so",
        f"{PACKAGES}/a/meson.build",
        f"{PACKAGES}/a/conftest.py",
        f"{PACKAGES}/a-1.dist-info/RECORD",
    )
    trim(tmp_path, "3.11")
    assert files(tmp_path) == expected


def test_links_inside_become_files_and_links_outside_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "lib/libx.so.1.2")
    (tmp_path / "lib" / "libx.so.1").symlink_to("libx.so.1.2")
    resolve_links(tmp_path)
    assert not (tmp_path / "lib" / "libx.so.1").is_symlink()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to("/usr/bin/python3")
    with pytest.raises(OperationFailed, match=r"bin/python3 points to /usr/bin/python3"):
        resolve_links(tmp_path)
    with pytest.raises(OperationFailed, match="bin/python3 is a link"):
        check_tree(tmp_path, RUNTIME, "debian")


@pytest.mark.parametrize(("needed", "fits"), [(b"GLIBC_2.17", True), (b"GLIBC_2.36", True), (b"GLIBC_2.38", False)])
def test_the_c_library_of_the_nodes_is_the_limit(tmp_path: Path, needed: bytes, fits: bool) -> None:
    write(tmp_path, "lib/a.so", content=b"\x7fELF" + b"\0GLIBC_2.2.5\0" + needed + b"\0")
    # A text that mentions one needs none.
    write(tmp_path, "lib/notes.txt", content=b"\0GLIBC_2.99\0")
    if fits:
        check_tree(tmp_path, RUNTIME, "debian")
        return
    with pytest.raises(OperationFailed, match=r"lib/a.so requires glibc 2.38, the cluster's nodes have 2.36"):
        check_tree(tmp_path, RUNTIME, "debian")


def test_an_interpreter_that_is_too_new_is_refused_with_a_hint_to_paste() -> None:
    for glibc in (None, "2.9", "2.36"):
        check_interpreter(Interpreter("debian", (), glibc), RUNTIME)
    with pytest.raises(OperationFailed, match=r"requires glibc 2.37, the cluster's nodes have 2.36") as raised:
        check_interpreter(Interpreter("debian", (), "2.37"), RUNTIME)
    assert "export REPLAYCTL_PACKAGES_STANDALONE_PYTHON=" in (raised.value.hint or "")
    assert "export REPLAYCTL_PACKAGES_GLIBC=2.37" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("name", "kind", "way_out"),
    [
        ("bin/python3", "debian", "name a standalone CPython (cpython-"),
        ("bin/python3", "standalone", "name a standalone CPython that was built for an older C library"),
        (f"{PACKAGES}/a/b.so", "standalone", "pin a version that has a wheel for the nodes' C library"),
    ],
)
def test_what_is_too_new_decides_what_to_do(tmp_path: Path, name: str, kind: str, way_out: str) -> None:
    write(tmp_path, name, content=b"\x7fELF\0GLIBC_2.38\0")
    with pytest.raises(OperationFailed, match=r"requires glibc 2\.38") as raised:
        check_tree(tmp_path, RUNTIME, kind)
    assert (raised.value.hint or "").startswith(way_out)


@pytest.mark.parametrize(
    ("name", "content", "zipped"),
    [
        ("pure/__init__.py", b"import os", True),
        ("pure/README.md", b"", True),
        ("compiled/_speed.cpython-311-x86_64-linux-gnu.so", b"", False),
        ("data/table.csv", b"", False),
        ("reads/part.py", b"open(os.path.dirname(__file__) + '/x')", False),
        ("gets/part.py", b"pkgutil.get_data('gets', 'x')", False),
        # Known to name its path in warnings only, and to read its data by importlib.resources.
        ("polars/__init__.py", b"__file__", True),
        ("tzdata/zoneinfo/CET", b"", True),
        ("pure-1.0.dist-info/METADATA", b"", True),
    ],
)
def test_only_pure_packages_that_do_not_read_their_own_path_are_zipped(
    tmp_path: Path, name: str, content: bytes, zipped: bool
) -> None:
    package = tmp_path / Path(name).parts[0]
    write(package, "module.py")
    write(tmp_path, name, content=content)
    assert may_be_zipped(package) == zipped


def test_an_archive_follows_from_its_content_alone(tmp_path: Path) -> None:
    sums = set()
    for order in (("bin/python3", "lib/a.py"), ("lib/a.py", "bin/python3")):
        tree = tmp_path / order[0].replace("/", "-")
        write(tree, *order)
        (tree / "bin" / "python3").chmod(0o700)
        result: list[float] = []
        packed = pack(tree, tmp_path / "out.tar.gz", result.append)
        assert (packed.files, packed.unpacked, sum(result)) == (2, 2, 2)
        assert packed.size == (tmp_path / "out.tar.gz").stat().st_size
        sums.add(packed.sha256)
    assert len(sums) == 1
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress((tmp_path / "out.tar.gz").read_bytes()))) as archive:
        assert [(entry.name, entry.mode, entry.uid) for entry in archive] == [
            ("bin/python3", 0o755, 0),
            ("lib/a.py", 0o644, 0),
        ]


def test_the_workloads_imports_of_installed_packages_are_known(tmp_path: Path) -> None:
    write(tmp_path / "installed", "sklearn/__init__.py", "six.py")
    write(
        tmp_path / "dags",
        "workloads/a.py",
        content=b"import json\nimport six\ndef run():\n    from sklearn.ensemble import X\n    import pyspark\n",
    )
    imports = imports_of(tmp_path / "dags")
    assert imports == {"json", "six", "sklearn.ensemble", "pyspark"}
    assert installed_modules(imports, tmp_path / "installed") == ["six", "sklearn.ensemble"]


@pytest.mark.parametrize("content", [b"def run(:\n", b"x = '\xff'\n", b"x = 1\0\n"])
def test_a_workload_that_is_not_python_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "workloads/a.py", content=content)
    with pytest.raises(UsageProblem, match=r"cannot parse .*workloads/a\.py"):
        imports_of(tmp_path)


def test_large_libraries_are_not_read_into_memory(tmp_path: Path) -> None:
    write(tmp_path, "lib/a.so", "lib/b.dat", content=b"\x7fELF\0GLIBC_2.17\0" + b"x" * (64 << 20))
    (tmp_path / "lib" / "b.dat").write_bytes(b"x" * (64 << 20))
    tracemalloc.start()
    check_tree(tmp_path, RUNTIME, "debian")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
