"""Python environments that are really built, for nodes that have nothing but the C library."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import CACHE_DIR, ROOT

from .yarn_jobs import Answer, Workstation

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="needs a Python 3.11 to take apart"),
]

# What a standalone CPython does not bring: the C library, what PEP 600 expects of every system, OpenMP.
_NOT_BROUGHT = re.compile(r"lib(c|m|dl|pthread|rt|util|gcc_s|stdc\+\+|z|gomp)\.so|ld-linux")
# Packages of the shipped list: a compiled one that needs libz and others that need libgomp, a pure one, one with data.
_PACKAGES = (
    *("numpy", "scipy", "scikit-learn", "joblib", "threadpoolctl", "lightgbm", "narwhals"),
    *("python-dateutil", "six", "tzdata"),
)
_IN_USE = re.compile(r"(\S+) => (/\S+)")
_USER = "environments"


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with the layout of a standalone CPython, made from the Python that runs the tests.

    It brings its libraries as the real ones do, but needs the C library of this machine.
    """
    root = tmp_path_factory.mktemp("standalone") / "python"
    base = Path(sys.base_prefix)
    library = base / "lib" / "python3.11"
    (root / "bin").mkdir(parents=True)
    shutil.copy(base / "bin" / "python3.11", root / "bin")
    (root / "bin" / "python3").symlink_to("python3.11")
    ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__", "config-*")
    shutil.copytree(library, root / "lib" / "python3.11", ignore=ignored)
    # What every such archive brings, and nobody has asked for.
    (root / "lib" / "python3.11" / "site-packages" / "pip").mkdir(parents=True)
    (root / "lib" / "python3.11" / "site-packages" / "pip" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "tests.environment", "packing"],
        cwd=ROOT,
        env={**os.environ, "REPLAYCTL_CACHE_DIR": CACHE_DIR or ""},
        capture_output=True,
        text=True,
        check=True,
    )
    patchelf = Path(done.stdout.strip()) / "bin" / "patchelf"
    for path in [root / "bin" / "python3.11", *(root / "lib" / "python3.11" / "lib-dynload").glob("*.so")]:
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for name, source in _IN_USE.findall(linked):
            if not _NOT_BROUGHT.match(name):
                shutil.copy(source, root / "lib" / name)
        subprocess.run([patchelf, "--force-rpath", "--set-rpath", "$ORIGIN/../lib:$ORIGIN/../..", path], check=True)
    archive = root.parent / "cpython-3.11-install_only.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(root, "python")
    return archive


def build(home: Path, standalone: str, glibc: str = "2.36") -> Answer:
    """`build-python-env` of a part of the shipped list."""
    shipped = (ROOT / "docker" / "requirements" / "workload-spark.txt").read_text().splitlines()
    small = [line for line in shipped if line.partition("==")[0] in _PACKAGES]
    assert len(small) == len(_PACKAGES)
    (home / "small.txt").write_text("\n".join(small))
    packages = {"standalone_python": standalone, "requirements": str(home / "small.txt"), "glibc": glibc}
    settings = {"profiles": {"nodes": {"packages": packages, "cache_dir": str(home / "cache")}}}
    (home / "replayctl.yaml").write_text(json.dumps({"default_profile": "nodes", **settings}))
    return Workstation(home, home / "none", _USER, home).call("build-python-env", timeout=600)


def named(archive: Path) -> str:
    return f"{archive}#sha256={hashlib.sha256(archive.read_bytes()).hexdigest()}"


def test_a_standalone_python_runs_wherever_it_is_unpacked(standalone: Path, tmp_path: Path) -> None:
    answer = build(tmp_path, named(standalone))
    assert answer.code == 0, (answer.document["errors"], answer.stderr)
    assert answer.document["data"]["tried_in_isolation"] or os.geteuid() != 0
    with tarfile.open(answer.document["data"]["archive"]) as tar:
        names = tar.getnames()
        assert all(entry.isfile() for entry in tar)
        tar.extractall(tmp_path / "elsewhere", filter="data")
    assert not [name for name in names if "/pip/" in name or "tkinter" in name]
    # Pure Python is in two zips.
    assert not [name for name in names if "/json/" in name or "/tzdata/" in name]
    code = """
import dateutil.rrule, decimal, importlib.metadata, json, lightgbm, numpy, sqlite3, ssl, sys, traceback, zoneinfo
lightgbm.train({"verbose": -1}, lightgbm.Dataset(numpy.eye(40), numpy.arange(40)), 1)
openmp = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line}
zoneinfo.reset_tzpath([])
try:
    json.loads("{")
except ValueError:
    text = traceback.format_exc()
print(json.dumps([sys.base_prefix, str(zoneinfo.ZoneInfo("Asia/Tokyo")), numpy.ones(2).sum(),
    importlib.metadata.version("six"), json.__file__, text, sorted(openmp)]))
"""
    program = tmp_path / "elsewhere" / "bin" / "python3"
    done = subprocess.run([program, "-I", "-c", code], env={}, capture_output=True, text=True, check=True)
    prefix, zone, total, version, module, text, openmp = json.loads(done.stdout)
    assert f"{prefix}/lib/libgomp.so.1" in openmp
    assert (prefix, zone, total, version) == (str(program.parent.parent), "Asia/Tokyo", 2, "1.17.0")
    assert module == f"{prefix}/lib/python311.zip/json/__init__.pyc"
    # Tracebacks show the lines of what is in a zip.
    assert "return _default_decoder.decode(s)" in text


def test_nodes_with_an_older_c_library_are_named_before_any_package_is_installed(
    standalone: Path, tmp_path: Path
) -> None:
    answer = build(tmp_path, named(standalone), glibc="2.17")
    assert answer.code == 1
    assert "requires glibc 2." in answer.document["errors"][0]["message"]
    assert "installing" not in answer.stderr
    assert not list((tmp_path / "cache" / "python-envs").glob("*.tar.gz"))


def test_an_archive_that_is_another_one_is_refused(standalone: Path, tmp_path: Path) -> None:
    answer = build(tmp_path, f"{standalone}#sha256={'0' * 64}")
    assert "the profile names 0000" in answer.document["errors"][0]["message"]
    with contextlib.closing(tarfile.open(tmp_path / "empty.tar.gz", "w:gz")):
        pass
    answer = build(tmp_path, named(tmp_path / "empty.tar.gz"))
    assert "has no Python 3.11" in answer.document["errors"][0]["message"]
