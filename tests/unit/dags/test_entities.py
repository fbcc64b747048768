"""The namespace, the data sets and the specs: standard library only."""

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dags import dag_two_stage_scenarios as scenarios
from dags.dag_entities import DATASETS, FirstLevelModel, Namespace, Resources, model_params
from dags.dag_specs import DagSpec, Deployment, StepSpec

ROOT = Path(__file__).parents[3]
DEPLOYMENT = Deployment("r_1", "local", "alice", "/data", "/artifacts", "/files")


def test_the_suffix_reaches_every_name() -> None:
    alice = Namespace("alice")
    assert alice.dag_id("two_stage_ml1m") == "two_stage_ml1m_alice"
    assert alice.mlflow_experiment("two_stage_ml1m") == "two_stage_ml1m_alice"
    assert alice.directory == "alice"
    assert "replayctl-user-alice" in alice.yarn_tags
    assert alice.kubernetes_name("spark_driver") == "spark-driver-alice"


def test_the_common_namespace_has_no_suffix_and_a_folder_that_no_user_can_have() -> None:
    common = Namespace(None)
    assert common.dag_id("x") == "x"
    with pytest.raises(ValueError, match="is not valid"):
        Namespace(common.directory)


@given(st.text())
def test_only_names_of_the_rule_are_users(name: str) -> None:
    allowed = (
        0 < len(name) <= 32
        and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        and not name.startswith("-")
        and not name.endswith("-")
    )
    if allowed:
        assert Namespace(name).user == name
    else:
        with pytest.raises(ValueError, match="is not valid"):
            Namespace(name)


@pytest.mark.parametrize("name", ["a/b", "..", "a;b", "a\n", "Alice", "ä", "a_b", " a", "a" * 33, "", "a\u2028"])
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not valid"):
        Namespace(name)


def test_there_are_nine_data_sets_and_three_dags_for_each() -> None:
    assert len(DATASETS) == 9
    specs = scenarios.dag_specs(Namespace("alice"))
    assert len({spec.dag_id for spec in specs}) == 27
    assert all(spec.dag_id.endswith("_alice") for spec in specs)


def test_an_unknown_model_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="als.*poprec"):
        model_params("alss")


def test_identities_are_known_without_io_and_do_not_depend_on_user_release_or_place() -> None:
    local = {step.identity for step in scenarios.dag_specs(Namespace("alice"))[0].steps}
    remote = {step.identity for step in scenarios.dag_specs(Namespace("bob"))[0].steps}
    assert local == remote
    assert len(local) == 7


@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=5),
    st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=5),
)
def test_identity_is_a_function_of_the_parameters(one: dict, other: dict) -> None:
    first, second = (StepSpec("s", "split", "d", parameters) for parameters in (one, other))
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (first.identity == second.identity) == same
    assert first.identity == StepSpec("renamed", "split", "d", dict(reversed(one.items()))).identity


def test_identity_follows_parents() -> None:
    parent = StepSpec("p", "split", "d", {"seed": 1})
    changed = StepSpec("p", "split", "d", {"seed": 2})
    children = {StepSpec("c", "combine", "d", {}, (step,)).identity for step in (parent, changed)}
    assert len(children) == 2


def test_the_same_model_under_another_name_is_the_same_artifact() -> None:
    dataset = DATASETS["ml100k"]
    models = model_params("als", "poprec", dataset=dataset)
    renamed = {"als16": models["als"], "poprec": models["poprec"]}
    one, other = (scenarios.build_two_stage_dag("x", "e", selection, dataset) for selection in (models, renamed))
    artifacts = [{step.workload: DEPLOYMENT.artifact_path(step) for step in spec.steps} for spec in (one, other)]
    assert artifacts[0].pop("evaluate") != artifacts[1].pop("evaluate")
    assert artifacts[0] == artifacts[1]


def test_overrides_of_a_data_set_are_shown() -> None:
    (spec, *_) = scenarios.dag_specs(Namespace(None))
    overridden = {step.name: step.overridden for step in spec.steps if step.overridden}
    assert overridden == {"first_level_als": {"rank": 100}, "first_level_itemknn": {"num_neighbours": 1000}}


def test_a_workload_that_the_release_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"step s: unknown workload 'mine'.*known: combine, evaluate, first_level"):
        StepSpec("s", "mine", "d", {})


def test_steps_stand_after_their_inputs_and_have_names_of_their_own() -> None:
    parent = StepSpec("p", "split", "d", {})
    child = StepSpec("c", "combine", "d", {}, (parent,))
    with pytest.raises(ValueError, match="before its input"):
        DagSpec("x", "", "e", (child, parent))
    with pytest.raises(ValueError, match="two steps"):
        DagSpec("x", "", "e", (parent, parent))
    assert list(DagSpec("x", "", "e", (child,)).upstream(child)) == []


def test_force_implies_everything_downstream() -> None:
    spec = scenarios.dag_specs(Namespace(None))[0]
    steps = {step.name: step for step in spec.steps}
    assert "split" in spec.forced_by(steps["evaluate"])
    assert "first_level_als" in spec.forced_by(steps["combine"])
    assert "first_level_als" not in spec.forced_by(steps["first_level_poprec"])
    assert all("all" in spec.forced_by(step) for step in spec.steps)


def test_the_second_level_dag_reuses_the_first_level_dags_artifacts() -> None:
    whole, first, second = scenarios.dag_specs(Namespace("alice"))[:3]
    identities = {step.name: step.identity for step in whole.steps}
    for spec in (first, second):
        for step in spec.steps:
            if step.name != "evaluate":
                assert identities[step.name] == step.identity
    assert {step.name for step in first.steps} | {step.name for step in second.steps} == set(identities)


def test_a_deployment_survives_its_file() -> None:
    original = Deployment(
        *("r_2", "lab", None, "/d", "/a", "/f"),
        tiers={"big": Resources(2, 4)},
        spark_conf={"a": "b"},
        pool="p",
        hdfs={"url": "http://nn:9870", "user": None},
        tracking_servers={"second": "http://x"},
    )
    assert Deployment.from_json(original.to_json(), release="r_2") == original
    assert "r_2" not in original.to_json()


def test_a_dag_may_choose_another_mlflow() -> None:
    spec = scenarios.dag_specs(Namespace("alice"))[0]
    servers = {"mlflow2": "http://second:8822"}
    deployment = replace(
        DEPLOYMENT, tracking_uri="http://first:8811", tracking_servers=servers, tracking_required=False
    )
    first = deployment.step_document(spec, spec.steps[-1])
    second = deployment.step_document(replace(spec, mlflow_server="mlflow2"), spec.steps[-1])
    assert (first["tracking_uri"], first["mlflow_server"]) == ("http://first:8811", "")
    assert (second["tracking_uri"], second["mlflow_server"]) == ("http://second:8822", "mlflow2")
    assert (first["tracking_required"], first["identity"]) == (False, second["identity"])
    with pytest.raises(ValueError, match="unknown MLflow server 'third'; known: mlflow2"):
        deployment.step_document(replace(spec, mlflow_server="third"), spec.steps[-1])


def test_only_a_step_whose_artifact_is_on_hdfs_knows_of_hdfs() -> None:
    spec = scenarios.dag_specs(Namespace("alice"))[0]
    hdfs = {"url": "http://namenode:9870", "user": "alice"}
    on_nfs = replace(DEPLOYMENT, hdfs=hdfs)
    on_hdfs = replace(on_nfs, artifacts_root="hdfs://namenode:9000/replay")
    assert on_nfs.step_document(spec, spec.steps[-1])["hdfs"] is None
    document = on_hdfs.step_document(spec, spec.steps[-1])
    assert document["hdfs"] == hdfs
    assert str(document["output"]).startswith("hdfs://namenode:9000/replay/alice/ml100k/evaluate/")


def test_artifacts_are_below_the_users_own_base_path() -> None:
    for spec in scenarios.dag_specs(Namespace("alice")):
        for step in spec.steps:
            assert DEPLOYMENT.artifact_path(step).startswith("/artifacts/alice/")


def test_a_step_document_is_json_and_names_everything() -> None:
    spec = scenarios.dag_specs(Namespace("alice"))[0]
    document = json.loads(json.dumps(DEPLOYMENT.step_document(spec, spec.steps[-1])))
    assert document["mlflow_experiment"] == "two_stage_ml100k_alice"
    assert [entry["label"] for entry in document["inputs"]] == ["", "als", "itemknn", "poprec", "lightgbm"]


def test_entities_and_specs_import_the_standard_library_only() -> None:
    modules = (
        "dag_entities",
        "dag_specs",
        "artifacts",
        "dag_two_stage_scenarios",
        "dag_submit",
        "release_package",
        "storage",
        "webhdfs",
    )
    for name in (*modules, "reuse", "run_notes", "workload_code"):
        tree = ast.parse((ROOT / "dags" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert all(alias.name.partition(".")[0] in sys.stdlib_module_names for alias in node.names)
            if (
                isinstance(node, ast.ImportFrom)
                and not node.level
                and (node.module or "").partition(".")[0] != "airflow"
            ):
                assert (node.module or "").partition(".")[0] in sys.stdlib_module_names


def test_a_parameter_that_a_model_does_not_have_is_refused_before_a_deploy() -> None:
    dataset = replace(DATASETS["ml100k"], model_overrides={"itemknn": {"num_neighbors": 9}})
    message = r"model itemknn: .*ItemKNN has no parameter 'num_neighbors' \(did you mean num_neighbours\?\); k"
    with pytest.raises(ValueError, match=message):
        scenarios.first_level_step(dataset, "itemknn", model_params("itemknn", dataset=dataset)["itemknn"])
    with pytest.raises(ValueError, match=r"PopRec has no parameters 'x', 'y'; known: use_rating$"):
        scenarios.first_level_step(dataset, "pop", FirstLevelModel("replay.models.PopRec", {"x": 1, "y": 2}))
    # Only RePlay knows those of its other models.
    assert scenarios.first_level_step(dataset, "ucb", FirstLevelModel("replay.models.UCB", {"anything": 1}))
