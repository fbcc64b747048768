"""The programs that the embedded stack is made of: their arguments, environments and ports.

Each part of Airflow is a process of its own, not a child of `airflow standalone`: so each can be named when it is dead,
has its own log, and opens no port but the one of Airflow's pages.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from replayctl.local import environments, spark_classes
from replayctl.local.capacity import local_slots
from replayctl.local.disk import write_private
from replayctl.local.environments import Environment
from replayctl.local.processes import MARK_VARIABLE
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders

USERNAME = "admin"
# In the order in which they are started.
MLFLOW, API_SERVER, SCHEDULER, DAG_PROCESSOR, TRIGGERER = (
    *("mlflow", "api-server", "scheduler"),
    *("dag-processor", "triggerer"),
)
PARTS = (MLFLOW, API_SERVER, SCHEDULER, DAG_PROCESSOR, TRIGGERER)
# Variables of the caller's shell that the servers must not see.
_FOREIGN_VARIABLES = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
    "VIRTUAL_ENV",
    "SPARK_",
    "PYSPARK_",
    "AIRFLOW",
    "MLFLOW_",
)
# Not [::1]: some HTTP clients misread its colons as a port. The stack uses IPv4 addresses only.
_LOOPBACK = ("127.0.0.1", "localhost")
_NOBODYS_PORT = "9"


@dataclass(frozen=True, slots=True)
class Program:
    """How a part is started; `port` if it has pages."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    """The address of the pages."""

    mlflow: int
    airflow: int


def mlflow_program(settings: Settings, installed: Mapping[str, Environment], ports: Ports, mark: str) -> Program:
    """MLflow's server on sqlite."""
    home = settings.local.home
    mlflow = installed["mlflow"]
    argv = (
        *(str(mlflow.program("mlflow")), "server", "--host", "127.0.0.1", "--port", str(ports.mlflow)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{home}/mlflow/mlflow.db"),
        *("--artifacts-destination", str(home / "mlflow" / "artifacts")),
        # Neither pages of other hosts nor their scripts may reach it through a name that resolves to this machine.
        *("--allowed-hosts", f"127.0.0.1:{ports.mlflow},localhost:{ports.mlflow}"),
        *("--cors-allowed-origins", f"http://127.0.0.1:{ports.mlflow},http://localhost:{ports.mlflow}"),
    )
    environment = _clean_environment(mark) | {
        "PATH": f"{mlflow.path / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        # Avoids eight processes for MLflow's own jobs, which are not used here.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return Program(MLFLOW, argv, environment, ports.mlflow)


def airflow_program(
    name: str, installed: Mapping[str, Environment], environment: Mapping[str, str], ports: Ports
) -> Program:
    """One part of Airflow in the environment that all parts share."""
    argv = [str(installed["airflow"].program("airflow")), name]
    if name in (SCHEDULER, TRIGGERER):
        # Their log servers would listen on every address; the API server reads tasks' log files itself.
        argv.append("--skip-serve-logs")
    if name == SCHEDULER:
        # Tasks inherit its level, and people read their logs.
        return Program(name, tuple(argv), environment)
    quiet = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING", "AIRFLOW__LOGGING__UVICORN_LOGGING_LEVEL": "WARNING"}
    port = ports.airflow if name == API_SERVER else None
    return Program(name, tuple(argv), {**environment, **quiet}, port)


def airflow_environment(
    settings: Settings, installed: Mapping[str, Environment], ports: Ports, mark: str
) -> dict[str, str]:
    """The environment variables of Airflow's parts and of their tasks; raises OSError for a full disk.

    Spark is set even when it is not installed: it may be added while the stack runs.
    """
    return {
        **_clean_environment(mark),
        **_step_variables(settings, installed, ports),
        **_server_variables(settings, ports),
    }


def _step_variables(settings: Settings, installed: Mapping[str, Environment], ports: Ports) -> dict[str, str]:
    """The variables that steps need: their interpreters, Spark, Java and MLflow."""
    spark = environments.path_of(environments.SPARK, settings.cache_dir)
    spark_home = environments.spark_home(settings.cache_dir)
    java_home = environments.known_java_home(settings.local.java_home)
    java = [java_home / "bin"] if java_home else []
    path = [installed["airflow"].path / "bin", spark_home / "bin", *java, os.environ.get("PATH", "")]
    return {
        "PATH": os.pathsep.join(map(str, path)),
        **(_java(spark, java_home) if java_home else {}),
        "SPARK_HOME": str(spark_home),
        "PYSPARK_PYTHON": str(spark / "bin" / "python"),
        "REPLAYCTL_PYTHON_EMBEDDED": str(installed["workload"].program("python")),
        "REPLAYCTL_PYTHON_SPARK": str(spark / "bin" / "python"),
        # For the JVM that only assembles the command line of the step's own JVM.
        "SPARK_LAUNCHER_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(settings.local.home / "spark"),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports.mlflow}",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def _server_variables(settings: Settings, ports: Ports) -> dict[str, str]:
    """Airflow's configuration."""
    airflow_home = settings.local.home / "airflow"
    own = _secrets(settings.local.home)
    pages = f"http://127.0.0.1:{ports.airflow}"
    return {
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(find_folders(settings).dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(max(2, 2 * local_slots(settings))),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{pages}/execution/",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow_home / "passwords.json"),
        # Airflow's own intervals, shortened so that a changed DAG shows at once.
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "0",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "0",
        # A supervisor reports a failed task, and ends one that was stopped, up to this many seconds later.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow_home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(airflow_home / "logs"),
        # While a task runs, the API server also asks the log server of its host, with a token. There is none: it asks
        # this machine, past proxies, on a port that no ordinary user can listen on, and is refused at once.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "urllib.request.localhost",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": _NOBODYS_PORT,
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": _NOBODYS_PORT,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(ports.airflow),
        "AIRFLOW__API__BASE_URL": pages,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": own["api_secret"],
        "AIRFLOW__API_AUTH__JWT_SECRET": own["jwt_secret"],
    }


def _java(spark: Path, java_home: Path) -> dict[str, str]:
    return {"JAVA_HOME": str(java_home), "REPLAYCTL_SPARK_CLASSES": str(spark_classes.path_of(spark, java_home))}


def password_file(home: Path) -> Path:
    """The file with the password of Airflow's `admin`, readable only by its owner."""
    return home / "airflow" / "admin_password"


def read_password(home: Path) -> str | None:
    """The admin's password; None when its file is missing, empty, not text or not readable."""
    try:
        return password_file(home).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def ensure_password(home: Path) -> bool:
    """Makes our password file and Airflow's agree; returns whether one was missing or damaged.

    Airflow reads its file at each sign-in, so a new password also works for a running server.
    """
    airflow_file = home / "airflow" / "passwords.json"
    try:
        known = json.loads(airflow_file.read_text(encoding="utf-8"))[USERNAME]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    password = read_password(home)
    if password is not None and password == known:
        return False
    # Airflow's password takes precedence: somebody may be signed in with it.
    password = known if isinstance(known, str) and known else password or secrets.token_urlsafe(12)
    write_private(airflow_file, json.dumps({USERNAME: password}))
    write_private(password_file(home), password + "\n")
    return True


def _secrets(home: Path) -> dict[str, str]:
    """The keys of Airflow's API, created once per folder and readable only by the owner."""
    path = home / "airflow" / "secrets.json"
    names = ("api_secret", "jwt_secret")
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(keys[name]) for name in names}
    except (OSError, ValueError, KeyError, TypeError):
        # Missing or damaged: new keys only require a new sign-in.
        keys = {name: secrets.token_urlsafe(64) for name in names}
        write_private(path, json.dumps(keys))
        return keys


def _clean_environment(mark: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_VARIABLES)}
    exempt = [entry.strip() for name in ("no_proxy", "NO_PROXY") for entry in kept.get(name, "").split(",")]
    no_proxy = ",".join(dict.fromkeys(entry for entry in (*exempt, *_LOOPBACK) if entry))
    return kept | {
        MARK_VARIABLE: mark,
        # Disables usage reports of both services and of the tasks' MLflow client.
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # Airflow's processes change their titles, which hides their environment and with it the mark.
        "SPT_NOENV": "1",
        # The parts and the tasks connect to each other directly, never through a proxy.
        "no_proxy": no_proxy,
        "NO_PROXY": no_proxy,
    }


def migration_program(installed: Mapping[str, Environment], environment: Mapping[str, str]) -> Program:
    """The program that creates Airflow's database or migrates it to the current environment's version."""
    return Program("db", (str(installed["airflow"].program("airflow")), "db", "migrate"), environment)
