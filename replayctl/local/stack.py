"""The embedded stack of the local profile: Airflow standalone and an MLflow server, as background processes.

All state lies in one folder (`local.home`). `stack.json` there names the processes with their start times, so that
a process id which the system has given to something else is never mistaken for ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from replayctl import process
from replayctl.clients.airflow import AirflowApi
from replayctl.clients.mlflow import MlflowApi
from replayctl.console.events import Reporter
from replayctl.console.secret import Secret
from replayctl.errors import AuthFailed, NotReady, OperationFailed, PortTaken, TimedOut, Unreachable
from replayctl.local import environments
from replayctl.local.capacity import LOCAL_POOL, local_slots
from replayctl.local.environments import Environment
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders

USERNAME = "admin"
_START_DEADLINE_S = 180.0
_STOP_DEADLINE_S = 30.0
_POLL_S = 0.5
_AIRFLOW_PARTS = ("metadatabase", "scheduler", "dag_processor")
# What a caller's shell may carry and the servers must not see.
_FOREIGN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SPARK_", "PYSPARK_", "AIRFLOW", "MLFLOW_")


@dataclass(frozen=True, slots=True)
class Service:
    """One background process: its leader's process id with start time, port and address."""

    name: str
    pid: int
    started_unix_s: float
    port: int

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Stack:
    """The embedded stack: its folder and its services; `found` when it was running before it was asked for."""

    home: Path
    services: tuple[Service, ...]
    healthy: Mapping[str, bool]
    found: bool = False

    @property
    def running(self) -> bool:
        """Whether every service is there and answers."""
        return len(self.services) == 2 and all(self.healthy.get(service.name) for service in self.services)

    def service(self, name: str) -> Service:
        """One service by name; NotReady when it does not run."""
        for service in self.services:
            if service.name == name:
                return service
        raise NotReady(f"the local {name} is not running", hint="start it with: replayctl local up")


def status(settings: Settings) -> Stack:
    """What runs now, asked of the processes and the servers themselves."""
    services = tuple(service for service in _recorded(settings.local.home) if _is_alive(service))
    healthy = {service.name: _is_healthy(service) for service in services}
    return Stack(settings.local.home, services, healthy)


def password_file(home: Path) -> Path:
    """Where the password of Airflow's `admin` is kept, readable by its owner alone."""
    return home / "airflow" / "admin_password"


def up(settings: Settings, reporter: Reporter) -> Stack:
    """Starts what does not run, and returns when all of it answers; a second call finds the first one's stack.

    Makes the environments when needed. Ports that are taken are replaced by free ones. Interrupted or failed, it
    stops what it has started. Raises NotFound without Python 3.11 or Java, TimedOut with the log's last lines.
    """
    home = settings.local.home
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _exclusive(home, reporter):
        stack = status(settings)
        if stack.running:
            reporter.step(f"the local stack is running already, in {home}")
            return Stack(stack.home, stack.services, stack.healthy, found=True)
        if stack.services:
            reporter.step("the local stack runs in part: stopping the rest of it first")
            _stop(home, stack.services)
        java_home = environments.find_java_home(settings.local.java_home)
        made = {
            name: environments.ensure(name, settings.cache_dir, settings.local.python, reporter)
            for name in environments.NAMES
        }
        _prepare_folders(settings)
        try:
            services = _start(settings, made, java_home, reporter)
            _wait_until_healthy(home, services, reporter)
            api = airflow_api(settings, services[1].url)
            api.ensure_pool(LOCAL_POOL, local_slots(settings), "Spark tasks that fit into this machine at once")
        except BaseException:
            _stop(home, tuple(_recorded(home)))
            raise
    return Stack(home, services, {service.name: True for service in services})


def down(settings: Settings, reporter: Reporter) -> tuple[Service, ...]:
    """Stops the stack and everything it has started; returns what ran. State stays in the folder."""
    home = settings.local.home
    if not home.exists():
        return ()
    with _exclusive(home, reporter):
        running = tuple(service for service in _recorded(home) if _is_alive(service))
        if running:
            reporter.step(f"stopping {', '.join(service.name for service in running)}")
        _stop(home, running)
    return running


def airflow_api(settings: Settings, url: str | None = None) -> AirflowApi:
    """A client of the local Airflow as its admin; NotReady when it does not run."""
    url = url or settings.airflow.url or status(settings).service("airflow").url
    path = password_file(settings.local.home)
    if not path.exists():
        raise NotReady("the local Airflow has no password yet", hint="start it with: replayctl local up")
    # Made a secret, so that nothing prints it from here on.
    password = Secret(path.read_text(encoding="utf-8").strip())
    return AirflowApi(url, username=USERNAME, password=password.reveal())


def _prepare_folders(settings: Settings) -> None:
    folders = find_folders(settings)
    home = settings.local.home
    for folder in (folders.dags, folders.spark_submit_files, folders.data_in_pods, folders.artifacts_in_pods):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("airflow", "mlflow", "logs", "spark"):
        (home / name).mkdir(exist_ok=True)


def _start(
    settings: Settings, made: Mapping[str, Environment], java_home: Path, reporter: Reporter
) -> tuple[Service, Service]:
    home = settings.local.home
    mlflow_port = _free_port(settings.local.mlflow_port, "MLflow", reporter)
    # MLflow has not bound its port yet, so nothing but this list knows that it is spoken for.
    airflow_port = _free_port(settings.local.airflow_port, "Airflow", reporter, spoken_for=(mlflow_port,))
    reporter.step(f"starting MLflow on port {mlflow_port} and Airflow on port {airflow_port}")
    mlflow = made["mlflow"]
    argv = [str(mlflow.program("mlflow")), "server", "--host", "127.0.0.1", "--port", str(mlflow_port)]
    argv += ["--workers", "1", "--backend-store-uri", f"sqlite:///{home}/mlflow/mlflow.db"]
    argv += ["--artifacts-destination", str(home / "mlflow" / "artifacts")]
    environment = _clean_environment() | {
        "PATH": f"{mlflow.path / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        # Eight processes that wait for jobs of MLflow's own, which nobody here submits.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    # Between its start and its record a process could be lost to Ctrl-C.
    with process.signals_deferred():
        mlflow_service = _spawn("mlflow", argv, environment, mlflow_port, home)
        _record(home, (mlflow_service,))
    environment = _airflow_environment(settings, made, java_home, airflow_port, mlflow_service.url)
    argv = [str(made["airflow"].program("airflow")), "standalone"]
    with process.signals_deferred():
        airflow_service = _spawn("airflow", argv, environment, airflow_port, home)
        _record(home, (mlflow_service, airflow_service))
    return mlflow_service, airflow_service


def _airflow_environment(
    settings: Settings, made: Mapping[str, Environment], java_home: Path, port: int, tracking_uri: str
) -> dict[str, str]:
    home = settings.local.home
    airflow_home = home / "airflow"
    spark_home = made["workload"].site_packages / "pyspark"
    own = _secrets(home)
    path = [made["airflow"].path / "bin", spark_home / "bin", java_home / "bin", os.environ.get("PATH", "")]
    variables = {
        "PATH": os.pathsep.join(map(str, path)),
        "JAVA_HOME": str(java_home),
        "SPARK_HOME": str(spark_home),
        "PYSPARK_PYTHON": str(made["workload"].program("python")),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(home / "spark"),
        "MLFLOW_TRACKING_URI": tracking_uri,
        "GIT_PYTHON_REFRESH": "quiet",
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(find_folders(settings).dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(max(2, 2 * local_slots(settings))),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow_home / "passwords.json"),
        # A changed DAG must show at once: these are the server's own intervals for that.
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "0",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow_home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(airflow_home / "logs"),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_any_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_any_port()),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": own["api_secret"],
        "AIRFLOW__API_AUTH__JWT_SECRET": own["jwt_secret"],
    }
    return _clean_environment() | variables


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_VARIABLES)}


def _secrets(home: Path) -> dict[str, str]:
    """Keys and the admin's password, made once per folder and readable by the owner alone."""
    path = home / "airflow" / "secrets.json"
    if not path.exists():
        made = {name: secrets.token_urlsafe(32) for name in ("api_secret", "jwt_secret")}
        _write_private(path, json.dumps(made))
    if not password_file(home).exists():
        password = secrets.token_urlsafe(12)
        _write_private(home / "airflow" / "passwords.json", json.dumps({USERNAME: password}))
        _write_private(password_file(home), password + "\n")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.rename(path)


def _spawn(name: str, argv: list[str], environment: Mapping[str, str], port: int, home: Path) -> Service:
    import psutil

    log = _log_path(home, name)
    if log.exists():
        shutil.move(log, log.with_suffix(".previous.log"))
    pid = process.spawn_detached(argv, env=environment, cwd=home, log_path=log)
    return Service(name, pid, psutil.Process(pid).create_time(), port)


def _wait_until_healthy(home: Path, services: tuple[Service, ...], reporter: Reporter) -> None:
    deadline = time.monotonic() + _START_DEADLINE_S
    waiting = list(services)
    while waiting:
        for service in waiting:
            if not _is_alive(service):
                raise OperationFailed(
                    f"the local {service.name} ended while starting", details=_log_tail(home, service.name)
                )
        waiting = [service for service in waiting if not _is_healthy(service)]
        if waiting and time.monotonic() > deadline:
            raise TimedOut(
                f"the local {waiting[0].name} did not answer within {_START_DEADLINE_S:.0f} s",
                details=_log_tail(home, waiting[0].name),
                hint=f"the whole log: {_log_path(home, waiting[0].name)}",
            )
        if waiting:
            reporter.status(f"waiting for {', '.join(service.name for service in waiting)}")
            time.sleep(_POLL_S)


def _is_healthy(service: Service) -> bool:
    if service.name == "mlflow":
        return MlflowApi(service.url).is_healthy()
    try:
        health = AirflowApi(service.url, username="", password="").health()
    except (Unreachable, OperationFailed, AuthFailed):
        return False
    return all(health.get(part) == "healthy" for part in _AIRFLOW_PARTS)


def _is_alive(service: Service) -> bool:
    import psutil

    try:
        found = psutil.Process(service.pid)
        return bool(abs(found.create_time() - service.started_unix_s) < 1.0 and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _stop(home: Path, services: tuple[Service, ...]) -> None:
    """Ends the services and all their descendants, politely first.

    Airflow's tasks and their JVMs leave the leader's process group, so the tree is taken down by ids, noted before
    the first signal: a child whose parent has ended cannot be found any more.
    """
    import psutil

    tree: list[psutil.Process] = []
    for service in services:
        if _is_alive(service):
            with contextlib.suppress(psutil.Error):
                leader = psutil.Process(service.pid)
                tree += [leader, *leader.children(recursive=True)]
    for each in tree:
        with contextlib.suppress(psutil.Error):
            each.terminate()
    _, alive = psutil.wait_procs(tree, timeout=_STOP_DEADLINE_S)
    for each in alive:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(alive, timeout=5)
    (home / "stack.json").unlink(missing_ok=True)


def _recorded(home: Path) -> list[Service]:
    try:
        entries = json.loads((home / "stack.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [Service(**entry) for entry in entries]


def _record(home: Path, services: tuple[Service, ...]) -> None:
    _write_private(home / "stack.json", json.dumps([asdict(service) for service in services], indent=2) + "\n")


def _free_port(preferred: int, name: str, reporter: Reporter, spoken_for: tuple[int, ...] = ()) -> int:
    for port in range(preferred, min(preferred + 50, 65536)):
        if port in spoken_for:
            continue
        with socket.socket() as probe:
            # Airflow's and MLflow's servers set this too; without it a port in TIME_WAIT would look taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port != preferred:
                    reporter.step(f"port {preferred} is taken: {name} gets {port}")
                return port
    raise PortTaken(f"no free port for {name} between {preferred} and {preferred + 49}")


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _log_path(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"


def _log_tail(home: Path, name: str, lines: int = 30) -> str:
    try:
        return "\n".join(_log_path(home, name).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def _exclusive(home: Path, reporter: Reporter) -> Iterator[None]:
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter.step("waiting for another replayctl that starts or stops the local stack")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
