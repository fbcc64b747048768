"""The embedded stack of the local profile: Airflow's parts and an MLflow server, as background processes.

All state is in one folder (`local.home`). Running processes are looked up in the system, not in the record: every
process of the stack carries its mark (`record`, `processes`), so none is lost when a leader is killed.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from replayctl import process
from replayctl.clients.airflow import AirflowApi
from replayctl.clients.airflow_runs import RunInfo
from replayctl.clients.patience import wait_until
from replayctl.console.events import Reporter
from replayctl.console.secret import Secret
from replayctl.errors import (
    Conflict,
    NotReady,
    OperationFailed,
    PortTaken,
    RemoteCommandFailed,
    ReplayctlError,
    TimedOut,
)
from replayctl.local import databases, environments, housekeeping, parts, processes, record, spark_classes, state
from replayctl.local.capacity import LOCAL_POOL, local_slots
from replayctl.local.disk import disk_errors, make_private
from replayctl.local.environments import SPARK, Environment
from replayctl.local.parts import API_SERVER, MLFLOW, PARTS, USERNAME, Ports, Program
from replayctl.local.record import Part
from replayctl.local.state import PartState, Stack, state_in
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders

_START_DEADLINE_S = 180.0
_MIGRATION_DEADLINE_S = 600.0
_POLL_S = 0.5
# The environments that the parts run from.
_SERVERS = ("airflow", "mlflow")
# How often other ports are tried when a program has taken one between our check and our server's start.
_ATTEMPTS = 3
# How long a stack whose parts are all alive may take to answer before it is restarted.
_RECOVERY_DEADLINE_S = 60.0


def status(settings: Settings) -> Stack:
    """The current state, read from the processes and the servers."""
    return state_in(settings.local.home)


def up(settings: Settings, reporter: Reporter, *, spark: bool = False) -> Stack:
    """Starts the stack and returns when all parts answer; a stack that is already running is left alone.

    Creates missing environments, with `spark` also that of the Spark engine. Ports in use are replaced by free ones.
    When interrupted or failed, stops what it has started. Raises NotFound without a suitable Python or Java, TimedOut
    with the last lines of the log.
    """
    home = make_private(settings.local.home, "local.home")
    with _exclusive(home, reporter):
        stack = _recovered(home, reporter)
        if not stack.stopped and not stack.running:
            reporter.step("some parts of the local stack have ended; stopping the others")
            _stop(home)
        elif stack.running and _has_damaged_servers(settings):
            reporter.step("an environment of the local stack is damaged; stopping the stack")
            _stop(home)
            stack = state_in(home)
        with disk_errors("prepare", home):
            _prepare_folders(settings)
            if parts.ensure_password(home) and stack.running:
                reporter.step("restored the missing or damaged password file")
            housekeeping.tidy(home, settings.local.keep_logs_days, idle=not stack.running)
        java_home = environments.find_java_home(settings.local.java_home) if spark else None
        installed = _ensure_environments(settings, reporter, spark=spark)
        if java_home:
            spark_classes.ensure(installed[SPARK], java_home, reporter)
        if stack.running:
            reporter.step(f"the local stack is already running in {home}")
            return replace(stack, existed=True)
        try:
            started = _start(settings, installed, reporter)
            airflow_api(settings).ensure_pool(
                LOCAL_POOL, local_slots(settings), "Steps that fit into this machine at once"
            )
        except BaseException:
            with process.signals_deferred():
                _stop(home)
            raise
    return started


def down(settings: Settings, reporter: Reporter) -> tuple[str, ...]:
    """Stops the stack and everything it has started; returns the parts that were running. State is kept.

    Raises Conflict that names the processes that cannot be ended.
    """
    home = settings.local.home
    # When the folder was removed under a running stack, the lock is gone but the processes are not.
    with _exclusive(home, reporter) if home.is_dir() else contextlib.nullcontext():
        names = running_parts(settings)
        if names:
            reporter.step(f"stopping {', '.join(names)}")
            reporter.status("waiting for the processes to end")
        _stop(home)
    return names


def running_parts(settings: Settings) -> tuple[str, ...]:
    """The names of the parts with running processes."""
    return state.running_parts(settings.local.home)


def running_runs(settings: Settings) -> list[RunInfo]:
    """The runs that `down` would interrupt; none are known if Airflow does not answer."""
    if API_SERVER not in running_parts(settings):
        return []
    try:
        api = airflow_api(settings)
        # Its time limit is short: a stack whose server hangs is the one that has to be stopped.
        api.health()
        return api.runs("~", states=("running",))
    except ReplayctlError:
        return []


def airflow_api(settings: Settings) -> AirflowApi:
    """A client of the local Airflow, signed in as its admin.

    Raises NotReady when a part does not run: the password is only sent to a port on which our own server listens.
    """
    url = state.address_in(settings.local.home, API_SERVER, *PARTS[1:])
    text = parts.read_password(settings.local.home)
    if text is None:
        raise NotReady(
            f"cannot read Airflow's password in {parts.password_file(settings.local.home)}",
            hint="run `replayctl local up` to restore it",
        )
    # Registered as a secret, so that it is never printed.
    return AirflowApi(url, username=USERNAME, password=Secret(text).reveal())


def mlflow_url(settings: Settings) -> str:
    """The address of the local MLflow; raises NotReady when it does not run. Airflow is not needed."""
    return state.address_in(settings.local.home, MLFLOW)


def airflow_url(settings: Settings) -> str:
    """The address of the local Airflow's pages; raises NotReady when it does not run."""
    return state.address_in(settings.local.home, API_SERVER)


def _prepare_folders(settings: Settings) -> None:
    folders = find_folders(settings)
    for folder in (folders.dags, folders.spark_submit_files, folders.data_in_pods, folders.artifacts_in_pods):
        if isinstance(folder, Path):
            folder.mkdir(parents=True, exist_ok=True)
    for name in ("airflow", "mlflow", "logs", "spark"):
        (settings.local.home / name).mkdir(exist_ok=True)


class _PortLostError(Exception):
    """Another program listens on the port of the part `name`."""

    def __init__(self, name: str, port: int) -> None:
        super().__init__(f"port {port} of {name}")
        self.name = name
        self.port = port


def _start(settings: Settings, installed: Mapping[str, Environment], reporter: Reporter) -> Stack:
    home = settings.local.home
    for _ in range(_ATTEMPTS):
        mlflow_port = _free_port(settings.local.mlflow_port, "MLflow", reporter)
        # MLflow has not bound its port yet, so it must be excluded here.
        airflow_port = _free_port(settings.local.airflow_port, "Airflow", reporter, reserved=(mlflow_port,))
        ports = Ports(mlflow_port, airflow_port)
        reporter.step(f"starting MLflow on port {ports.mlflow} and Airflow on port {ports.airflow}")
        try:
            with disk_errors("start the local stack in", home):
                _spawn_all(settings, installed, ports, reporter)
            stack = _wait_until_healthy(home, reporter)
            with disk_errors("start the local stack in", home):
                # MLflow migrates its database by itself when it starts.
                databases.end_migration(home / "mlflow" / "mlflow.db", installed["mlflow"].path.name)
            return stack
        except _PortLostError as lost:
            reporter.step(f"another program has taken port {lost.port} of {lost.name}; restarting on another port")
            _stop(home)
    raise PortTaken(f"cannot start the local stack: other programs took its ports {_ATTEMPTS} times")


def _spawn_all(settings: Settings, installed: Mapping[str, Environment], ports: Ports, reporter: Reporter) -> None:
    home = settings.local.home
    identity = record.ensure_identity(home)
    started: list[Part] = []

    def start(program: Program) -> None:
        # A process between its start and its record would be known by its mark alone.
        with process.signals_deferred():
            log = housekeeping.begin_log(home, program.name)
            pid = process.spawn_detached(program.argv, env=program.environment, cwd=home, log_path=log)
            started.append(Part(program.name, processes.leader_of(pid), program.port))
            record.write_record(home, tuple(started))

    databases.begin_migration(home / "mlflow" / "mlflow.db", installed["mlflow"].path.name)
    start(parts.mlflow_program(settings, installed, ports, record.mark(home, identity, MLFLOW)))
    _migrate(settings, installed, ports, record.mark(home, identity, "db"), reporter)
    for name in PARTS[1:]:
        environment = parts.airflow_environment(settings, installed, ports, record.mark(home, identity, name))
        start(parts.airflow_program(name, installed, environment, ports))


def _migrate(
    settings: Settings,
    installed: Mapping[str, Environment],
    ports: Ports,
    mark: str,
    reporter: Reporter,
) -> None:
    """Creates or migrates Airflow's database, unless this environment has already done so."""
    home = settings.local.home
    database, version = home / "airflow" / "airflow.db", installed["airflow"].path.name
    if databases.is_current(database, version):
        return
    reporter.status("preparing Airflow's database")
    databases.begin_migration(database, version)
    program = parts.migration_program(installed, parts.airflow_environment(settings, installed, ports, mark))
    try:
        process.run(program.argv, env=program.environment, cwd=home, timeout_s=_MIGRATION_DEADLINE_S)
    except RemoteCommandFailed as error:
        message = "cannot prepare Airflow's database"
        raise housekeeping.failure(home, message, output=error.details or "") from error
    databases.end_migration(database, version)


def _ensure_environments(settings: Settings, reporter: Reporter, *, spark: bool) -> dict[str, Environment]:
    return {
        name: environments.ensure(name, settings.cache_dir, settings.local.python, reporter)
        for name in environments.needed(spark=spark)
    }


def _has_damaged_servers(settings: Settings) -> bool:
    """Whether an environment of the servers is damaged; those of tasks can be replaced while the stack runs."""
    return any(environments.find_damage(name, settings.cache_dir) is not None for name in _SERVERS)


def _recovered(home: Path, reporter: Reporter) -> Stack:
    """The current stack; if all parts are alive but some do not answer, waits for them, since tasks may be running."""
    stack = state_in(home)
    if stack.complete and not stack.running:
        with contextlib.suppress(TimedOut, OperationFailed, _PortLostError):
            return _wait_until_healthy(home, reporter, _RECOVERY_DEADLINE_S)
    return stack


def _wait_until_healthy(home: Path, reporter: Reporter, timeout_s: float = _START_DEADLINE_S) -> Stack:
    def look() -> Stack | None:
        stack = state_in(home)
        if stack.running:
            return stack
        for part in stack.parts:
            if part.port and part.problem and _is_strangers(home, part):
                raise _PortLostError(part.name, part.port)
        for part in stack.parts:
            if part.problem == state.ENDED:
                raise housekeeping.failure(home, f"the local {part.name} ended while starting", name=part.name)
        reporter.status(f"waiting for {', '.join(part.name for part in stack.parts if part.problem)}")
        return None

    def late(_waited_s: float, _trouble: ReplayctlError | None) -> ReplayctlError:
        slowest = next(part.name for part in state_in(home).parts if part.problem)
        return TimedOut(
            f"the local {slowest} did not answer within {timeout_s:.0f} s",
            details=housekeeping.log_tail(home, slowest),
            hint=f"read the whole log: less {shlex.quote(str(housekeeping.log_path(home, slowest)))}",
        )

    return wait_until(look, late, timeout_s=timeout_s, poll_s=_POLL_S, reporter=reporter)


def _is_strangers(home: Path, part: PartState) -> bool:
    """Whether another program listens on the part's port; checked again, since ours may have started by now."""
    leader = next((entry.leader for entry in record.read_record(home) if entry.name == part.name), None)
    return (
        part.port is not None
        and processes.is_taken(part.port)
        and (leader is None or not processes.is_listened_by(leader, part.port))
    )


def _stop(home: Path) -> None:
    """Ends everything that carries the stack's mark and removes the record; raises Conflict when a process remains."""
    survivors = processes.end(lambda: state.processes_in(home))
    if survivors:
        raise Conflict(
            f"cannot end processes of the local stack: {processes.describe(survivors)}",
            hint=f"inspect them: ps -o pid,stat,args -p {','.join(str(member.pid) for member in survivors)}",
        )
    if home.is_dir():
        with disk_errors("remove the record in", home):
            record.remove_record(home)


def _free_port(preferred: int, name: str, reporter: Reporter, reserved: tuple[int, ...] = ()) -> int:
    for port in range(preferred, min(preferred + 50, 65536)):
        if port in reserved:
            continue
        with socket.socket() as probe:
            # Airflow's and MLflow's servers set this, too; without it a port in TIME_WAIT would appear to be in use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port != preferred:
                    reporter.step(f"port {preferred} is already in use; {name} uses port {port}")
                return port
    raise PortTaken(f"ports {preferred} to {preferred + 49} for {name} are already in use")


@contextlib.contextmanager
def _exclusive(home: Path, reporter: Reporter) -> Iterator[None]:
    from replayctl.local.locking import exclusive

    with exclusive(home / "lock", "another replayctl is starting or stopping the local stack", reporter):
        yield
