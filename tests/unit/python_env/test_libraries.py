"""Libraries that packages expect of a system, taken from other packages."""

from pathlib import Path

import pytest

from replayctl.errors import OperationFailed
from replayctl.python_env.libraries import bundle_libraries

NEEDS = b"\x7fELF\0libm.so.6\0libgomp.so.1\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("bin", "lib/python3.11/site-packages/lightgbm"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    (tmp_path / "tree" / "bin" / "python3").touch()
    (tmp_path / "tree" / "lib" / "python3.11" / "site-packages" / "lightgbm" / "lib_lightgbm.so").write_bytes(NEEDS)
    (tmp_path / "patchelf").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/patched\n')
    (tmp_path / "patchelf").chmod(0o755)
    return tmp_path / "tree"


def bundle(tree: Path) -> None:
    bundle_libraries(tree, tree / "lib" / "python3.11" / "site-packages", tree.parent / "patchelf")


def test_a_library_that_packages_need_comes_from_another_wheel(tree: Path) -> None:
    wheel = tree / "lib" / "python3.11" / "site-packages" / "scikit_learn.libs"
    wheel.mkdir()
    (wheel / "libgomp-24e2ab19.so.1.0.0").write_bytes(b"\x7fELF gomp")
    bundle(tree)
    assert (tree / "lib" / "libgomp.so.1").read_bytes() == b"\x7fELF gomp"
    patched = (tree.parent / "patched").read_text()
    assert patched == f"--force-rpath --set-rpath $ORIGIN/../lib {tree}/bin/python3\n"


def test_without_a_wheel_that_has_it_the_package_that_needs_it_is_named(tree: Path) -> None:
    with pytest.raises(OperationFailed, match=r"lightgbm/lib_lightgbm\.so requires libgomp\.so\.1"):
        bundle(tree)


def test_what_the_interpreter_brings_or_nothing_needs_is_left_alone(tree: Path) -> None:
    (tree / "lib" / "libgomp.so.1").write_bytes(b"own")
    bundle(tree)
    assert (tree / "lib" / "libgomp.so.1").read_bytes() == b"own"
    (tree / "lib" / "libgomp.so.1").unlink()
    # A text that names it needs none, nor does a library of a longer name.
    library = tree / "lib" / "python3.11" / "site-packages" / "lightgbm" / "lib_lightgbm.so"
    for content in (b"libgomp.so.1\0", b"\x7fELF\0libgomp.so.1.0\0"):
        library.write_bytes(content)
        bundle(tree)
    assert not (tree.parent / "patched").exists()
