"""A deploy with a folder and a server that can fail on demand."""

import datetime
import json
import random
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from replayctl import deploy
from replayctl.bundle.release import STORE, build_release
from replayctl.bundle.specs import Step, load_specs
from replayctl.bundle.stubs import stub_text
from replayctl.clients.airflow import DagInfo, ImportProblem
from replayctl.clients.airflow_runs import RunInfo
from replayctl.errors import (
    AuthFailed,
    Conflict,
    NotFound,
    OperationFailed,
    ServerTrouble,
    SettingsError,
    TimedOut,
    UsageProblem,
)
from replayctl.publishing.deployment import deployment_json
from replayctl.publishing.history import releases
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders
from replayctl.settings.load import load_settings
from replayctl.settings.namespace import Namespace, find_namespace
from replayctl.settings.workspace import Workspace
from tests.reporters import RecordingReporter

ROOT = Path(__file__).parents[2]
STUB = "dag_two_stage_scenarios_alice.py"


@dataclass
class FolderServer:
    """An Airflow that parses the folder at once; `broken` are releases that it cannot load, `blind` never looks."""

    dags_folder: Path
    broken: set[str] = field(default_factory=set)
    blind: bool = False
    stale_problems: list[ImportProblem] = field(default_factory=list)
    nudges: list[str] = field(default_factory=list)
    out_of_order: int = 0
    locked: bool = False
    trace: str = "Traceback: boom"
    running: tuple[str, ...] = ()
    specs: Mapping[str, set[str]] = field(default_factory=dict)

    def _release(self) -> str | None:
        pointer = self.dags_folder / STORE / "alice" / "current"
        return pointer.read_text().strip() if pointer.exists() and (self.dags_folder / STUB).exists() else None

    def dags(self) -> Iterable[DagInfo]:
        return [DagInfo("other", "/x/other.py", "token-of-other", False, False)]

    def reparse(self, file_token: str) -> None:
        if self.locked:
            raise AuthFailed("not yours to parse")
        self.nudges.append(file_token)

    def tasks_docs(self, dag_id: str) -> Mapping[str, str]:
        if self.out_of_order:
            self.out_of_order -= 1
            raise ServerTrouble("Airflow answered with status 503")
        if self.blind or self._release() in {None, *self.broken} or dag_id not in self.specs:
            raise NotFound(dag_id)
        return {task: f"Release: {self._release()}\n" for task in self.specs[dag_id]}

    def live_runs(self, dag_ids: Sequence[str]) -> list[RunInfo]:
        return [RunInfo(dag_id, "run1", "running", None, None) for dag_id in dag_ids if dag_id in self.running]

    def import_problems(self) -> list[ImportProblem]:
        problems = list(self.stale_problems)
        if self._release() in self.broken:
            problems.append(ImportProblem(STUB, self.trace, datetime.datetime.now(tz=datetime.UTC)))
        return problems


@pytest.fixture
def place(tmp_path: Path) -> tuple[Settings, Namespace, Path, FolderServer]:
    home = tmp_path / "local home"
    (home / "dags").mkdir(parents=True)
    environ = {"HOME": str(tmp_path), "REPLAYCTL_LOCAL_HOME": str(home), "USERNAME_ON_CLUSTER": "alice"}
    settings = load_settings(None, environ=environ | {"REPLAYCTL_DEPLOY_TIMEOUT_S": "0.3"}, cwd=tmp_path)
    folder = tmp_path / "dags"
    shutil.copytree(ROOT / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    server = FolderServer(home / "dags")
    namespace = find_namespace(settings)
    release = build_release(folder, deployment_json(settings, find_folders(settings), "alice"))
    server.specs = {dag.dag_id: {step.name for step in dag.steps} for dag in load_specs(release, timeout_s=30)}
    return settings, namespace, folder, server


def run(place: tuple[Settings, Namespace, Path, FolderServer], **kwargs: object) -> deploy.SyncReport:
    settings, namespace, folder, server = place
    find_server = kwargs.pop("find_server", lambda: server)
    options = deploy.SyncOptions(**kwargs)  # type: ignore[arg-type]
    return deploy.sync(
        folder, Workspace(settings, namespace, RecordingReporter()), find_server=find_server, options=options
    )


def test_a_first_deploy_makes_store_stub_pointer_and_spark_files(place: tuple) -> None:
    report = run(place)
    server = place[3]
    assert [action.action for action in report.actions] == ["upload", "create", "publish"]
    assert (server.dags_folder / ".airflowignore").read_text() == f"{STORE}\n"
    assert (server.dags_folder / STUB).read_text() == stub_text("dag_two_stage_scenarios", "alice")
    files = server.dags_folder.parent / "spark_submit_files" / "alice" / report.release
    assert sorted(path.name for path in files.iterdir()) == [
        ".manifest",
        "dag_submit.py",
        f"{report.release}.zip",
    ]
    assert report.seen_after_s is not None
    assert report.seen_after_s >= 0
    assert server.nudges == ["token-of-other"]


def test_unchanged_means_nothing_to_do_but_is_still_checked_on_the_server(place: tuple) -> None:
    first = run(place)
    second_report = run(place)
    assert not second_report.changed
    assert second_report.previous == first.release
    place[3].blind = True
    with pytest.raises(TimedOut, match="does not show"):
        run(place)


def test_dry_run_writes_nothing(place: tuple) -> None:
    report = run(place, dry_run=True)
    assert report.changed
    assert list(place[3].dags_folder.iterdir()) == []


def test_runs_under_way_are_named(place: tuple) -> None:
    place[3].running = ("two_stage_ml1m_alice",)
    for dry_run in (True, False):
        (live,) = run(place, dry_run=dry_run).runs
        assert (live.dag_id, live.run_id) == ("two_stage_ml1m_alice", "run1")


def test_a_dry_run_says_what_a_run_would_compute_and_reuse(place: tuple) -> None:
    def step() -> Step:
        dag = next(dag for dag in run(place, dry_run=True).plan if dag.dag_id == "two_stage_ml100k_alice")
        return next(step for step in dag.steps if step.name == "first_level_als")

    unseen = step()
    assert unseen.prospect == {"outcome": "compute", "why": ""}
    assert (unseen.parameters["kwargs"], unseen.overridden) == ({"rank": 32, "seed": 42}, {"rank": 100})
    folder = Path(unseen.artifact)
    folder.mkdir(parents=True)
    assert step().prospect == {"outcome": "compute", "why": ""}
    (folder / "_SUCCESS").touch()
    manifest = {"run": {"dag_id": "older_alice", "run_id": "r"}, "started_unix_s": 0, "seconds": 60.0, "release": "r_1"}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": {}}))
    prospect = step().prospect
    assert prospect is not None
    assert (prospect["outcome"], prospect["origin"]["dag_id"]) == ("reuse", "older_alice")
    assert prospect["origin"]["at"] == "1970-01-01T00:01:00+00:00"


def test_only_the_module_that_does_not_load_is_blamed(place: tuple) -> None:
    (place[2] / "dag_bad.py").write_text("def dag_specs(namespace):\n    raise RuntimeError('only mine')\n")
    with pytest.raises(UsageProblem) as excinfo:
        run(place)
    assert str(excinfo.value) == "dag_bad.py cannot be loaded: RuntimeError: only mine"
    assert excinfo.value.details == (
        'Traceback (most recent call last):\n  File "dags/dag_bad.py", line 2, in dag_specs\n'
        "    raise RuntimeError('only mine')\nRuntimeError: only mine"
    )
    assert "two_stage" not in f"{excinfo.value}{excinfo.value.details}{excinfo.value.hint}"


def test_a_step_without_a_workload_is_refused_before_anything_is_written(place: tuple) -> None:
    (place[2] / "dag_bad.py").write_text(
        "from .dag_specs import DagSpec, StepSpec\n\ndef dag_specs(namespace):\n"
        "    return (DagSpec(namespace.dag_id('x'), '', 'e', (StepSpec('s', 'nothing', 'd', {}),)),)\n"
    )
    with pytest.raises(
        UsageProblem, match="dag_bad.py cannot be loaded: ValueError: step s: unknown workload 'nothing'"
    ):
        run(place)
    assert list(place[3].dags_folder.iterdir()) == []


def test_after_an_import_error_the_previous_release_is_published_again(place: tuple) -> None:
    first = run(place)
    (place[2] / "dag_specs.py").write_text((place[2] / "dag_specs.py").read_text() + "\n# changed\n")
    broken = run(place, dry_run=True).release
    place[3].broken = {broken}
    with pytest.raises(OperationFailed, match=f"{first.release} is published again") as excinfo:
        run(place)
    assert excinfo.value.details == "Traceback: boom"
    assert (place[3].dags_folder / STORE / "alice" / "current").read_text().strip() == first.release


def test_an_import_error_of_a_first_deploy_removes_the_stubs(place: tuple) -> None:
    place[3].broken = {run(place, dry_run=True).release}
    with pytest.raises(OperationFailed, match="stubs were removed"):
        run(place)
    assert not (place[3].dags_folder / STUB).exists()


def test_an_import_error_from_before_is_not_ours(place: tuple) -> None:
    old = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    place[3].stale_problems = [ImportProblem(STUB, "old", old), ImportProblem("dag_other.py", "theirs", old)]
    assert run(place).seen_after_s is not None


def test_a_server_that_is_out_of_order_for_a_while_is_asked_again(place: tuple) -> None:
    place[3].out_of_order = 1
    assert run(place).seen_after_s is not None
    (place[2] / "dag_specs.py").write_text((place[2] / "dag_specs.py").read_text() + "\n# changed\n")
    place[3].out_of_order = 10_000
    with pytest.raises(TimedOut, match="last error: Airflow answered with status 503"):
        run(place)
    report = run(place, dry_run=True)
    assert not report.changed


def test_a_traceback_of_another_release_takes_nothing_back(place: tuple) -> None:
    class Late(FolderServer):
        def import_problems(self) -> list[ImportProblem]:
            now = datetime.datetime.now(tz=datetime.UTC)
            return [ImportProblem(STUB, 'File "/x/alice/r_0123456789abcdef/dag_x.py": boom', now)]

    server = Late(place[3].dags_folder, specs=place[3].specs)
    assert run(place, find_server=lambda: server).seen_after_s is not None


def test_a_server_that_lets_nobody_nudge_is_waited_for_all_the_same(place: tuple) -> None:
    place[3].locked = True
    assert run(place).seen_after_s is not None


def test_the_shipped_dags_never_replace_own_dags(place: tuple) -> None:
    settings, namespace, folder, server = place
    (folder / "dag_mine.py").write_text("def dag_specs(namespace):\n    return []\n")
    run(place)
    for dry_run in (True, False):
        with pytest.raises(UsageProblem, match="the shipped DAGs would replace .* dag_mine_alice.py came from"):
            deploy.sync(
                None,
                Workspace(settings, namespace, RecordingReporter()),
                find_server=lambda: server,
                options=deploy.SyncOptions(dry_run=dry_run),
            )
    assert (server.dags_folder / "dag_mine_alice.py").exists()


def test_a_second_project_removes_dags_of_the_first_only_on_request(place: tuple, tmp_path: Path) -> None:
    settings, namespace, first, server = place
    second = shutil.copytree(first, tmp_path / "second" / "dags")
    (first / "dag_mine.py").write_text("def dag_specs(namespace):\n    return []\n")
    run(place)
    for dry_run in (True, False):
        with pytest.raises(UsageProblem, match=f"dag_mine_alice.py came from {re.escape(str(first))} of .* on "):
            run((settings, namespace, second, server), dry_run=dry_run)
    assert (server.dags_folder / "dag_mine_alice.py").exists()
    run((settings, namespace, second, server), replace=True)
    assert not (server.dags_folder / "dag_mine_alice.py").exists()
    workspace = Workspace(settings, namespace, RecordingReporter())
    assert [record.source.folder for record in releases(workspace).releases if record.source] == [
        str(second),
        str(first),
    ]


def test_a_release_belongs_to_the_folder_that_published_it_last(place: tuple, tmp_path: Path) -> None:
    settings, namespace, first, server = place
    (first / "dag_mine.py").write_text("def dag_specs(namespace):\n    return []\n")
    second = shutil.copytree(first, tmp_path / "second" / "dags")
    run(place)
    (first / "dag_mine.py").unlink()
    run(place)
    run((settings, namespace, second, server))
    with pytest.raises(UsageProblem, match=re.escape(str(second))):
        run(place)


def test_a_dangling_link_at_a_stubs_name_is_not_overwritten(place: tuple) -> None:
    (place[3].dags_folder / STUB).symlink_to("/nowhere/x.py")
    with pytest.raises(Conflict, match="is a link of .*; it was not changed"):
        run(place)


def test_without_a_server_the_copy_says_that_nobody_looked(place: tuple) -> None:
    assert run(place, find_server=None).seen_after_s is None


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        (stub_text("dag_two_stage_scenarios", "bob"), "belongs to bob"),
        ("import airflow  # mine\n", "was not written by replayctl"),
    ],
)
def test_a_stub_name_that_belongs_to_somebody_else_is_refused(place: tuple, text: str, owner: str) -> None:
    (place[3].dags_folder / STUB).write_text(text)
    with pytest.raises(Conflict, match=owner):
        run(place)
    assert (place[3].dags_folder / STUB).read_text() == text
    assert [path.name for path in (place[3].dags_folder / STORE / "alice").iterdir()] == []


def test_a_module_that_goes_away_takes_its_stub_with_it_and_nobody_elses(place: tuple) -> None:
    (place[2] / "dag_mine.py").write_text("def dag_specs(namespace):\n    return []\n")
    others = place[3].dags_folder / "dag_mine_bob.py"
    others.write_text(stub_text("dag_mine", "bob"))
    run(place)
    assert (place[3].dags_folder / "dag_mine_alice.py").exists()
    (place[2] / "dag_mine.py").unlink()
    report = run(place)
    assert ("delete", "dag_mine_alice.py") in [(action.action, action.what) for action in report.actions]
    assert not (place[3].dags_folder / "dag_mine_alice.py").exists()
    assert others.exists()


def test_a_dag_outside_the_namespace_is_refused(place: tuple) -> None:
    (place[2] / "dag_mine.py").write_text(
        "from .dag_specs import DagSpec\n\ndef dag_specs(namespace):\n    return [DagSpec('mi' + 'ne', '', 'e', ())]\n"
    )
    with pytest.raises(UsageProblem, match="outside the namespace of alice"):
        run(place)


def test_a_module_whose_stub_would_have_too_long_a_name_is_refused(place: tuple) -> None:
    fits, too_long = (f"dag_{'x' * (100 - len('dag__alice.py') + more)}" for more in (0, 1))
    (place[2] / "dag_mine.py").write_text("def dag_specs(namespace):\n    return ()\n")
    (place[2] / "dag_mine.py").rename(place[2] / f"{fits}.py")
    assert ("create", f"{fits}_alice.py") in [(action.action, action.what) for action in run(place).actions]
    (place[2] / f"{fits}.py").rename(place[2] / f"{too_long}.py")
    with pytest.raises(UsageProblem, match="has more than 100 characters"):
        run(place)


def test_a_missing_dag_folder_is_named(place: tuple) -> None:
    shutil.rmtree(place[3].dags_folder)
    with pytest.raises(NotFound, match="does not exist"):
        run(place)


def test_an_ignore_file_of_others_keeps_its_lines(place: tuple) -> None:
    (place[3].dags_folder / ".airflowignore").write_text("scratch\nold_.*")
    run(place)
    run(place)
    assert (place[3].dags_folder / ".airflowignore").read_text() == f"scratch\nold_.*\n{STORE}\n"


def test_ten_thousand_hostile_names_are_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    chance = random.Random(1)
    pieces = [
        "..",
        "/",
        ";",
        "\n",
        " ",
        "$(x)",
        "`x`",
        "é",
        "\u202e",
        "'",
        '"',
        "\\",
        "|",
        "&",
        "*",
        "A",
        "_",
        "a",
        "-",
        "0",
    ]
    refusals = 0
    for _ in range(10_000):
        name = "".join(chance.choice(pieces) for _ in range(chance.randint(1, 12)))
        if re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
            continue
        environ = {"HOME": str(tmp_path), "USERNAME_ON_CLUSTER": name}
        with pytest.raises((UsageProblem, SettingsError)):
            find_namespace(load_settings(None, environ=environ, cwd=tmp_path))
        refusals += 1
    assert refusals > 9_500
    assert list(tmp_path.iterdir()) == []
