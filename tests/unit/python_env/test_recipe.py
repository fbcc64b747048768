"""What decides an environment's name, and which lists are refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.bundle.package_files import Runtime, kind_of, product_of
from replayctl.bundle.python_list import environment_prefix, read_requirements
from replayctl.errors import SettingsError, UsageProblem
from replayctl.python_env.recipe import Interpreter, Recipe, parse_standalone

RUNTIME = Runtime("3.11", "2.12", "2.36", "x86_64")
SHA = "0123456789abcdef" * 4
INTERPRETER = Interpreter("debian", (("python3.11-minimal_3.11.2_amd64.deb", SHA),))
_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
_PINS = st.builds("{}=={}".format, _NAMES, st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", fullmatch=True))


def recipe(
    *pins: str, runtime: Runtime = RUNTIME, interpreter: Interpreter = INTERPRETER, path: str = "workload-spark.txt"
) -> Recipe:
    return Recipe(Path(path), pins, runtime, interpreter)


@given(st.lists(_PINS, min_size=1, max_size=8, unique=True), _NAMES)
def test_names_of_archives_are_packages_of_one_product(pins: list[str], stem: str) -> None:
    subject = recipe(*pins, path=f"{stem}.txt")
    assert kind_of(subject.file_name) == "environment"
    prefix = environment_prefix(Path(f"{stem}.txt"), pins, "3.11")
    assert subject.file_name.startswith(prefix)
    assert prefix.startswith(f"{product_of(subject.file_name)}-py3.11-")


def test_every_input_counts() -> None:
    usual = recipe("numpy==2.4.6")
    others = [
        recipe("numpy==2.4.5"),
        recipe("numpy==2.4.6", runtime=Runtime("3.12", "2.12", "2.36", "x86_64")),
        recipe("numpy==2.4.6", runtime=Runtime("3.11", "2.12", "2.28", "x86_64")),
        recipe("numpy==2.4.6", runtime=Runtime("3.11", "2.12", "2.36", "aarch64")),
        recipe("numpy==2.4.6", interpreter=Interpreter("debian", ((INTERPRETER.files[0][0], SHA[::-1]),))),
    ]
    assert len({usual.inputs, *(other.inputs for other in others)}) == 6
    # The mirror and the Scala of Spark do not.
    moved = Interpreter(INTERPRETER.kind, ((f"https://mirror/{INTERPRETER.files[0][0]}", SHA),))
    assert recipe("numpy==2.4.6", interpreter=moved).inputs == usual.inputs
    standalones = [Interpreter("standalone", ((name, SHA),)) for name in ("https://host/a.tar.gz", "/files/b.tar.gz")]
    assert len({recipe("numpy==2.4.6", interpreter=interpreter).inputs for interpreter in standalones}) == 1
    assert recipe("numpy==2.4.6", runtime=Runtime("3.11", "2.13", "2.36", "x86_64")).inputs == usual.inputs


def test_spark_is_left_to_the_cluster() -> None:
    subject = recipe("numpy==2.4.6", "pyspark==3.5.9", "Py4J==0.10.9.9")
    assert subject.packed == ("numpy==2.4.6",)
    assert subject.from_spark == ("pyspark==3.5.9", "Py4J==0.10.9.9")


def test_a_list_in_any_order_with_comments_is_the_same(tmp_path: Path) -> None:
    pins = ("numpy==2.4.6", "Pandas==2.3.3", "six==1.17.0")
    (tmp_path / "a.txt").write_text("\n".join(pins))
    (tmp_path / "b.txt").write_text("# a comment\n\n" + "\n".join(f" {pin}  # why" for pin in reversed(pins)))
    assert read_requirements(tmp_path / "a.txt") == read_requirements(tmp_path / "b.txt") == pins


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "-r other.txt", "numpy==2; python_version>'3'", "./a.whl"])
def test_what_leaves_a_version_open_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"pandas==2.3.3\n{line}\n")
    with pytest.raises(UsageProblem, match=r"list.txt:2: .* is not NAME==VERSION"):
        read_requirements(path)


def test_an_empty_or_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="cannot read"):
        read_requirements(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(UsageProblem, match="lists no packages"):
        read_requirements(tmp_path / "empty.txt")


@pytest.mark.parametrize("text", ["https://host/python.tar.gz", f"#sha256={SHA}", f"x#sha256={SHA[:-1]}", "x#md5=0"])
def test_a_standalone_python_needs_its_checksum(text: str) -> None:
    with pytest.raises(SettingsError, match="expected URL#sha256"):
        parse_standalone(text)


def test_a_standalone_python_is_an_address_and_a_checksum() -> None:
    assert parse_standalone(f"https://host/python.tar.gz#sha256={SHA}") == ("https://host/python.tar.gz", SHA)
