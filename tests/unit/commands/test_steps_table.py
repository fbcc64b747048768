"""The table of what a run would do, in the answer of `sync-dags`."""

from __future__ import annotations

from replayctl.bundle.specs import Dag, Step
from replayctl.commands.dags_views import steps_table
from replayctl.console.result import Block, Lines, Table

NEW = {"outcome": "compute", "why": ""}
CHANGED = {"outcome": "compute", "why": "rank: 16 → 32"}
REUSED = {"outcome": "reuse", "origin": {"dag_id": "a", "at": "2026-11-26T03:08:00+00:00"}}


def dag(name: str, dataset: str, **prospects: object) -> Dag:
    steps = tuple(
        Step(step, f"{dataset}-{step}", "", (), dataset=dataset, prospect=prospect)  # type: ignore[arg-type]
        for step, prospect in prospects.items()
    )
    return Dag(name, "dag_a", "", name, steps)


def rows(blocks: list[Block]) -> list[tuple[str, ...]]:
    (table,) = [block for block in blocks if isinstance(block, Table)]
    return [tuple(row[:3]) for row in table.rows]


def test_a_step_of_two_dags_is_one_row_under_the_first() -> None:
    blocks = steps_table([dag("a", "ml1m", split=REUSED, als=CHANGED), dag("b", "ml1m", split=REUSED, knn=NEW)])
    assert rows(blocks) == [("ml1m", "split", "a"), ("ml1m", "als", "a"), ("ml1m", "knn", "b")]
    assert len(blocks) == 1


def test_a_parameter_that_only_the_data_set_sets_was_unset() -> None:
    overridden = {"shrink": None, "rank": 100}
    step = Step("knn", "i", "", (), parameters_text="shrink=5, rank=32", overridden=overridden, prospect=NEW)
    (table,) = steps_table([Dag("a", "dag_a", "", "a", (step,))])
    assert isinstance(table, Table)
    assert table.rows[0][3] == "shrink=5, rank=32 (the data set overrides shrink: unset, rank: 100)"


def test_data_sets_without_a_result_share_a_line() -> None:
    dags = [dag("a", "ml1m", split=NEW, als=NEW), dag("b", "ml100k", split=REUSED, als=NEW), dag("c", "msd", split=NEW)]
    blocks = steps_table(dags)
    assert rows(blocks) == [("ml100k", "split", "b"), ("ml100k", "als", "b")]
    assert blocks[1] == Lines(("compute every step: ml1m, msd (for their parameters: --output json)",))


def test_before_the_first_run_every_step_is_shown() -> None:
    assert len(rows(steps_table([dag("a", "ml1m", split=NEW), dag("b", "msd", split=NEW)]))) == 2
    assert steps_table([]) == []


def test_artifacts_out_of_sight_are_one_line_with_the_reason() -> None:
    unseen = {"outcome": "unknown", "why": "this machine has no folder /x"}
    assert steps_table([dag("a", "ml1m", split=unseen), dag("b", "msd", split=unseen)]) == [
        Lines(("what a run would reuse is unknown: this machine has no folder /x (parameters: --output json)",))
    ]


def test_an_artifact_that_is_reused_has_its_time_as_the_reasons_have_theirs() -> None:
    (table,) = steps_table([dag("a", "ml1m", split=REUSED)])
    assert isinstance(table, Table)
    assert table.rows[0][-1] == "reuse the artifact of a from 2026-11-26 03:08 UTC"
