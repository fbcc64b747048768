"""What `sync-dags` shows: the deploy, its changes, and what a run would do."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from replayctl.bundle.specs import dags_text
from replayctl.console.result import Block, Fields, Lines, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replayctl.bundle.specs import Dag, Step
    from replayctl.deploy import SyncReport

_RUNS_SHOWN = 3


def sync_view(report: SyncReport) -> list[Block]:
    """The whole answer of a deploy or a dry run."""
    return [_summary(report), *_changes(report), *steps_table(report.plan)]


def _summary(report: SyncReport) -> Fields:
    """What was deployed, the target, and the live runs."""
    fields = [("release", report.release), ("user", report.user or "(shared)"), ("target", report.target)]
    fields.append(("content", dags_text(len(report.dags), len(report.free_modules))))
    if report.seen_after_s is not None:
        fields.append(("shown by Airflow", f"after {report.seen_after_s:.1f} s"))
    if report.runs:
        runs = ", ".join(f"{run.run_id} of {run.dag_id}" for run in report.runs[:_RUNS_SHOWN])
        more = f" and {len(report.runs) - _RUNS_SHOWN} more" if len(report.runs) > _RUNS_SHOWN else ""
        fields.append(("live runs", f"{runs}{more}; they continue with the release they started with"))
    foreign = sum(action.action == "foreign" for action in report.actions)
    if foreign:
        fields.append(("unchanged", f"{foreign} DAG file{'s' if foreign != 1 else ''} of other users"))
    return Fields(tuple(fields))


def _changes(report: SyncReport) -> list[Block]:
    rows = [(action.action, action.what) for action in report.actions if action.action not in ("same", "foreign")]
    return [Table(("action", "what"), rows, wrap=(1,))] if rows else []


def steps_table(dags: Sequence[Dag]) -> list[Block]:
    """What a run would do: one row per artifact, with the first DAG that has a step for it.

    Data sets of which nothing has been computed share a line, unless that is true of all.
    """
    steps: dict[str, tuple[Dag, Step]] = {}
    for dag in dags:
        for step in dag.steps:
            steps.setdefault(step.identity, (dag, step))
    everything = dict.fromkeys(step.dataset for _, step in steps.values())
    unknown = dict.fromkeys(
        step.prospect["why"] for _, step in steps.values() if step.prospect and step.prospect["outcome"] == "unknown"
    )
    if unknown:
        lines = (f"what a run would reuse is unknown: {why} (parameters: --output json)" for why in unknown)
        return [Lines(tuple(lines))]
    in_use = {step.dataset for _, step in steps.values() if not _is_new(step)} or set(everything)
    rows = [
        (step.dataset, step.name, dag.dag_id, _parameters(step), _prospect(step))
        for dag, step in steps.values()
        if step.dataset in in_use
    ]
    blocks: list[Block] = []
    if rows:
        blocks.append(Table(("data set", "step", "DAG", "parameters", "plan"), rows, title="steps", wrap=(3, 4)))
    if rest := [dataset for dataset in everything if dataset not in in_use]:
        blocks.append(Lines((f"compute every step: {', '.join(rest)} (for their parameters: --output json)",)))
    return blocks


def _is_new(step: Step) -> bool:
    """Whether nothing has been computed yet by a step of this kind."""
    return step.prospect is not None and step.prospect["outcome"] == "compute" and not step.prospect["why"]


def _parameters(step: Step) -> str:
    own = ", ".join(f"{name}: {'unset' if value is None else value}" for name, value in step.overridden.items())
    return f"{step.parameters_text}{f' (the data set overrides {own})' if own else ''}"


def _prospect(step: Step) -> str:
    assert step.prospect is not None
    if step.prospect["outcome"] == "reuse":
        origin = step.prospect["origin"]
        # As in the reasons, which the release writes.
        at = f"{datetime.datetime.fromisoformat(origin['at']):%Y-%m-%d %H:%M} UTC"
        return f"reuse the artifact of {origin['dag_id'] or 'an unknown DAG'} from {at}"
    outcome, why = step.prospect["outcome"], step.prospect["why"]
    return f"{outcome}: {why}" if why else str(outcome)
