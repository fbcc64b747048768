"""Which stored files a release runs with."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from replayctl.bundle.python_list import environment_prefix, read_requirements
from replayctl.bundle.specs import Dag, Step
from replayctl.errors import NotFound
from replayctl.local.environments import spark_requirements
from replayctl.publishing import package_references
from replayctl.publishing.package_references import find_packages
from replayctl.settings.load import load_settings
from replayctl.settings.namespace import find_namespace
from replayctl.settings.workspace import Workspace
from replayctl.storage.packages import Stored, StoredPackage
from tests.reporters import SilentReporter


def package(number: int, name: str, at: str = "2026-01-01T00:00:00+00:00") -> StoredPackage:
    return StoredPackage(f"p_{number:016x}", name, 1, None, {"at": at})


class Stores:
    """The stores of the namespaces, by their folders' names."""

    def __init__(self) -> None:
        self.packages: dict[str, list[StoredPackage]] = {}

    @contextmanager
    def open(self, workspace: Workspace):
        owner = workspace.namespace.directory
        packages = {entry.folder: entry for entry in self.packages.get(owner, [])}
        yield type("Store", (), {"root": f"hdfs://nn:9000/{owner}", "look": lambda _: Stored(packages, {})})()


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Stores:
    stores = Stores()
    monkeypatch.setattr(package_references, "open_store", stores.open)
    return stores


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    environ = {"HOME": str(tmp_path), "USERNAME_ON_CLUSTER": "alice", "REPLAYCTL_PACKAGES_ENVIRONMENT": "true"}
    settings = load_settings("lab", environ=environ, cwd=tmp_path)
    return Workspace(settings, find_namespace(settings), SilentReporter())


def dags(*packages: str, on_yarn: bool = False) -> list[Dag]:
    step = Step("score", "0" * 16, "/a", (), packages=packages, on_yarn=on_yarn)
    return [Dag("d_alice", "dag_d", "", "e", (step,))]


def test_nothing_is_looked_up_for_steps_that_need_nothing(workspace: Workspace) -> None:
    assert find_packages(workspace, dags()) is None


def test_names_stand_for_the_newest_file(workspace: Workspace, stores: Stores) -> None:
    stores.packages["alice"] = [
        package(1, "replay_2.12-0.1.jar"),
        package(2, "replay_2.12-0.2.jar", "2026-01-02T00:00:00+00:00"),
    ]
    packages = find_packages(workspace, dags("replay_2.12", "replay_2.12-0.1.jar"))
    assert packages is not None
    assert {name: reference.digest for name, reference in packages.named.items()} == {
        "replay_2.12": f"{2:016x}",
        "replay_2.12-0.1.jar": f"{1:016x}",
    }
    assert packages.named["replay_2.12"].path == f"hdfs://nn:9000/alice/p_{2:016x}/replay_2.12-0.2.jar"


@pytest.mark.parametrize("name", ["my_models", "my-models", "My.Models"])
def test_wheels_are_named_as_python_names_projects(workspace: Workspace, stores: Stores, name: str) -> None:
    stores.packages["alice"] = [package(1, "my_models-1.0-py3-none-any.whl")]
    packages = find_packages(workspace, dags(name))
    assert packages is not None
    assert packages.named[name].digest == f"{1:016x}"


def test_own_packages_take_precedence_over_common_ones(workspace: Workspace, stores: Stores) -> None:
    stores.packages = {"alice": [package(1, "a-1.jar")], "_shared": [package(2, "a-2.jar"), package(3, "b-1.jar")]}
    packages = find_packages(workspace, dags("a", "b"))
    assert packages is not None
    assert {name: reference.digest[-1] for name, reference in packages.named.items()} == {"a": "1", "b": "3"}


def test_an_unknown_name_says_which_step_wants_it(workspace: Workspace, stores: Stores) -> None:
    with pytest.raises(NotFound, match="package a.jar of step score is not stored") as excinfo:
        find_packages(workspace, dags("a.jar"))
    assert "upd-wheels-and-jars" in str(excinfo.value.hint)


def test_the_environment_is_that_of_the_profiles_list(workspace: Workspace, stores: Stores) -> None:
    path = spark_requirements(workspace.settings)
    prefix = environment_prefix(path, read_requirements(path), "3.11")
    with pytest.raises(NotFound, match="is not stored for steps on YARN") as excinfo:
        find_packages(workspace, dags(on_yarn=True))
    assert "build-python-env" in str(excinfo.value.hint)
    stores.packages["alice"] = [
        package(1, f"{prefix}0123456789ab.tar.gz"),
        package(2, "workload-spark-py3.11-ffffffffffff-0123456789ab.tar.gz", "2026-01-03T00:00:00+00:00"),
    ]
    packages = find_packages(workspace, dags(on_yarn=True))
    assert packages is not None
    assert packages.python is not None
    assert packages.python.digest == f"{1:016x}"
