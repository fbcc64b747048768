"""The list of all settings: key, default, what it is for, and how text or YAML becomes its value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayctl.console.secret import Secret


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting: its key, how text or YAML becomes its value, its default and what it is for."""

    key: str
    convert: Callable[[Any], Any]
    help: str
    default: Callable[[Mapping[str, str]], Any] = lambda _environ: None
    secret: bool = False


class NotTextError(ValueError):
    """YAML made something else of what was meant as text."""


def _text(value: Any) -> str:
    if value is None:
        raise ValueError("is empty; leave the line out to keep the default")
    if isinstance(value, (dict, list)):
        raise ValueError("is a block or a list, expected text")
    if not isinstance(value, str):
        raise NotTextError
    if not value.strip():
        raise ValueError("is empty")
    return value


def _path(value: Any) -> Path:
    return Path(_text(value)).expanduser()


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"is {value!r}, expected a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"is {value!r}, expected a number") from None
    if not 0 < number < float("inf"):
        raise ValueError(f"is {value!r}, expected a number above 0")
    return number


def _count(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError(f"is {value!r}, expected a whole number")
    return int(number)


def _port(value: Any) -> int:
    port = _count(value)
    if port > 65535:
        raise ValueError(f"is {value!r}, expected a port from 1 to 65535")
    return port


def _mode(value: Any) -> str:
    # Only text: YAML reads 0664 as the number 436.
    text = _text(value)
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise ValueError(f"is {value!r}, expected octal rights in quotes, such as '664'")
    if int(text, 8) & 0o002:
        raise ValueError(f"is {value!r}, which would let everybody change code that runs with the cluster's rights")
    return text


def _url(value: Any) -> str:
    text = _text(value).rstrip("/")
    if not re.match(r"https?://[^/\s]+", text):
        raise ValueError(f"is {value!r}, expected http://host:port or https://…")
    return text


def _properties(value: Any) -> dict[str, str]:
    """`NAME=VALUE` in each line, as in spark-defaults.conf."""
    found = {}
    for line in filter(None, (each.strip() for each in _text(value).splitlines())):
        name, separator, text = line.partition("=")
        if not separator or not re.fullmatch(r"spark\.[A-Za-z0-9._-]+", name.strip()):
            raise ValueError(f"has the line {line!r}, expected spark.NAME=VALUE")
        found[name.strip()] = text.strip()
    return found


def _base_dir(variable: str, below_home: str, name: str) -> Callable[[Mapping[str, str]], Path]:
    """A folder by the XDG base directory specification."""

    def find(environ: Mapping[str, str]) -> Path:
        base = environ.get(variable)
        return (Path(base) if base else Path(environ.get("HOME", "~")).expanduser() / below_home) / "replayctl" / name

    return find


def _constant(value: Any) -> Callable[[Mapping[str, str]], Any]:
    return lambda _environ: value


SETTINGS: tuple[Setting, ...] = (
    Setting("user", _text, "whose namespace to work in; also USERNAME_ON_CLUSTER"),
    Setting("cache_dir", _path, "where environments are kept", _base_dir("XDG_CACHE_HOME", ".cache", "")),
    Setting("state_dir", _path, "where background forwards are noted", _base_dir("XDG_STATE_HOME", ".local/state", "")),
    Setting("local.home", _path, "all state of the local stack", _base_dir("XDG_STATE_HOME", ".local/state", "local")),
    Setting("local.python", _path, "a Python 3.11 for the environments; found by itself when not set"),
    Setting("local.java_home", _path, "a Java 17; found by itself when not set"),
    Setting("local.airflow_port", _port, "preferred port of Airflow; the next free one is taken", _constant(8080)),
    Setting("local.mlflow_port", _port, "preferred port of MLflow; the next free one is taken", _constant(8811)),
    Setting("local.spark_cores", _count, "cores of one Spark task; those of the machine, up to 4, when not set"),
    Setting("local.task_memory_gib", _count, "memory of one Spark task in GiB", _constant(3)),
    Setting("airflow.url", _url, "Airflow's address"),
    Setting("airflow.username", _text, "who signs in to Airflow"),
    Setting("airflow.password", lambda value: Secret(_text(value)), "better in airflow.password_file", secret=True),
    Setting("airflow.password_file", _path, "a file with the password, readable by you alone"),
    Setting("mlflow.url", _url, "MLflow's address"),
    Setting("folders.dags", _path, "Airflow's DAG folder, as this machine sees it"),
    Setting("folders.spark_submit_files", _path, "where releases for Spark go, as this machine sees it"),
    Setting("folders.spark_submit_files_in_pods", _path, "the same folder, as the workers see it"),
    Setting("folders.data_in_pods", _path, "the root of the raw data, as the workers see it"),
    Setting("folders.artifacts_in_pods", _path, "where artifacts go, as the workers see it"),
    Setting(
        "ssh.host", _text, "the machine that has the folders, or its name in ssh's configuration; this one when not set"
    ),
    Setting("ssh.user", _text, "who signs in there"),
    Setting("ssh.port", _port, "ssh's port there"),
    Setting("ssh.config", _path, "ssh's configuration; ~/.ssh/config when not set"),
    Setting(
        "kubernetes.kubeconfig",
        _path,
        "the file that says how to reach the cluster; KUBECONFIG or ~/.kube/config when not set",
    ),
    Setting("kubernetes.context", _text, "a context in it; its current one when not set"),
    Setting(
        "targets.airflow", _text, "Airflow's pages in the cluster", _constant("airflow/svc/airflow-webserver:8080")
    ),
    Setting(
        "targets.yarn", _text, "the ResourceManager's pages", _constant("spark-lama-exps/svc/yarn-resourcemanager:8088")
    ),
    Setting(
        "targets.history",
        _text,
        "Spark's history server",
        _constant("spark-lama-exps/svc/yarn-spark-history-server:18080"),
    ),
    Setting("targets.hdfs", _text, "the NameNode's pages", _constant("hdfs-3/svc/hdfs-namenode:9870")),
    Setting(
        "targets.jobhistory",
        _text,
        "YARN's log server, the fast way to finished logs",
        _constant("spark-lama-exps/svc/yarn-jobhistory:19888"),
    ),
    Setting(
        "targets.yarn_pod",
        _text,
        "where yarn's own program runs",
        _constant("spark-lama-exps/deploy/yarn-resourcemanager"),
    ),
    Setting("targets.mlflow", _text, "MLflow's pages, where it runs in the cluster"),
    Setting(
        "yarn.url_in_pods",
        _url,
        "the ResourceManager's web address, as the workers see it; without it steps for YARN run in the worker's pod",
    ),
    Setting(
        "yarn.spark_conf",
        _properties,
        "Spark's configuration of steps on YARN, a NAME=VALUE in each line",
        _constant({}),
    ),
    Setting("links.airflow", _url, "where Airflow can be opened directly, without a forward"),
    Setting("links.yarn", _url, "where the ResourceManager can be opened directly, without a forward"),
    Setting("links.history", _url, "where Spark's history can be opened directly, without a forward"),
    Setting("links.hdfs", _url, "where the NameNode can be opened directly, without a forward"),
    Setting("links.mlflow", _url, "where MLflow can be opened directly, without a forward"),
    Setting("deploy.timeout_s", _number, "how long a deploy waits for Airflow to show it", _constant(120.0)),
    Setting("deploy.load_timeout_s", _number, "how long DAG modules may take to load", _constant(30.0)),
    Setting(
        "deploy.lock_timeout_s", _number, "how long a deploy waits for another one of the same name", _constant(60.0)
    ),
    Setting("deploy.keep_releases", _count, "how many releases gc keeps", _constant(10)),
    Setting("deploy.directory_mode", _mode, "rights of folders that a deploy makes, octal", _constant("2775")),
    Setting("deploy.file_mode", _mode, "rights of files that a deploy writes, octal", _constant("664")),
    Setting("deploy.poll_s", _number, "pause between two questions to a server", _constant(0.5)),
)
