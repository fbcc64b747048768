"""The leaderboard: evaluations that are recorded completely, the newest or all, and what differs between them."""

import contextlib
import datetime
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from dags.dag_entities import Namespace
from replayctl import cli
from replayctl.clients.mlflow import MlflowApi, MlflowRun
from replayctl.errors import NotFound, UsageProblem
from replayctl.experiments.leaderboard import find_leaderboard, read_leaderboard


def run(run_id: str, level: str, at: int, parent: str = "", dag: str = "two_stage_alice", **tags: str) -> MlflowRun:
    own = {"replayctl.level": level, "replayctl.row": run_id, "replayctl.evaluation": f"e{at}"}
    own |= {"replayctl.dag_id": dag, "replayctl.run_id": f"run{at}", "replayctl.split": "0123456789abcdef"}
    own |= {"mlflow.parentRunId": parent} if parent else {}
    own |= {f"replayctl.{name}": text for name, text in tags.items()}
    return MlflowRun(run_id, run_id, at, {"NDCG.10": 0.1}, {}, own)


def used(recorded: MlflowRun, run_id: str, at: int, dag_id: str = "two_stage_alice") -> MlflowRun:
    """The same after another run has ended with it."""
    moment = datetime.datetime.fromtimestamp(at / 1000, tz=datetime.UTC).isoformat()
    use = json.dumps({"dag_id": dag_id, "run_id": run_id, "at": moment})
    return replace(recorded, tags={**recorded.tags, f"replayctl.used.{dag_id}": use})


class FakeMlflow(MlflowApi):
    """The finished runs of its experiments, newest first."""

    def __init__(self, *finished: MlflowRun, **others: Sequence[MlflowRun]) -> None:
        super().__init__("http://mlflow")
        known = {"two_stage_alice": finished, **others}
        self.finished = {
            name: [replace(run, experiment_id=name) for run in runs] for name, runs in known.items() if runs
        }

    def experiment_id(self, name: str) -> str:
        if name not in self.finished:
            raise NotFound(name)
        return name

    def experiments(self) -> Iterator[tuple[str, str]]:
        return ((name, name) for name in self.finished)

    def runs(self, *experiment_ids: str, filter_string: str = "") -> Iterator[MlflowRun]:
        level = filter_string.rpartition("= '")[2].rstrip("'")
        runs = [run for name in experiment_ids for run in self.finished[name]]
        return (run for run in runs if level in ("", run.tags["replayctl.level"]))


def test_a_newer_evaluation_that_was_recorded_half_is_left_out() -> None:
    whole = (run("als", "first", 1, "p1"), run("p1", "experiment", 1))
    api = FakeMlflow(run("lightgbm", "second", 2, "p2"), *whole)
    for every in (False, True):
        board = read_leaderboard(api, Namespace("alice"), "two_stage", every=every)
        assert [row.model for row in board.rows] == ["als"]


def test_an_experiment_whose_only_evaluation_was_recorded_half_has_none() -> None:
    with pytest.raises(NotFound, match="no finished evaluation"):
        read_leaderboard(FakeMlflow(run("als", "first", 1, "p1")), Namespace("alice"), "two_stage")


@pytest.fixture
def two_evaluations() -> FakeMlflow:
    """The second one with another rank, another model and a better result."""
    old, new = run("als", "first", 1, "p1"), run("als", "first", 2, "p2")
    old = replace(old, run_id="old", params={"rank": "16", "seed": "42"})
    new = replace(new, run_id="new", params={"rank": "32", "seed": "42", "alpha": "2"}, metrics={"NDCG.10": 0.3})
    other = replace(run("slim", "first", 2, "p2"), params={"beta": "1"}, metrics={"NDCG.10": 0.2})
    return FakeMlflow(new, other, run("p2", "experiment", 2), old, run("p1", "experiment", 1))


def test_a_metric_that_is_not_a_number_is_the_last_and_mixes_up_no_others() -> None:
    values = {"als": 0.1, "ease": float("nan"), "slim": 0.3, "knn": 0.2}
    for order in itertools.permutations(values):
        rows = [replace(run(name, "first", 1, "p1"), metrics={"NDCG.10": values[name]}) for name in order]
        board = read_leaderboard(FakeMlflow(*rows, run("p1", "experiment", 1)), Namespace("alice"), "two_stage")
        assert [row.model for row in board.rows] == ["slim", "knn", "als", "ease"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("4.5", 4.5), ("", None), ("soon", None), ("nan", None), ("1e300", None), ("-1", None)]
)
def test_a_duration_that_is_none_is_unknown(text: str, seconds: float | None) -> None:
    model = run("als", "first", 1, "p1")
    model = replace(model, tags={**model.tags, "replayctl.seconds": text})
    board = read_leaderboard(FakeMlflow(model, run("p1", "experiment", 1)), Namespace("alice"), "two_stage")
    assert board.rows[0].seconds == seconds


def test_the_newest_evaluation_is_shown_or_every_one(two_evaluations: FakeMlflow) -> None:
    newest = read_leaderboard(two_evaluations, Namespace("alice"), "two_stage")
    assert [(row.model, row.evaluation) for row in newest.rows] == [("als", "e2"), ("slim", "e2")]
    every = read_leaderboard(two_evaluations, Namespace("alice"), "two_stage", every=True)
    assert [row.mlflow_run for row in every.rows] == ["new", "slim", "old"]


def test_the_evaluation_that_the_newest_run_ended_with_is_shown_even_if_it_was_reused() -> None:
    first, second = run("p1", "experiment", 1), run("p2", "experiment", 2)
    models = (run("als", "first", 2, "p2"), run("als", "first", 1, "p1"))

    def shown(*parents: MlflowRun) -> tuple[str, str, int]:
        (row,) = read_leaderboard(FakeMlflow(*models, *parents), Namespace("alice"), "two_stage").rows
        return row.evaluation, row.run_id, row.used.microsecond // 1000

    assert shown(first, second) == ("e2", "run2", 2)
    assert shown(used(first, "run3", 3), second) == ("e1", "run3", 3)
    assert shown(used(first, "run3", 3), used(second, "run4", 4)) == ("e2", "run4", 4)
    # A mark from before it was computed again, one of another DAG, and one that somebody has changed.
    assert shown(used(first, "run0", 0), second) == ("e2", "run2", 2)
    assert shown(used(first, "run3", 3, "first_level_alice"), second) == ("e2", "run2", 2)
    broken = replace(first, tags={**first.tags, "replayctl.used.two_stage_alice": "me"})
    assert shown(broken, second) == ("e2", "run2", 2)


def test_recordings_that_name_no_dag_count_for_their_experiment() -> None:
    runs = [run("als", "first", at, f"p{at}", dag="") for at in (1, 2)]
    parents = [run(f"p{at}", "experiment", at, dag="") for at in (1, 2)]
    (row,) = read_leaderboard(FakeMlflow(*runs, *parents), Namespace("alice"), "two_stage").rows
    assert row.evaluation == "e2"


@pytest.fixture
def shared_experiment() -> FakeMlflow:
    """Two DAGs record in one experiment, and a third one ended with an evaluation of the first."""
    first = {"dag": "first_level_alice"}
    return FakeMlflow(
        run("als", "first", 3, "p3", **first),
        run("p3", "experiment", 3, **first),
        run("lightgbm", "second", 2, "p2"),
        used(run("p2", "experiment", 2), "run4", 4, "second_level_alice"),
        run("poprec", "first", 1, "p1", **first),
        run("p1", "experiment", 1, **first),
    )


@pytest.mark.parametrize(
    ("name", "model", "run_id"),
    [
        ("two_stage", "lightgbm", "run2"),
        ("first_level", "als", "run3"),
        ("first_level_alice", "als", "run3"),
        ("second_level", "lightgbm", "run4"),
    ],
)
def test_dags_that_share_an_experiment_each_have_their_own_newest_evaluation(
    shared_experiment: FakeMlflow, name: str, model: str, run_id: str
) -> None:
    board = read_leaderboard(shared_experiment, Namespace("alice"), name)
    assert [(row.model, row.run_id) for row in board.rows] == [(model, run_id)]
    assert board.experiment == "two_stage_alice"
    every = read_leaderboard(shared_experiment, Namespace("alice"), name, every=True)
    assert {row.evaluation for row in every.rows} == {"e1", "e2", "e3"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("two_stag", "did you mean two_stage?"),
        (
            "other",
            "run `replayctl run other --wait`: a DAG with an evaluate step records its results, or use one of: "
            "first_level, second_level, two_stage",
        ),
    ],
)
def test_a_name_without_evaluations_gets_the_names_that_have_some(
    shared_experiment: FakeMlflow, name: str, hint: str
) -> None:
    with pytest.raises(NotFound, match=f"no experiment '{name}_alice', and no evaluation of a DAG") as error:
        read_leaderboard(shared_experiment, Namespace("alice"), name)
    assert error.value.hint == hint


def test_names_of_other_users_are_not_suggested_in_the_common_namespace(shared_experiment: FakeMlflow) -> None:
    with pytest.raises(NotFound) as error:
        read_leaderboard(shared_experiment, Namespace(None), "two_stage")
    assert "alice" not in str(error.value.hint)


def test_the_server_that_has_the_evaluations_of_a_dag_is_named(shared_experiment: FakeMlflow) -> None:
    servers = {"": FakeMlflow(), "second": shared_experiment, "third": FakeMlflow()}
    with pytest.raises(NotFound) as error:
        find_leaderboard(
            lambda name: contextlib.nullcontext(servers[name]),
            Namespace("alice"),
            "first_level",
            others=("second", "third"),
        )
    assert error.value.hint == "its DAG has chosen another server: pass --server second"


def test_parameters_that_differ_are_those_of_the_same_model(two_evaluations: FakeMlflow) -> None:
    board = read_leaderboard(two_evaluations, Namespace("alice"), "two_stage", every=True)
    assert {row.mlflow_run: row.differing for row in board.rows} == {
        "new": {"alpha": "2", "rank": "32"},
        "old": {"alpha": "unset", "rank": "16"},
        # There is no other one to differ from.
        "slim": {},
    }


def test_a_second_level_model_differs_in_the_parameters_of_the_models_before_it() -> None:
    board = read_leaderboard(
        FakeMlflow(
            replace(run("als", "first", 2, "p2"), params={"rank": "32", "seed": "1"}),
            replace(run("lightgbm", "second", 2, "p2"), params={"seed": "1"}),
            run("p2", "experiment", 2),
            replace(run("als", "first", 1, "p1"), params={"rank": "16", "seed": "1"}),
            replace(run("lightgbm", "second", 1, "p1"), params={"seed": "1"}),
            run("p1", "experiment", 1),
        ),
        Namespace("alice"),
        "two_stage",
        every=True,
    )
    assert [row.differing for row in board.rows if row.level == "second"] == [{"als.rank": "32"}, {"als.rank": "16"}]


def on_split(at: int, split: str, score: float, identity: str = "{}", **params: str) -> tuple[MlflowRun, MlflowRun]:
    tags = {"split": split, "dataset": "ml100k", "dataset_identity": identity}
    model = replace(run("als", "first", at, f"p{at}", **tags), metrics={"NDCG.10": score}, run_id=f"als{at}")
    return model, replace(
        run(f"p{at}", "experiment", at, **tags), params={"dataset": "ml100k", "rows": "als", **params}
    )


def test_rows_on_different_test_data_are_ranked_apart_with_what_differs() -> None:
    version1, version2 = (json.dumps({"name": "ml100k", "version": version, "checksum": None}) for version in "12")
    api = FakeMlflow(
        *on_split(4, "a" * 16, 0.1, version1, **{"split.seed": "1", "positive_threshold": "3.0"}),
        *on_split(3, "b" * 16, 0.4, version1, **{"split.seed": "2"}),
        *on_split(2, "a" * 16, 0.3, version1, **{"split.seed": "1"}),
        *on_split(1, "c" * 16, 0.2, version2, **{"split.seed": "1"}),
    )
    board = read_leaderboard(api, Namespace("alice"), "two_stage", every=True)
    assert [(row.split[0], row.mlflow_run) for row in board.rows] == [
        ("a", "als2"),
        ("a", "als4"),
        ("b", "als3"),
        ("c", "als1"),
    ]
    # A parameter that older recordings do not have tells nothing.
    assert [(test_set.split[0], test_set.differing) for test_set in board.test_sets] == [
        ("a", {"dataset.version": "1", "split.seed": "1"}),
        ("b", {"dataset.version": "1", "split.seed": "2"}),
        ("c", {"dataset.version": "2", "split.seed": "1"}),
    ]
    newest = read_leaderboard(api, Namespace("alice"), "two_stage")
    assert [(test_set.split[0], test_set.differing) for test_set in newest.test_sets] == [("a", {})]


def test_test_sets_that_no_parameter_tells_apart_are_named_by_their_split() -> None:
    api = FakeMlflow(*on_split(2, "a" * 16, 0.1), *on_split(1, "b" * 16, 0.2))
    board = read_leaderboard(api, Namespace("alice"), "two_stage", every=True)
    assert [test_set.differing for test_set in board.test_sets] == [{"split": "a" * 8}, {"split": "b" * 8}]


@pytest.mark.parametrize("name", ["NDCG@10", "ndcg@10", "NDCG.10", "Ndcg.10"])
def test_a_metric_may_be_written_in_any_case(two_evaluations: FakeMlflow, name: str) -> None:
    assert read_leaderboard(two_evaluations, Namespace("alice"), "two_stage", metric=name).metric == "NDCG@10"


def test_a_metric_that_is_nearly_right_gets_the_right_name(two_evaluations: FakeMlflow) -> None:
    with pytest.raises(UsageProblem) as error:
        read_leaderboard(two_evaluations, Namespace("alice"), "two_stage", metric="ndgc@10")
    assert error.value.hint == "did you mean NDCG@10?"


def test_a_metric_that_no_row_has_is_named_with_those_that_are_there(two_evaluations: FakeMlflow) -> None:
    with pytest.raises(UsageProblem, match=r"metric 'Luck@7' does not exist") as error:
        read_leaderboard(two_evaluations, Namespace("alice"), "two_stage", metric="Luck@7")
    assert error.value.hint == "use one of: NDCG@10"


@pytest.fixture
def print_board(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[list[dict], str]]:
    """The table of a leaderboard as programs see it, and stderr."""

    def call(api: MlflowApi, *options: str) -> tuple[list[dict], str]:
        monkeypatch.setattr("replayctl.experiments.services.open_mlflow", lambda *_: contextlib.nullcontext(api))
        monkeypatch.setenv("USERNAME_ON_CLUSTER", "alice")
        assert cli.run(["leaderboard", "two_stage", *options]) == 0
        out, err = capfd.readouterr()
        head, *rows = (line.split("\t") for line in out.splitlines())
        return [dict(zip(head, row, strict=True)) for row in rows], err

    return call


def test_the_table_of_all_evaluations_has_what_tells_them_apart_and_no_empty_column(
    two_evaluations: FakeMlflow, print_board: Callable[..., tuple[list[dict], str]]
) -> None:
    table, _ = print_board(two_evaluations)
    assert [row["evaluation"] for row in table] == ["e2", "e2"]
    assert "differs in" not in table[0]
    table, err = print_board(two_evaluations, "--all")
    assert [row["evaluation"] for row in table] == ["e2", "e2", "e1"]
    assert [row["differs in"] for row in table] == ["alpha=2, rank=32", "", "alpha=unset, rank=16"]
    assert [row["last used"] for row in table] == ["1970-01-01T00:00:00+00:00"] * 3
    assert [row["run"] for row in table] == ["run2", "run2", "run1"]
    assert not {"test data", "DAG"} & table[0].keys()
    assert err == ""


def test_the_table_of_all_evaluations_names_test_data_and_dags_that_differ(
    print_board: Callable[..., tuple[list[dict], str]],
) -> None:
    other = run("als", "first", 3, "p3", dag="first_level_alice", split="a" * 16)
    parent = run("p3", "experiment", 3, dag="first_level_alice", split="a" * 16)
    table, err = print_board(
        FakeMlflow(other, parent, *on_split(2, "b" * 16, 0.4), *on_split(1, "b" * 16, 0.2)), "--all"
    )
    assert [(row["#"], row["test data"], row["DAG"]) for row in table] == [
        ("1", "split=bbbbbbbb", "two_stage_alice"),
        ("2", "split=bbbbbbbb", "two_stage_alice"),
        ("1", "split=aaaaaaaa", "first_level_alice"),
    ]
    assert "rows are ranked on 2 test sets" in err
    assert "differs in" not in table[0]


def test_what_tells_rows_apart_is_shown_on_110_columns(
    two_evaluations: FakeMlflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "replayctl.experiments.services.open_mlflow", lambda *_: contextlib.nullcontext(two_evaluations)
    )
    monkeypatch.setenv("USERNAME_ON_CLUSTER", "alice")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli.run(["leaderboard", "two_stage", "--all"]) == 0
    out = capsys.readouterr().out
    assert [word for word in ("differs in", "rank=16", "last used", "run1") if word not in out] == []
    assert "not shown, too narrow: engine, took (all: --output json)" in out
