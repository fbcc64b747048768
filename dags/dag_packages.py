"""The wheels, jars and Python environment that a step runs with, as Spark's configuration. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .dag_specs import Deployment, StepSpec

# The link to the unpacked Python environment in a container of YARN.
_ENVIRONMENT = "environment"


def python_conf(deployment: Deployment) -> dict[str, str]:
    """The configuration with which driver and executors run in the packed environment."""
    if deployment.python is None:
        return {}
    return {
        "spark.yarn.dist.archives": f"{deployment.python.path}#{_ENVIRONMENT}",
        "spark.pyspark.python": f"./{_ENVIRONMENT}/bin/python3",
        # Packages in a home folder of the node must not come first.
        "spark.yarn.appMasterEnv.PYTHONNOUSERSITE": "1",
        "spark.executorEnv.PYTHONNOUSERSITE": "1",
    }


def with_jars(conf: Mapping[str, str], step: StepSpec, deployment: Deployment) -> dict[str, str]:
    """The configuration with the step's jars added to those of the profile."""
    jars = [*filter(None, [conf.get("spark.jars")]), *package_paths(step.jars, step, deployment)]
    return {**conf, "spark.jars": ",".join(jars)} if step.jars else dict(conf)


def package_paths(names: Sequence[str], step: StepSpec, deployment: Deployment) -> list[str]:
    """The paths of a step's packages. Raises ValueError for names that the deploy has not resolved."""
    missing = [name for name in names if name not in deployment.packages]
    if missing:
        raise ValueError(f"step {step.name}: this release knows no package {', '.join(missing)}; deploy it again")
    return [deployment.packages[name].path for name in names]
