"""All settings, each declared once: its field, its conversion, its default and its description.

The fields of the dataclasses are the declarations; `SETTINGS` is the list of them, by dotted key.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from replayctl.console.secret import Secret
from replayctl.errors import SettingsError
from replayctl.settings.base_dirs import base_dirs
from replayctl.settings.values import (
    PodSize,
    to_count,
    to_engine,
    to_filesystem,
    to_flag,
    to_folder,
    to_hdfs_folder,
    to_mode,
    to_names,
    to_number,
    to_outage,
    to_path,
    to_paths,
    to_pod_size,
    to_port,
    to_properties,
    to_secret,
    to_servers,
    to_source,
    to_ssh_client,
    to_store,
    to_text,
    to_url,
    to_version,
)

_DECLARATION = "setting"


class Setting(NamedTuple):
    """One declared setting: its key, how text or YAML is converted, its default and its description."""

    key: str
    convert: Callable[[Any], Any]
    help: str
    default: Callable[[], Any]

    @property
    def secret(self) -> bool:
        """Whether its value must not be shown."""
        return self.convert is to_secret


def _setting(convert: Callable[[Any], Any], help: str, default: Any = None) -> Any:
    """A field that is a setting; a callable `default` is called when settings are loaded."""
    find = default if callable(default) else lambda: default
    return field(metadata={_DECLARATION: (convert, help, find)})


class _Group:
    """Values that are set once. Every group shares these methods: compiling them for each costs a tenth of a start."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to setting {name!r}")


@dataclass(init=False, eq=False, repr=False)
class LocalSettings(_Group):
    """The embedded stack; memory in GiB."""

    home: Path = _setting(to_path, "folder of the local stack's state", lambda: base_dirs().user_state_path / "local")
    python: Path | None = _setting(to_path, "Python 3.11 to 3.13 for the environments; detected when not set")
    java_home: Path | None = _setting(to_path, "home of Java 17 for Spark; detected when not set")
    airflow_port: int = _setting(to_port, "preferred port of Airflow; the next free port is used if it is in use", 8080)
    mlflow_port: int = _setting(to_port, "preferred port of MLflow; the next free port is used if it is in use", 8811)
    spark_cores: int | None = _setting(to_count, "cores per step; the machine's cores, at most 4, when not set")
    task_memory_gib: int = _setting(to_count, "memory per step in GiB", 3)
    keep_logs_days: int = _setting(to_count, "days to keep the stack's logs; `local up` removes older ones", 30)


@dataclass(init=False, eq=False, repr=False)
class AirflowSettings(_Group):
    """How to reach Airflow's REST API."""

    url: str | None = _setting(to_url, "Airflow's address")
    username: str | None = _setting(to_text, "user name for Airflow")
    password: Secret | None = _setting(to_secret, "password for Airflow; prefer airflow.password_file")
    password_file: Path | None = _setting(to_path, "file with the password for Airflow, readable by you alone")
    config_maps: tuple[str, ...] = _setting(
        to_names, "ConfigMaps with airflow.cfg or the pod template that the scheduler does not mount, one per line", ()
    )


@dataclass(init=False, eq=False, repr=False)
class MlflowSettings(_Group):
    """How to reach the tracking server."""

    url: str | None = _setting(to_url, "MLflow's address")
    url_in_pods: str | None = _setting(to_url, "MLflow's address for the workers; mlflow.url when not set")
    servers: Mapping[str, str] = _setting(
        to_servers, "further MLflow servers that a DAG may choose by name, one NAME=URL per line", dict
    )
    servers_in_pods: Mapping[str, str] = _setting(
        to_servers, "addresses of mlflow.servers for the workers, where they differ, one NAME=URL per line", dict
    )
    when_away: str = _setting(
        to_outage,
        "what an evaluation does while MLflow is away: fail or continue; its metrics are kept in both",
        "fail",
    )


@dataclass(init=False, eq=False, repr=False)
class FolderSettings(_Group):
    """Folders in pairs: the path on this machine and the path on the workers."""

    dags: Path | None = _setting(to_path, "Airflow's DAG folder, path on this machine")
    spark_submit_files: Path | None = _setting(to_path, "folder of releases for Spark, path on this machine")
    spark_submit_files_in_pods: Path | None = _setting(to_path, "folder of releases for Spark, path on the workers")
    data_in_pods: Path | None = _setting(to_path, "root folder of the raw data, path on the workers")
    artifacts_in_pods: Path | str | None = _setting(
        to_folder, "folder of artifacts, path on the workers or an hdfs:// address"
    )
    artifacts: Path | None = _setting(
        to_path, "folder of artifacts, path on this machine; needed by mlflow-sync and gc, unless it is on HDFS"
    )


@dataclass(init=False, eq=False, repr=False)
class SshSettings(_Group):
    """The machine that has the folders, when they are not mounted on this one."""

    host: str | None = _setting(
        to_text, "host that has the folders, or its alias in ssh's configuration; this machine when not set"
    )
    user: str | None = _setting(to_text, "user name on that host")
    port: int | None = _setting(to_port, "port of ssh on that host")
    config: Path | None = _setting(to_path, "configuration file of ssh; ~/.ssh/config when not set")
    client: str = _setting(
        to_ssh_client,
        "`openssh` runs the ssh program; `fabric` needs none, and can ask for a password or passphrase; `auto` takes "
        "openssh where it is installed",
        "auto",
    )


@dataclass(init=False, eq=False, repr=False)
class KubernetesSettings(_Group):
    """How to reach the cluster."""

    kubeconfig: Path | None = _setting(to_path, "kubeconfig file; $KUBECONFIG or ~/.kube/config when not set")
    context: str | None = _setting(to_text, "context in the kubeconfig; its current context when not set")


@dataclass(init=False, eq=False, repr=False)
class TargetSettings(_Group):
    """Where the cluster's services are, as NAMESPACE/KIND/NAME:PORT."""

    airflow: str = _setting(to_text, "Airflow's pages in the cluster", "airflow/svc/airflow-webserver:8080")
    airflow_scheduler: str = _setting(
        to_text, "Airflow's scheduler, whose container has its configuration", "airflow/deploy/airflow-scheduler"
    )
    yarn: str = _setting(to_text, "the ResourceManager's pages", "spark-lama-exps/svc/yarn-resourcemanager:8088")
    history: str = _setting(to_text, "Spark's history server", "spark-lama-exps/svc/yarn-spark-history-server:18080")
    hdfs: str = _setting(to_text, "the NameNode's pages", "hdfs-3/svc/hdfs-namenode:9870")
    jobhistory: str | None = _setting(
        to_text, "YARN's log server, the fastest source of finished logs", "spark-lama-exps/svc/yarn-jobhistory:19888"
    )
    yarn_pod: str = _setting(
        to_text, "pod in which the yarn command is available", "spark-lama-exps/deploy/yarn-resourcemanager"
    )
    mlflow: str | None = _setting(to_text, "MLflow's pages, if it runs in the cluster")


@dataclass(init=False, eq=False, repr=False)
class YarnSettings(_Group):
    """How steps run on YARN."""

    url_in_pods: str | None = _setting(
        to_url,
        "the ResourceManager's web address for the workers; if not set, steps for YARN run in the worker's pod",
    )
    spark_conf: Mapping[str, str] = _setting(
        to_properties, "Spark configuration of steps on YARN, one NAME=VALUE per line", dict
    )


@dataclass(init=False, eq=False, repr=False)
class HdfsSettings(_Group):
    """How to reach HDFS, by WebHDFS and by its own protocol."""

    url: str | None = _setting(
        to_url, "the NameNode's web address for this machine; a forward to targets.hdfs is opened when not set"
    )
    url_in_pods: str | None = _setting(to_url, "the NameNode's web address for the workers")
    filesystem: str | None = _setting(
        to_filesystem, "address of HDFS for Spark, such as hdfs://namenode:9000; without it nothing is stored in HDFS"
    )
    user: str | None = _setting(to_text, "user name in HDFS; the setting `user` when not set")
    packages: str = _setting(
        to_hdfs_folder, "folder in HDFS of wheels, jars and Python environments", "/shared/replay/packages"
    )


@dataclass(init=False, eq=False, repr=False)
class LinkSettings(_Group):
    """Addresses at which the cluster's pages can be opened directly."""

    airflow: str | None = _setting(to_url, "direct link to Airflow, without a forward")
    yarn: str | None = _setting(to_url, "direct link to the ResourceManager, without a forward")
    history: str | None = _setting(to_url, "direct link to Spark's history server, without a forward")
    hdfs: str | None = _setting(to_url, "direct link to the NameNode, without a forward")
    mlflow: str | None = _setting(to_url, "direct link to MLflow, without a forward")
    mlflow2: str | None = _setting(to_url, "direct link to a second MLflow")


@dataclass(init=False, eq=False, repr=False)
class ImageSettings(_Group):
    """The image of the Airflow worker."""

    worker: str = _setting(to_text, "image of the worker as REGISTRY/NAME, without a tag", "airflow-worker")
    pods: str | None = _setting(
        to_text,
        "image of tasks' pods: a tag of images.worker, or REGISTRY/NAME:TAG; that of the pod template when not set",
    )
    base: str = _setting(to_text, "base image of the worker's image", "python:3.11-slim-bookworm")
    build_network: str | None = _setting(to_text, "network of the build, such as host; Docker's default when not set")


@dataclass(init=False, eq=False, repr=False)
class PodSettings(_Group):
    """What the pods of tasks request, by tier, as CORES/GIB; the tiers' own sizes when not set."""

    default: PodSize | None = _setting(to_pod_size, "cores and GiB of a step's pod, as CORES/GIB; 6/30 when not set")
    big: PodSize | None = _setting(to_pod_size, "the same for steps of tier big; 12/40 when not set")
    extra_big: PodSize | None = _setting(to_pod_size, "the same for steps of tier extra_big; 20/80 when not set")
    submit: PodSize | None = _setting(to_pod_size, "the same for pods that submit a step to YARN; 1/2 when not set")


@dataclass(init=False, eq=False, repr=False)
class PackageSettings(_Group):
    """Wheels and jars for Spark, and what they have to fit."""

    wheels: tuple[Path, ...] = _setting(to_paths, "wheels to upload beside that of the workloads, one a line", ())
    jars: tuple[Path, ...] = _setting(to_paths, "jars to upload, one a line", ())
    python: str = _setting(to_version, "the Python of the workloads on the cluster", "3.11")
    scala: str = _setting(to_version, "the Scala of the cluster's Spark", "2.12")
    glibc: str = _setting(to_version, "the C library of the cluster's nodes, for wheels with compiled modules", "2.28")
    machine: str = _setting(to_text, "the processor of the cluster's nodes", "x86_64")
    requirements: Path | None = _setting(
        to_path, "pinned list of the Python environment for steps on YARN; that of the shipped workloads when not set"
    )
    standalone_python: Path | str | None = _setting(
        to_source, "standalone CPython to pack, as URL#sha256=HEX; Debian's packages when not set"
    )
    store: str = _setting(to_store, "where packages are stored: folder (folders.spark_submit_files) or hdfs", "folder")
    environment: bool = _setting(
        to_flag,
        "whether steps on YARN run in the environment that build-python-env packs, or in the nodes' Python",
        False,
    )


@dataclass(init=False, eq=False, repr=False)
class DeploySettings(_Group):
    """Timeouts and intervals of a deploy in seconds, permissions in octal, and what gc keeps."""

    timeout_s: float = _setting(to_number, "seconds to wait until Airflow shows the release", 120.0)
    load_timeout_s: float = _setting(to_number, "seconds that loading the DAG modules may take", 30.0)
    lock_timeout_s: float = _setting(
        to_number, "seconds to wait for the lock of another deploy in the same namespace", 60.0
    )
    keep_releases: int = _setting(to_count, "number of releases that gc keeps", 10)
    keep_unfinished_days: int = _setting(
        to_count, "days after which gc removes unfinished artifacts of killed tasks", 7
    )
    directory_mode: str = _setting(
        to_mode, "octal permissions of deployed folders; group write applies only with --shared", "2775"
    )
    file_mode: str = _setting(
        to_mode, "octal permissions of deployed files; group write applies only with --shared", "664"
    )
    poll_s: float = _setting(to_number, "seconds between two requests when polling a server", 0.5)
    engine: str | None = _setting(
        to_engine,
        "default engine of steps, embedded or spark; embedded in the local profile, spark in others",
    )


@dataclass(kw_only=True, init=False, eq=False, repr=False)
class Settings(_Group):
    """All settings of one profile; `sources` says of each key where its value came from."""

    profile: str
    user: str | None = _setting(to_text, "user whose namespace to work in; also set by USERNAME_ON_CLUSTER")
    cache_dir: Path = _setting(to_path, "folder of the Python environments", lambda: base_dirs().user_cache_path)
    state_dir: Path = _setting(
        to_path, "folder in which background forwards are recorded", lambda: base_dirs().user_state_path
    )
    local: LocalSettings
    airflow: AirflowSettings
    mlflow: MlflowSettings
    folders: FolderSettings
    ssh: SshSettings
    kubernetes: KubernetesSettings
    targets: TargetSettings
    yarn: YarnSettings
    hdfs: HdfsSettings
    links: LinkSettings
    images: ImageSettings
    pods: PodSettings
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
                import shlex

                raise SettingsError(f"{where} is readable by others", hint=f"chmod 600 {shlex.quote(str(path))}")
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read {where}: {error}") from error
        if not text:
            raise SettingsError(f"{where} is empty")
        # Registered as a secret, so that it is never printed.
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
    "hdfs": HdfsSettings,
    "links": LinkSettings,
    "images": ImageSettings,
    "pods": PodSettings,
    "packages": PackageSettings,
    "deploy": DeploySettings,
}


def _declarations() -> Iterator[Setting]:
    for prefix, kind in (("", Settings), *((f"{name}.", group) for name, group in GROUPS.items())):
        for declared in fields(kind):
            if _DECLARATION in declared.metadata:
                convert, text, default = declared.metadata[_DECLARATION]
                yield Setting(prefix + declared.name, convert, text, default)


SETTINGS: tuple[Setting, ...] = tuple(_declarations())


def build(profile: str, values: Mapping[str, Any], sources: Mapping[str, str]) -> Settings:
    """The settings from a value for each key of `SETTINGS`."""
    groups = {
        name: kind(**{declared.name: values[f"{name}.{declared.name}"] for declared in fields(kind)})
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
