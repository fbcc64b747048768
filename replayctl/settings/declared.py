"""All settings, each declared once: where its value goes, how it is read, its default and what it is for.

The fields of the dataclasses are the declarations; `SETTINGS` is the list of them, by dotted key.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from replayctl.console.secret import Secret
from replayctl.errors import SettingsError
from replayctl.settings.base_dirs import base_dirs
from replayctl.settings.values import (
    to_count,
    to_engine,
    to_mode,
    to_number,
    to_path,
    to_paths,
    to_port,
    to_properties,
    to_secret,
    to_text,
    to_url,
    to_version,
)

_DECLARATION = "setting"


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting: its key, how text or YAML becomes its value, its default and what it is for."""

    key: str
    convert: Callable[[Any], Any]
    help: str
    default: Callable[[], Any]

    @property
    def secret(self) -> bool:
        """Whether its value must not be shown."""
        return self.convert is to_secret


def _setting(convert: Callable[[Any], Any], help: str, default: Any = None) -> Any:
    """A field that is a setting; a `default` that can be called is asked when settings are loaded."""
    find = default if callable(default) else lambda: default
    return field(metadata={_DECLARATION: (convert, help, find)})


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The embedded stack; memory in GiB."""

    home: Path = _setting(to_path, "all state of the local stack", lambda: base_dirs().user_state_path / "local")
    python: Path | None = _setting(to_path, "a Python for the environments, 3.11 to 3.13; found by itself when not set")
    java_home: Path | None = _setting(to_path, "a Java 17, for Spark; found by itself when not set")
    airflow_port: int = _setting(to_port, "preferred port of Airflow; the next free one is taken", 8080)
    mlflow_port: int = _setting(to_port, "preferred port of MLflow; the next free one is taken", 8811)
    spark_cores: int | None = _setting(to_count, "cores of one step; those of the machine, up to 4, when not set")
    task_memory_gib: int = _setting(to_count, "memory of one step in GiB", 3)
    keep_logs_days: int = _setting(to_count, "how long the stack's logs stay; older ones go at `local up`", 30)


@dataclass(frozen=True, slots=True)
class AirflowSettings:
    """How to reach Airflow's REST API."""

    url: str | None = _setting(to_url, "Airflow's address")
    username: str | None = _setting(to_text, "who signs in to Airflow")
    password: Secret | None = _setting(to_secret, "better in airflow.password_file")
    password_file: Path | None = _setting(to_path, "a file with the password, readable by you alone")


@dataclass(frozen=True, slots=True)
class MlflowSettings:
    """How to reach the tracking server."""

    url: str | None = _setting(to_url, "MLflow's address")


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """Folders in pairs: as this machine sees them, and as the workers do."""

    dags: Path | None = _setting(to_path, "Airflow's DAG folder, as this machine sees it")
    spark_submit_files: Path | None = _setting(to_path, "where releases for Spark go, as this machine sees it")
    spark_submit_files_in_pods: Path | None = _setting(to_path, "the same folder, as the workers see it")
    data_in_pods: Path | None = _setting(to_path, "the root of the raw data, as the workers see it")
    artifacts_in_pods: Path | None = _setting(to_path, "where artifacts go, as the workers see it")


@dataclass(frozen=True, slots=True)
class SshSettings:
    """The machine that has the folders, when it is not this one."""

    host: str | None = _setting(
        to_text, "the machine that has the folders, or its name in ssh's configuration; this one when not set"
    )
    user: str | None = _setting(to_text, "who signs in there")
    port: int | None = _setting(to_port, "ssh's port there")
    config: Path | None = _setting(to_path, "ssh's configuration; ~/.ssh/config when not set")


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """How to reach the cluster."""

    kubeconfig: Path | None = _setting(
        to_path, "the file that says how to reach the cluster; KUBECONFIG or ~/.kube/config when not set"
    )
    context: str | None = _setting(to_text, "a context in it; its current one when not set")


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """Where the cluster's services are, as NAMESPACE/KIND/NAME:PORT."""

    airflow: str = _setting(to_text, "Airflow's pages in the cluster", "airflow/svc/airflow-webserver:8080")
    yarn: str = _setting(to_text, "the ResourceManager's pages", "spark-lama-exps/svc/yarn-resourcemanager:8088")
    history: str = _setting(to_text, "Spark's history server", "spark-lama-exps/svc/yarn-spark-history-server:18080")
    hdfs: str = _setting(to_text, "the NameNode's pages", "hdfs-3/svc/hdfs-namenode:9870")
    jobhistory: str | None = _setting(
        to_text, "YARN's log server, the fast way to finished logs", "spark-lama-exps/svc/yarn-jobhistory:19888"
    )
    yarn_pod: str = _setting(to_text, "where yarn's own program runs", "spark-lama-exps/deploy/yarn-resourcemanager")
    mlflow: str | None = _setting(to_text, "MLflow's pages, where it runs in the cluster")


@dataclass(frozen=True, slots=True)
class YarnSettings:
    """How steps run on YARN."""

    url_in_pods: str | None = _setting(
        to_url,
        "the ResourceManager's web address, as the workers see it; without it steps for YARN run in the worker's pod",
    )
    spark_conf: Mapping[str, str] = _setting(
        to_properties, "Spark's configuration of steps on YARN, a NAME=VALUE in each line", dict
    )


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Addresses at which the cluster's pages can be opened directly."""

    airflow: str | None = _setting(to_url, "where Airflow can be opened directly, without a forward")
    yarn: str | None = _setting(to_url, "where the ResourceManager can be opened directly, without a forward")
    history: str | None = _setting(to_url, "where Spark's history can be opened directly, without a forward")
    hdfs: str | None = _setting(to_url, "where the NameNode can be opened directly, without a forward")
    mlflow: str | None = _setting(to_url, "where MLflow can be opened directly, without a forward")
    mlflow2: str | None = _setting(to_url, "where a second MLflow can be opened directly")


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The image of the Airflow worker."""

    worker: str = _setting(to_text, "the worker's image as REGISTRY/NAME, without a tag", "airflow-worker")
    base: str = _setting(to_text, "the image that it is built upon", "python:3.11-slim-bookworm")
    build_network: str | None = _setting(to_text, "the network of a build, such as host; Docker's own when not set")


@dataclass(frozen=True, slots=True)
class PackageSettings:
    """Wheels and jars for Spark, and what they have to fit."""

    wheels: tuple[Path, ...] = _setting(to_paths, "wheels to upload beside that of the workloads, one a line", ())
    jars: tuple[Path, ...] = _setting(to_paths, "jars to upload, one a line", ())
    python: str = _setting(to_version, "the Python of the workloads on the cluster", "3.11")
    scala: str = _setting(to_version, "the Scala of the cluster's Spark", "2.12")
    glibc: str = _setting(to_version, "the C library of the cluster's nodes, for wheels with compiled modules", "2.28")
    machine: str = _setting(to_text, "the processor of the cluster's nodes", "x86_64")


@dataclass(frozen=True, slots=True)
class DeploySettings:
    """Deadlines and pauses of a deploy in seconds, and what it leaves: rights in octal, releases to keep."""

    timeout_s: float = _setting(to_number, "how long a deploy waits for Airflow to show it", 120.0)
    load_timeout_s: float = _setting(to_number, "how long DAG modules may take to load", 30.0)
    lock_timeout_s: float = _setting(to_number, "how long a deploy waits for another one of the same name", 60.0)
    keep_releases: int = _setting(to_count, "how many releases gc keeps", 10)
    directory_mode: str = _setting(to_mode, "rights of deployed folders, octal; g+w counts with --shared", "2775")
    file_mode: str = _setting(to_mode, "rights of deployed files, octal; g+w counts with --shared", "664")
    poll_s: float = _setting(to_number, "pause between two questions to a server", 0.5)
    engine: str | None = _setting(
        to_engine,
        "what computes steps that say nothing else, embedded or spark; embedded in the local profile, spark elsewhere",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one profile; `sources` says of each key where its value came from."""

    profile: str
    user: str | None = _setting(to_text, "whose namespace to work in; also USERNAME_ON_CLUSTER")
    cache_dir: Path = _setting(to_path, "where environments are kept", lambda: base_dirs().user_cache_path)
    state_dir: Path = _setting(to_path, "where background forwards are noted", lambda: base_dirs().user_state_path)
    local: LocalSettings
    airflow: AirflowSettings
    mlflow: MlflowSettings
    folders: FolderSettings
    ssh: SshSettings
    kubernetes: KubernetesSettings
    targets: TargetSettings
    yarn: YarnSettings
    links: LinkSettings
    images: ImageSettings
    packages: PackageSettings
    deploy: DeploySettings
    sources: Mapping[str, str]

    def airflow_password(self) -> str | None:
        """Airflow's password, from the setting or from its file; SettingsError for a file that others can read."""
        if self.airflow.password is not None:
            return self.airflow.password.reveal()
        path = self.airflow.password_file
        if path is None:
            return None
        where = f"airflow.password_file {path} (from {self.sources['airflow.password_file']})"
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                raise SettingsError(f"{where} can be read by others", hint=f"chmod 600 {shlex.quote(str(path))}")
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{where} cannot be read: {error}") from error
        if not text:
            raise SettingsError(f"{where} is empty")
        # Made a secret, so that nothing prints it from here on.
        return Secret(text).reveal()


GROUPS: Mapping[str, type[Any]] = {
    "local": LocalSettings,
    "airflow": AirflowSettings,
    "mlflow": MlflowSettings,
    "folders": FolderSettings,
    "ssh": SshSettings,
    "kubernetes": KubernetesSettings,
    "targets": TargetSettings,
    "yarn": YarnSettings,
    "links": LinkSettings,
    "images": ImageSettings,
    "packages": PackageSettings,
    "deploy": DeploySettings,
}


def _declarations() -> Iterator[Setting]:
    for prefix, kind in (("", Settings), *((f"{name}.", group) for name, group in GROUPS.items())):
        for each in fields(kind):
            if _DECLARATION in each.metadata:
                convert, text, default = each.metadata[_DECLARATION]
                yield Setting(prefix + each.name, convert, text, default)


SETTINGS: tuple[Setting, ...] = tuple(_declarations())


def build(profile: str, values: Mapping[str, Any], sources: Mapping[str, str]) -> Settings:
    """The settings from a value for each key of `SETTINGS`."""
    groups = {
        name: kind(**{each.name: values[f"{name}.{each.name}"] for each in fields(kind)})
        for name, kind in GROUPS.items()
    }
    single = {setting.key: values[setting.key] for setting in SETTINGS if "." not in setting.key}
    return Settings(profile=profile, sources=sources, **single, **groups)


def value_of(settings: Settings, key: str) -> Any:
    """One setting's value by its dotted key; a secret stays masked."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value
