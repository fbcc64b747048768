"""Names as users type them, with the suffix of their namespace or without it."""

import pytest

from dags.dag_entities import Namespace
from replayctl.clients.airflow import DagInfo
from replayctl.errors import UsageProblem
from replayctl.experiments.finding import forced_steps, plain_name


@pytest.mark.parametrize(
    ("user", "typed", "plain"),
    [
        ("alice", "two_stage", "two_stage"),
        ("alice", "two_stage_alice", "two_stage"),
        # Another's name is not taken apart: it then is a name that does not exist here.
        ("alice", "two_stage_bob", "two_stage_bob"),
        ("alice", "_alice", "_alice"),
        (None, "two_stage_alice", "two_stage_alice"),
    ],
)
def test_the_suffix_may_be_typed_or_not(user: str | None, typed: str, plain: str) -> None:
    assert plain_name(Namespace(user), typed) == plain


class Airflow:
    """The graph of a two-stage DAG, in the order of Airflow's list."""

    def task_graph(self, dag_id: str) -> dict[str, frozenset[str]]:
        return {
            "als": frozenset({"combine", "evaluate"}),
            "combine": frozenset({"lightgbm"}),
            "evaluate": frozenset(),
            "itemknn": frozenset({"combine", "evaluate"}),
            "lightgbm": frozenset({"evaluate"}),
            "split": frozenset({"als", "itemknn"}),
        }


@pytest.mark.parametrize(
    ("force", "steps"),
    [
        ([], []),
        (["evaluate"], ["evaluate"]),
        (["als"], ["als", "combine", "lightgbm", "evaluate"]),
        (["combine", "itemknn"], ["itemknn", "combine", "lightgbm", "evaluate"]),
        (["all"], ["split", "als", "itemknn", "combine", "lightgbm", "evaluate"]),
    ],
)
def test_a_forced_step_forces_all_that_depend_on_it(force: list[str], steps: list[str]) -> None:
    dag = DagInfo("two_stage_alice", "", "", False, False)
    assert forced_steps(Airflow(), dag, force) == steps  # type: ignore[arg-type] # as far as it is asked


def test_a_step_that_does_not_exist_is_named_with_those_that_do() -> None:
    dag = DagInfo("two_stage_alice", "", "", False, False)
    with pytest.raises(UsageProblem, match="two_stage_alice has no step knn") as excinfo:
        forced_steps(Airflow(), dag, ["als", "knn"])  # type: ignore[arg-type] # as far as it is asked
    assert excinfo.value.hint == "use one of: all, als, combine, evaluate, itemknn, lightgbm, split"
