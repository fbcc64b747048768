"""Names, tags and contents of wheels and jars, as they are checked before anything is sent."""

import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.bundle.package_files import (
    Runtime,
    check_contents,
    chunks_of,
    digest_of_start,
    product_of,
    read_package,
    refuse_twins,
)
from replayctl.errors import UsageProblem

RUNTIME = Runtime(python="3.11", scala="2.12", glibc="2.28", machine="x86_64")


def wheel(folder: Path, name: str, *, metadata: str | None = None) -> Path:
    path = folder / name
    distribution, version = name.split("-")[:2]
    text = metadata if metadata is not None else f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{distribution}/__init__.py", "VALUE = 1\n" * 100)
        archive.writestr(f"{distribution}-{version}.dist-info/METADATA", text)
        archive.writestr(f"{distribution}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    return path


def jar(folder: Path, name: str) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/B.class", os.urandom(1000))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a-1.0-py3-none-any.whl",
        "a-1.0-py2.py3-none-any.whl",
        "a-1.0+alice.h0123-py3-none-any.whl",
        "a-1.0-1-py3-none-any.whl",
        "a-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "a-1.0-cp38-abi3-manylinux2014_x86_64.whl",
        "a-1.0-py3-none-manylinux2014_x86_64.whl",
    ],
)
def test_wheels_that_fit(tmp_path: Path, name: str) -> None:
    package = read_package(wheel(tmp_path, name), RUNTIME)
    assert (package.kind, package.product) == ("wheel", "a")
    assert bool(package.warnings) == (not name.endswith("-any.whl"))
    check_contents(package)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a.whl", "does not have the name of a wheel"),
        ("a-1.0-py3-none.whl", "does not have the name of a wheel"),
        ("a-x.y-py3-none-any.whl", "does not have the name of a wheel"),
        ("a-1.0-cp310-cp310-manylinux2014_x86_64.whl", "the cluster has Python 3.11"),
        ("a-1.0-cp311-cp311-manylinux_2_34_x86_64.whl", "glibc 2.28"),
        ("a-1.0-cp311-cp311-manylinux2014_aarch64.whl", "on x86_64"),
        ("a-1.0-cp311-cp311-musllinux_1_2_x86_64.whl", "for musllinux_1_2_x86_64"),
        ("a-1.0-cp311-cp311-macosx_11_0_arm64.whl", "for macosx_11_0_arm64"),
        ("a-1.0-py2-none-any.whl", "py2-none-any"),
        ("a b-1.0-py3-none-any.whl", "invalid name"),
        ("a-1.0-py3-none-any.zip", "neither a wheel nor a jar"),
    ],
)
def test_wheels_that_do_not_fit(tmp_path: Path, name: str, why: str) -> None:
    path = tmp_path / name
    path.write_bytes(wheel(tmp_path, "b-1.0-py3-none-any.whl").read_bytes())
    with pytest.raises(UsageProblem, match=why):
        read_package(path, RUNTIME)


@pytest.mark.parametrize(
    ("required", "fits"),
    [
        (">=3.9", True),
        (">=3.11,<3.12", True),
        (">=3.11.4", True),
        ("==3.11.*", True),
        (">=3.12", False),
        ("<3.11", False),
        ("nonsense", False),
    ],
)
def test_requires_python(tmp_path: Path, required: str, fits: bool) -> None:
    metadata = f"Metadata-Version: 2.1\nName: a\nVersion: 1.0\nRequires-Python: {required}\n"
    path = wheel(tmp_path, "a-1.0-py3-none-any.whl", metadata=metadata)
    if fits:
        assert read_package(path, RUNTIME)
    else:
        with pytest.raises(UsageProblem, match="Requires-Python|requires Python"):
            read_package(path, RUNTIME)


def test_a_renamed_wheel_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, "a-1.0-py3-none-any.whl").rename(tmp_path / "a-2.0-py3-none-any.whl")
    with pytest.raises(UsageProblem, match=r"names a 1\.0"):
        read_package(path, RUNTIME)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("replay_2.12-0.1.jar", True),
        ("replay_2.12.jar", True),
        ("replay_2.13-0.1.jar", False),
        ("replay_2.11-0.1.jar", False),
        ("replay_3-0.1.jar", False),
        ("guava-2.13.jar", True),
        ("postgresql-42.7.3.jar", True),
        ("mssql-jdbc_3.jar", False),
        ("mssql-jdbc_3.1.jar", True),
        ("kind-projector_2.12.18-0.13.jar", True),
    ],
)
def test_scala(tmp_path: Path, name: str, fits: bool) -> None:
    path = jar(tmp_path, name)
    if fits:
        assert read_package(path, RUNTIME).kind == "jar"
    else:
        with pytest.raises(UsageProblem, match=r"the cluster's Spark has Scala 2\.12"):
            read_package(path, RUNTIME)


@pytest.mark.parametrize("cut", [10, 200])
def test_a_cut_download_is_refused(tmp_path: Path, cut: int) -> None:
    path = jar(tmp_path, "a-1.jar")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UsageProblem, match="is damaged"):
        read_package(path, RUNTIME)


def test_a_table_of_contents_that_points_before_the_file_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, "a-1.0-py3-none-any.whl")
    content = bytearray(path.read_bytes())
    # The offset of the table, in the record at the end.
    content[-6:-2] = (int.from_bytes(content[-6:-2], "little") + 1000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match="is damaged"):
        check_contents(read_package(path, RUNTIME))


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = jar(tmp_path, "a-1.jar")
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    package = read_package(path, RUNTIME)
    with pytest.raises(UsageProblem, match="is damaged"):
        check_contents(package)


def test_special_files_are_rejected_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a-1.jar")
    with pytest.raises(UsageProblem, match="not a regular file"):
        read_package(tmp_path / "a-1.jar", RUNTIME)
    (tmp_path / "b-1.jar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageProblem, match="cannot read .*b-1.jar: No such file"):
        read_package(tmp_path / "b-1.jar", RUNTIME)


def test_two_builds_of_one_package_are_refused(tmp_path: Path) -> None:
    one = read_package(jar(tmp_path, "model_2.12-1.0.jar"), RUNTIME)
    two = read_package(jar(tmp_path, "model_2.12-1.1.jar"), RUNTIME)
    refuse_twins([one, one])
    with pytest.raises(UsageProblem, match="two builds of model_2.12"):
        refuse_twins([one, two])


@given(offset=st.integers(0, 1200))
def test_bytes_from_anywhere(tmp_path_factory: pytest.TempPathFactory, offset: int) -> None:
    path = jar(tmp_path_factory.mktemp("jars"), "a-1.jar")
    package = read_package(path, RUNTIME)
    content = path.read_bytes()
    offset = min(offset, len(content))
    assert b"".join(chunks_of(package, offset)) == content[offset:]
    assert digest_of_start(package, package.size) == package.sha256


def test_a_file_that_changes_meanwhile_is_not_sent_by_half(tmp_path: Path) -> None:
    path = jar(tmp_path, "a-1.jar")
    package = read_package(path, RUNTIME)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UsageProblem, match="was changed during the upload"):
        list(chunks_of(package, 0))


@given(
    product=st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z]{1,5})?(_2\.1[23])?", fullmatch=True),
    version=st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,3}){0,3}(-[a-z]{1,5})?", fullmatch=True),
)
def test_a_product_is_the_same_in_all_its_versions(product: str, version: str) -> None:
    assert product_of(f"{product}-{version}.jar") == product_of(f"{product}-9.9.jar") == product


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("spark-sql-kafka-0-10_2.12-3.5.1.jar", "spark-sql-kafka-0-10_2.12"),
        ("spark-streaming-kafka-0-10_2.12-3.5.1-SNAPSHOT.jar", "spark-streaming-kafka-0-10_2.12"),
        ("kind-projector_2.12.18-0.13.3.jar", "kind-projector_2.12.18"),
        ("cats-core_3-2.10.0.jar", "cats-core_3"),
        ("replay_2.12.jar", "replay_2.12"),
        ("delta-1.0_2.12.jar", "delta"),
        ("guava-31.1-jre.jar", "guava"),
        ("hive-shims-2.3.9.jar", "hive-shims"),
        ("hive-shims-0.23-2.3.9.jar", "hive-shims-0.23"),
        ("hive-shims-common-2.3.9.jar", "hive-shims-common"),
        ("log4j-1.2.17.jar", "log4j"),
        ("log4j-1.2-api-2.20.0.jar", "log4j-1.2-api"),
        ("flink-shaded-hadoop-2-uber-2.8.3-10.0.jar", "flink-shaded-hadoop-2-uber"),
        ("jsr-275-1.0-beta-2.jar", "jsr-275"),
        ("geotools-wrapper-1.6.0-28.2.jar", "geotools-wrapper"),
        ("hadoop-common-3.1.1.7.1.7.0-551.jar", "hadoop-common"),
        ("hadoop-lzo-0.4.15-cdh5.16.2.jar", "hadoop-lzo"),
        ("google-api-services-storage-v1-rev20230301-2.0.0.jar", "google-api-services-storage"),
        ("geronimo-jcache_1.0_spec-1.0-alpha-1.jar", "geronimo-jcache_1.0_spec"),
        ("replay-0.1-SNAPSHOT.jar", "replay"),
        ("replay-0.1-20260131.120000-1.jar", "replay"),
        ("netty-tcnative-2.0.61.Final-linux-x86_64.jar", "netty-tcnative"),
    ],
)
def test_a_jar_is_named_without_its_own_version(name: str, product: str) -> None:
    assert product_of(name) == product


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_found_whatever_the_compression(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a-1.0.jar"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/B.class", os.urandom(1000))
    content = bytearray(path.read_bytes())
    for place in range(80, 200):
        content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match="damaged"):
        check_contents(read_package(path, RUNTIME))


def test_jars_whose_names_have_numbers_are_no_twins(tmp_path: Path) -> None:
    names = ("hive-shims-2.3.9.jar", "hive-shims-0.23-2.3.9.jar", "log4j-1.2.17.jar", "log4j-1.2-api-2.20.0.jar")
    refuse_twins([read_package(jar(tmp_path, name), RUNTIME) for name in names])
    with pytest.raises(UsageProblem, match=r"two builds of hive-shims-0\.23"):
        refuse_twins(
            [read_package(jar(tmp_path, f"hive-shims-0.23-{name}.jar"), RUNTIME) for name in ("2.3.9", "3.1.3")]
        )


@given(name=st.text(max_size=40))
def test_any_name_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    for suffix in (".whl", ".jar", ""):
        with pytest.raises((UsageProblem, ValueError)):
            read_package(folder / f"{name}{suffix}", RUNTIME)
