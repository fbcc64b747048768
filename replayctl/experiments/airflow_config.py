"""How the cluster's Airflow is configured: each value with its source, the pod template, the image of the next pod.

Airflow does not tell by its API (`expose_config` is off by default). So the configuration is read where it was written,
in Airflow's own order of precedence: the environment of the scheduler's container (`env`, then `envFrom`),
`airflow.cfg` from a ConfigMap, and for what neither has, `airflow config get-value` in the scheduler's pod.
"""

from __future__ import annotations

import configparser
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from replayctl.cluster.api import Endpoint, Kubernetes, Pod, parse_endpoint
from replayctl.cluster.streams import execute
from replayctl.console.events import Reporter
from replayctl.console.secret import MASK
from replayctl.console.secret_names import secret_kind
from replayctl.errors import OperationFailed, RemoteCommandFailed, ReplayctlError, UsageProblem
from replayctl.settings.declared import Settings

if TYPE_CHECKING:
    import yaml

_EXECUTOR = "core.executor"
_SECTION = "kubernetes_executor"
_TEMPLATE = f"{_SECTION}.pod_template_file"
_REPOSITORY, _TAG = f"{_SECTION}.worker_container_repository", f"{_SECTION}.worker_container_tag"
# What decides the next pod; asked for in the scheduler's pod when no file and no variable has it.
_NEEDED = (_EXECUTOR, f"{_SECTION}.namespace", _TEMPLATE, _REPOSITORY, _TAG)
_SCHEDULER, _WORKER = "scheduler", "base"
_CONFIG_FILE = "/opt/airflow/airflow.cfg"
_KEYS_OF_TEMPLATE = ("pod_template_file.yaml", "pod_template.yaml")
_EXEC_TIMEOUT_S = 120.0
_STDERR_KEPT = 4000
# Airflow's own list of sensitive options, beside those whose name says it: addresses with passwords, and JSON that may
# have any.
_SENSITIVE = re.compile(
    r"AIRFLOW_CONN_.*|.*(_conn(_async)?|result_backend|broker_url|_dsn|_basic_auth|_kwargs|_engine_args)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ConfigValue:
    """One option as `SECTION.OPTION`; `value` is masked if it is a secret, None if it was not read."""

    key: str
    value: str | None
    source: str


@dataclass(frozen=True, slots=True)
class AirflowConfig:
    """The configuration of Airflow in the cluster; `image` is that of pods for which no DAG chooses one."""

    executor: str | None
    image: str | None
    image_source: str | None
    values: tuple[ConfigValue, ...]
    pod_template: str | None
    pod_template_source: str | None
    warnings: tuple[str, ...]


def read_config(cluster: Kubernetes, settings: Settings, reporter: Reporter, keys: Sequence[str] = ()) -> AirflowConfig:
    """The configuration of the Airflow whose scheduler is `targets.airflow_scheduler`; `keys` limits the values.

    Raises NotFound when the scheduler does not exist, AuthFailed when it may not be read, UsageProblem for a key that
    is not SECTION.OPTION. A ConfigMap that may not be read is a warning.
    """
    for key in keys:
        if "." not in key:
            raise UsageProblem(f"{key!r} is not an option", hint="write SECTION.OPTION, such as core.executor")
    scheduler = _Scheduler(cluster, parse_endpoint(settings.targets.airflow_scheduler), settings.airflow.config_maps)
    values = {value.key: value for value in scheduler.values()}
    for key in (*_NEEDED, *keys):
        if key not in values:
            reporter.step(f"{key} is set by no variable and no file: asking the scheduler's pod")
            values[key] = scheduler.ask(key)
    template, template_source = scheduler.template(values[_TEMPLATE].value)
    image, image_source = _next_image(values, template, template_source)
    masked = None if template is None else _without_secrets(template)
    if template is not None and masked is None:
        scheduler.warnings.append(f"the pod template is not shown: {template_source} is not YAML, and may have secrets")
    return AirflowConfig(
        executor=values[_EXECUTOR].value,
        image=image,
        image_source=image_source,
        values=tuple(_shown(values[key]) for key in sorted(keys or values)),
        pod_template=masked,
        pod_template_source=template_source,
        warnings=tuple(scheduler.warnings),
    )


@dataclass
class _Scheduler:
    """The scheduler's container as its Deployment describes it, with the ConfigMaps that it and the profile name."""

    cluster: Kubernetes
    target: Endpoint
    config_maps: Sequence[str]
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = f"/apis/apps/v1/namespaces/{self.target.namespace}/{self.target.kind}s/{self.target.name}"
        self._spec = self.cluster.get(path, str(self.target))["spec"]["template"]["spec"]
        containers = self._spec["containers"]
        self._container = next((item for item in containers if item["name"] == _SCHEDULER), containers[0])
        self._read: dict[str, Mapping[str, str]] = {}
        self._pod: Pod | None = None

    def values(self) -> Iterator[ConfigValue]:
        """All options of files and variables, those that count less first."""
        file = self._file(_CONFIG_FILE) or self._named_key("airflow.cfg")
        if file is not None:
            text, source = file
            yield from _options(text, source)
        for entry in self._container.get("envFrom") or ():
            yield from self._environment(entry)
        for entry in self._container.get("env") or ():
            if option := _option_of(str(entry["name"])):
                yield self._variable(option, entry)

    def _environment(self, entry: Mapping[str, Any]) -> Iterator[ConfigValue]:
        prefix = entry.get("prefix") or ""
        if "secretRef" in entry:
            self.warnings.append(f"variables of Secret {entry['secretRef']['name']} are not read")
        for name, value in self._config_map((entry.get("configMapRef") or {}).get("name")).items():
            if option := _option_of(prefix + name):
                yield ConfigValue(option, value, f"ConfigMap {entry['configMapRef']['name']}, key {name}")

    def _variable(self, option: str, entry: Mapping[str, Any]) -> ConfigValue:
        origin = entry.get("valueFrom") or {}
        if reference := origin.get("secretKeyRef"):
            return ConfigValue(option, MASK, f"Secret {reference['name']}, key {reference['key']}")
        if reference := origin.get("configMapKeyRef"):
            value = self._config_map(reference["name"]).get(reference["key"])
            return ConfigValue(option, value, f"ConfigMap {reference['name']}, key {reference['key']}")
        return ConfigValue(option, str(entry.get("value") or ""), f"variable {entry['name']} of {self.target}")

    def template(self, path: str | None) -> tuple[str | None, str | None]:
        """The pod template with its source: from a ConfigMap, else as the scheduler's pod has it."""
        file = self._file(path) if path else None
        file = file or next(filter(None, map(self._named_key, _KEYS_OF_TEMPLATE)), None)
        if file is None and path:
            try:
                file = self._run(["cat", path]), f"{path} in the scheduler's pod"
            except ReplayctlError as error:
                self.warnings.append(f"the pod template {path} was not read: {error}")
        return file or (None, None)

    def ask(self, key: str) -> ConfigValue:
        """An option as Airflow itself has it; without a value when it cannot be asked."""
        section, _, option = key.rpartition(".")
        try:
            text = self._run(["airflow", "config", "get-value", section, option]).strip().splitlines()
        except ReplayctlError as error:
            self.warnings.append(f"{key} was not read: {error}")
            return ConfigValue(key, None, "not read")
        return ConfigValue(key, text[-1] if text else "", "airflow config get-value")

    def _run(self, argv: list[str]) -> str:
        self._pod = self._pod or self.cluster.ready_pod(self.target)
        stdout, stderr = bytearray(), bytearray()
        ended = execute(
            self.cluster,
            self._pod,
            self._container["name"],
            argv,
            on_stdout=stdout.extend,
            on_stderr=stderr.extend,
            timeout_s=_EXEC_TIMEOUT_S,
        )
        if ended.exit_code:
            words = stderr.decode("utf-8", "replace").strip()[-_STDERR_KEPT:]
            raise RemoteCommandFailed(
                f"{' '.join(argv)} in pod {self._pod.name} ended with status {ended.exit_code}", details=words
            )
        return stdout.decode("utf-8", "replace")

    def _file(self, path: str) -> tuple[str, str] | None:
        """A file that a ConfigMap is mounted as, with its source."""
        maps = {
            volume["name"]: volume["configMap"] for volume in self._spec.get("volumes") or () if "configMap" in volume
        }
        for mount in self._container.get("volumeMounts") or ():
            config_map, mounted = maps.get(mount["name"]), str(mount["mountPath"])
            if config_map is None:
                continue
            if mount.get("subPath"):
                name = str(mount["subPath"]) if mounted == path else None
            else:
                name = posixpath.relpath(path, mounted) if path.startswith(f"{mounted.rstrip('/')}/") else None
            keys = {item["path"]: item["key"] for item in config_map.get("items") or ()}
            key = keys.get(name, name) if name else None
            if key and (text := self._config_map(config_map["name"]).get(key)) is not None:
                return text, f"ConfigMap {config_map['name']}, key {key}"
        return None

    def _named_key(self, key: str) -> tuple[str, str] | None:
        """A key of a ConfigMap that the profile names."""
        for name in self.config_maps:
            if (text := self._config_map(name).get(key)) is not None:
                return text, f"ConfigMap {name}, key {key}"
        return None

    def _config_map(self, name: str | None) -> Mapping[str, str]:
        if name is None:
            return {}
        if name not in self._read:
            path = f"/api/v1/namespaces/{self.target.namespace}/configmaps/{name}"
            try:
                self._read[name] = self.cluster.get(path, f"ConfigMap {name}").get("data") or {}
            except ReplayctlError as error:
                self.warnings.append(f"ConfigMap {name} was not read: {error}")
                self._read[name] = {}
        return self._read[name]


def _option_of(variable: str) -> str | None:
    """`core.executor` of `AIRFLOW__CORE__EXECUTOR`; None for other variables."""
    start, _, rest = variable.partition("__")
    section, _, option = rest.partition("__")
    return f"{section}.{option}".lower() if start == "AIRFLOW" and section and option else None


def _options(text: str, source: str) -> Iterator[ConfigValue]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # Without the parser's message, which repeats the line, and that may be a secret.
        errors = getattr(error, "errors", None)
        line = errors[0][0] if errors else getattr(error, "lineno", None)
        where = f": line {line} cannot be read" if line else ""
        raise OperationFailed(f"{source} is not a configuration file{where}") from error
    for section in parser.sections():
        for option, value in parser.items(section):
            yield ConfigValue(f"{section}.{option}", value, source)


def _next_image(
    values: Mapping[str, ConfigValue], template: str | None, template_source: str | None
) -> tuple[str | None, str | None]:
    """The image as Airflow's Kubernetes executor chooses it, with its source."""
    repository, tag = values[_REPOSITORY], values[_TAG]
    if repository.value and tag.value:
        return f"{repository.value}:{tag.value}", repository.source
    containers = _containers(template) if template else []
    worker = next((item for item in containers if item.get("name") == _WORKER), containers[0] if containers else {})
    return (str(worker["image"]), template_source) if worker.get("image") else (None, None)


def _containers(template: str) -> list[Mapping[str, Any]]:
    import yaml

    try:
        containers = yaml.safe_load(template)["spec"]["containers"]
        return [container for container in containers if isinstance(container, dict)]
    except (yaml.YAMLError, KeyError, TypeError):
        return []


def _is_secret(name: str) -> bool:
    return _SENSITIVE.fullmatch(name) is not None or secret_kind(name) is not None


def _shown(value: ConfigValue) -> ConfigValue:
    option = value.key.rpartition(".")[2]
    return ConfigValue(value.key, MASK, value.source) if value.value and _is_secret(option) else value


def _without_secrets(template: str) -> str | None:
    """The template's own text, with the values of variables masked that have the name of a secret; None if not YAML.

    Masked where they stand: the text of a value may differ from the value, and a short one is also part of other words.
    """
    import yaml

    try:
        documents = list(yaml.compose_all(template, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return None
    for start, end in sorted(set(_places_of_secrets(documents)), reverse=True):
        # A text of several lines ends where the next entry begins.
        length = len(template[start:end].rstrip())
        template = f"{template[:start]}'{MASK}'{template[start + length :]}"
    return template


def _places_of_secrets(documents: Sequence[yaml.Node]) -> Iterator[tuple[int, int]]:
    """Where the values of secrets begin and end, in mappings with `name` and `value`."""
    import yaml

    pending, seen = list(documents), set()
    while pending:
        node = pending.pop()
        # An anchor may be used more than once, even within itself.
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        if isinstance(node, yaml.MappingNode):
            pending += [part for pair in node.value for part in pair]
            entries = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
            name, value = entries.get("name"), entries.get("value")
            if name is not None and value is not None and value.value and _is_secret(str(name.value)):
                yield value.start_mark.index, value.end_mark.index
