"""The configuration of the cluster's Airflow: sources by precedence, secrets masked, the image of the next pod."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from replayctl.cluster.api import Pod
from replayctl.cluster.streams import Executed
from replayctl.errors import AuthFailed, OperationFailed, UsageProblem
from replayctl.experiments import airflow_config
from replayctl.experiments.airflow_config import AirflowConfig, ConfigValue, read_config
from replayctl.settings.load import load_settings
from tests.reporters import RecordingReporter

CONFIG = """
[core]
executor = LocalExecutor
fernet_key = lavender-81
parallelism = 32
[kubernetes_executor]
namespace = airflow
pod_template_file = /opt/airflow/pod_templates/pod_template_file.yaml
worker_container_repository = registry:5000/worker
worker_container_tag =
[database]
sql_alchemy_conn = postgresql://airflow:thistle-19@db/airflow
"""
TEMPLATE = """
# Ours.
spec:
  containers:
    - {name: sidecar, image: other:1}
    - name: base
      image: registry:5000/worker:template
      env:
        - {name: AIRFLOW_CONN_SPARK, value: 'spark://:heather-55@yarn'}
        - {name: TZ, value: UTC}
"""


class Cluster:
    """An API server with one Deployment and its ConfigMaps."""

    def __init__(self, container: Mapping[str, Any], maps: Mapping[str, Mapping[str, str]]) -> None:
        mounts = [
            {"name": "config", "mountPath": "/opt/airflow/airflow.cfg", "subPath": "airflow.cfg"},
            {"name": "config", "mountPath": "/opt/airflow/pod_templates/pod_template_file.yaml", "subPath": "pod.yaml"},
        ]
        containers = [{"name": "git-sync"}, {"name": "scheduler", "volumeMounts": mounts, **container}]
        volumes = [{"name": "config", "configMap": {"name": "airflow-airflow-config"}}, {"name": "tmp", "emptyDir": {}}]
        self.deployment = {"spec": {"template": {"spec": {"containers": containers, "volumes": volumes}}}}
        self.maps = maps

    def get(self, path: str, what: str) -> dict[str, Any]:
        if path == "/apis/apps/v1/namespaces/airflow/deployments/airflow-scheduler":
            return self.deployment
        name = path.removeprefix("/api/v1/namespaces/airflow/configmaps/")
        if name not in self.maps:
            raise AuthFailed(f"alice may not get {name}")
        return {"data": self.maps[name]}

    def ready_pod(self, target: object) -> Pod:
        return Pod("airflow", "airflow-scheduler-0", ("git-sync", "scheduler"), True, "Running", {})


MAPS = {"airflow-airflow-config": {"airflow.cfg": CONFIG, "pod.yaml": TEMPLATE}}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Programs that ran in the scheduler's container."""
    programs: list[list[str]] = []

    def execute(
        _cluster: object,
        _pod: Pod,
        container: str,
        argv: list[str],
        *,
        on_stdout: Callable[[bytes], None],
        on_stderr: Callable[[bytes], None],
        timeout_s: float,
    ) -> Executed:
        assert container == "scheduler"
        programs.append(argv)
        if argv[-1] == "unknown":
            on_stderr(b"The option [core/unknown] is not found in config.\n")
            return Executed(1, 0, 10)
        on_stdout(b"a warning\nfrom-airflow\n")
        return Executed(0, 10, 0)

    monkeypatch.setattr(airflow_config, "execute", execute)
    return programs


def read(folder: Path, cluster: Cluster, *keys: str, **environ: str) -> AirflowConfig:
    settings = load_settings("lab", environ=environ, cwd=folder)
    return read_config(cluster, settings, RecordingReporter(), keys)  # type: ignore[arg-type]


def of(config: AirflowConfig, key: str) -> ConfigValue:
    return next(value for value in config.values if value.key == key)


def test_variables_override_files_and_each_value_has_its_source(tmp_path: Path, commands: list[list[str]]) -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "common"}}, {"configMapRef": {"name": "team"}}],
        "env": [{"name": "AIRFLOW__CORE__EXECUTOR", "value": "KubernetesExecutor"}, {"name": "HOME", "value": "/"}],
    }
    common = {"AIRFLOW__CORE__PARALLELISM": "1", "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "OTHER": "x"}
    maps = {**MAPS, "common": common, "team": {"AIRFLOW__CORE__PARALLELISM": "64"}}
    config = read(tmp_path, Cluster(container, maps))
    assert config.executor == "KubernetesExecutor"
    assert of(config, "core.executor").source.startswith("variable AIRFLOW__CORE__EXECUTOR of airflow/deployment/")
    assert of(config, "core.parallelism") == ConfigValue(
        "core.parallelism", "64", "ConfigMap team, key AIRFLOW__CORE__PARALLELISM"
    )
    assert of(config, "kubernetes_executor.namespace").source == "ConfigMap airflow-airflow-config, key airflow.cfg"
    assert commands == []


def test_secrets_are_masked(tmp_path: Path, commands: list[list[str]]) -> None:
    reference = {"secretKeyRef": {"name": "airflow-jwt", "key": "jwt"}}
    container = {"env": [{"name": "AIRFLOW__API_AUTH__JWT_SECRET", "valueFrom": reference}]}
    config = read(tmp_path, Cluster(container, MAPS))
    text = repr(config)
    assert not [word for word in ("lavender", "thistle", "heather") if word in text]
    assert of(config, "api_auth.jwt_secret") == ConfigValue("api_auth.jwt_secret", "***", "Secret airflow-jwt, key jwt")
    assert config.pod_template is not None
    assert config.pod_template.startswith("\n# Ours.\n")
    assert "value: UTC" in config.pod_template


@pytest.mark.parametrize(
    "option",
    [
        "sentry.sentry_dsn",
        "secrets.backend_kwargs",
        "workers.secrets_backend_kwargs",
        "database.sql_alchemy_conn_async",
        "database.sql_alchemy_engine_args",
        "celery.flower_basic_auth",
    ],
)
def test_what_airflow_calls_sensitive_is_masked(tmp_path: Path, commands: list[list[str]], option: str) -> None:
    section, _, name = option.partition(".")
    text = f"{CONFIG}\n[{section}]\n{name} = mallow\n"
    maps = {"airflow-airflow-config": {"airflow.cfg": text, "pod.yaml": TEMPLATE}}
    assert of(read(tmp_path, Cluster({}, maps)), option).value == "***"


def shown_template(folder: Path, template: str) -> AirflowConfig:
    maps = {"airflow-airflow-config": {"airflow.cfg": CONFIG, "pod.yaml": template}}
    return read(folder, Cluster({}, maps))


def test_a_secret_of_the_template_is_masked_where_it_stands(tmp_path: Path, commands: list[list[str]]) -> None:
    template = """
spec:
  initContainers:
    - name: clone
      env:
        - {name: GIT_TOKEN, value: mallow}
  containers:
    - name: base
      image: registry:5000/worker:template
      env:
        - {name: DB_PASSWORD, value: a}
        - name: API_TOKEN
          value: "mal\\u006Cow\\"tail"
        - name: PRIVATE_KEY
          value: |-
            mallow
            tail
        - {name: EMPTY_TOKEN, value: ""}
        # The zone.
        - {name: TZ, value: UTC}
"""
    masked = shown_template(tmp_path, template).pod_template
    assert (
        masked
        == """
spec:
  initContainers:
    - name: clone
      env:
        - {name: GIT_TOKEN, value: '***'}
  containers:
    - name: base
      image: registry:5000/worker:template
      env:
        - {name: DB_PASSWORD, value: '***'}
        - name: API_TOKEN
          value: '***'
        - name: PRIVATE_KEY
          value: '***'
        - {name: EMPTY_TOKEN, value: ""}
        # The zone.
        - {name: TZ, value: UTC}
"""
    )


def test_a_template_whose_secrets_cannot_be_found_is_not_shown(tmp_path: Path, commands: list[list[str]]) -> None:
    config = shown_template(tmp_path, "spec: [\n- name: A_TOKEN\n  value: mallow\n")
    assert config.pod_template is None
    source = "ConfigMap airflow-airflow-config, key pod.yaml"
    assert config.warnings == (f"the pod template is not shown: {source} is not YAML, and may have secrets",)


@pytest.mark.parametrize("text", ["fernet_key mallow\n", "[core]\nfernet_key mallow\n"])
def test_an_unreadable_file_is_named_by_its_line_alone(tmp_path: Path, commands: list[list[str]], text: str) -> None:
    with pytest.raises(
        OperationFailed, match=r"key airflow.cfg is not a configuration file: line [12] cannot"
    ) as excinfo:
        read(tmp_path, Cluster({}, {"airflow-airflow-config": {"airflow.cfg": text}}))
    assert "mallow" not in f"{excinfo.value} {excinfo.value.details}"


@pytest.mark.parametrize(
    ("tag", "image", "source"),
    [
        ("v7", "registry:5000/worker:v7", "ConfigMap airflow-airflow-config, key airflow.cfg"),
        # Repository or tag alone do not count.
        ("", "registry:5000/worker:template", "ConfigMap airflow-airflow-config, key pod.yaml"),
    ],
)
def test_the_next_pod_gets_the_image_that_the_executor_chooses(
    tmp_path: Path, commands: list[list[str]], tag: str, image: str, source: str
) -> None:
    text = CONFIG.replace("worker_container_tag =", f"worker_container_tag = {tag}")
    maps = {"airflow-airflow-config": {"airflow.cfg": text, "pod.yaml": TEMPLATE}}
    config = read(tmp_path, Cluster({}, maps))
    assert (config.image, config.image_source) == (image, source)


def test_what_nobody_sets_is_asked_of_airflow_itself(tmp_path: Path, commands: list[list[str]]) -> None:
    config = read(tmp_path, Cluster({}, MAPS), "webserver.base_url", "core.unknown")
    assert [value.key for value in config.values] == ["core.unknown", "webserver.base_url"]
    assert of(config, "webserver.base_url").value == "from-airflow"
    assert of(config, "core.unknown").value is None
    assert "not found in config" not in repr(config.values)
    assert commands == [
        ["airflow", "config", "get-value", *key.split(".")] for key in ("webserver.base_url", "core.unknown")
    ]


def test_a_config_map_that_may_not_be_read_is_a_warning(tmp_path: Path, commands: list[list[str]]) -> None:
    config = read(tmp_path, Cluster({}, {}))
    assert (
        config.warnings[0] == "ConfigMap airflow-airflow-config was not read: alice may not get airflow-airflow-config"
    )
    assert config.executor == "from-airflow"


def test_a_config_map_that_is_not_mounted_may_be_named_by_the_profile(
    tmp_path: Path, commands: list[list[str]]
) -> None:
    cluster = Cluster({"volumeMounts": []}, {"ours": {"airflow.cfg": CONFIG, "pod_template_file.yaml": TEMPLATE}})
    config = read(tmp_path, cluster, REPLAYCTL_AIRFLOW_CONFIG_MAPS="ours")
    assert of(config, "core.parallelism").source == "ConfigMap ours, key airflow.cfg"
    assert config.pod_template_source == "ConfigMap ours, key pod_template_file.yaml"
    assert commands == []


@pytest.mark.parametrize("keys", [("executor",), ("core.executor", "x")])
def test_a_key_needs_its_section(tmp_path: Path, commands: list[list[str]], keys: Sequence[str]) -> None:
    with pytest.raises(UsageProblem, match="is not an option") as excinfo:
        read(tmp_path, Cluster({}, MAPS), *keys)
    assert "core.executor" in str(excinfo.value.hint)
