"""What Airflow's pages show of a step. Standard library only."""

from __future__ import annotations

import json

from .dag_specs import IMAGE_LINE, RELEASE_LINE, DagSpec, Deployment, StepSpec


def describe(dag: DagSpec, step: StepSpec, deployment: Deployment) -> str:
    """The documentation of a step's task, as Markdown: release, artifact, engine and parameters."""
    parameters = json.dumps(dict(step.parameters), indent=2, sort_keys=True)
    own = ", ".join(
        f"`{name}` instead of {'the default' if value is None else json.dumps(value)}"
        for name, value in step.overridden.items()
    )
    image = deployment.image(dag) if deployment.pods else None
    return (
        f"{RELEASE_LINE}{deployment.release}\n\nArtifact: `{deployment.artifact_path(step)}`\n\n"
        + (f"{IMAGE_LINE}{image}\n\n" if image else "")
        + f"Engine: {step.engine or deployment.engine}\n\n"
        f"```json\n{parameters}\n```\n" + (f"\nOf the data set's own (`model_overrides`): {own}\n" if own else "")
    )
