"""Wheels, jars and the Python environment of a step: what a release records, and what decides a result."""

from dataclasses import replace

import pytest

from dags.dag_packages import package_paths, python_conf, with_jars
from dags.dag_specs import DagSpec, Deployment, Package, StepSpec

WHEEL = Package("hdfs://namenode:9000/p_1/my_models-1-py3-none-any.whl", "1" * 16)
JAR = Package("hdfs://namenode:9000/p_2/replay_2.12-1.jar", "2" * 16)
SPLIT = StepSpec("split", "split", "ml100k", {})
STEP = StepSpec(
    "score",
    "evaluate",
    "ml100k",
    {},
    inputs=(SPLIT,),
    engines=("spark",),
    wheels=("my_models",),
    jars=("replay_2.12-1.jar",),
)
DEPLOYMENT = Deployment("r_0", "lab", "alice", "/data", "/artifacts", "/files")


def test_contents_of_packages_decide_the_result() -> None:
    packages = {"my_models": WHEEL, "replay_2.12-1.jar": JAR}
    step = STEP.using(packages)
    assert step.package_digests == ("1" * 16, "2" * 16)
    newer = STEP.using({**packages, "my_models": replace(WHEEL, digest="3" * 16)})
    moved = STEP.using({**packages, "my_models": replace(WHEEL, path="/elsewhere.whl")})
    assert newer.identity != step.identity == moved.identity
    # What comes after it moves with it, what comes before does not.
    later = StepSpec("later", "evaluate", "ml100k", {}, inputs=(STEP,))
    assert later.using(packages).identity != later.using({}).identity
    assert step.inputs[0].identity == SPLIT.identity


def test_steps_without_packages_keep_their_identity() -> None:
    (step,) = DagSpec("d", "", "e", (SPLIT,)).using({"my_models": WHEEL}).steps
    assert step.identity == SPLIT.identity


def test_jars_need_spark() -> None:
    with pytest.raises(ValueError, match="jars need Spark"):
        StepSpec("score", "evaluate", "ml100k", {}, jars=("a.jar",))


def test_a_release_names_the_very_files() -> None:
    deployment = replace(DEPLOYMENT, packages={"my_models": WHEEL, "replay_2.12-1.jar": JAR}, python=WHEEL)
    again = Deployment.from_json(deployment.to_json(), release="r_0")
    assert again == deployment
    assert package_paths(STEP.wheels, STEP, again) == [WHEEL.path]
    assert with_jars({"spark.jars": "/own.jar"}, STEP, again) == {"spark.jars": f"/own.jar,{JAR.path}"}
    assert with_jars({"spark.jars": "/own.jar"}, SPLIT, again) == {"spark.jars": "/own.jar"}
    with pytest.raises(ValueError, match="knows no package other"):
        package_paths(["other"], STEP, again)


def test_steps_on_yarn_run_in_the_packed_environment() -> None:
    archive = Package("hdfs://namenode:9000/p_3/workload-spark.tar.gz", "3" * 16)
    conf = python_conf(replace(DEPLOYMENT, python=archive))
    assert conf["spark.yarn.dist.archives"] == f"{archive.path}#environment"
    assert conf["spark.pyspark.python"] == "./environment/bin/python3"
    assert python_conf(DEPLOYMENT) == {}
