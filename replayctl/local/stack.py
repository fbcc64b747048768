"""The embedded stack of the local profile: Airflow's parts and an MLflow server, as background processes.

All state lies in one folder (`local.home`). What runs is asked of the system, not of the record: every process of the
stack carries its mark (`record`, `processes`), so that nothing is lost when a leader is killed.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from replayctl import process
from replayctl.clients.airflow import AirflowApi
from replayctl.console.events import Reporter
from replayctl.console.secret import Secret
from replayctl.errors import Conflict, NotReady, OperationFailed, PortTaken, RemoteCommandFailed, TimedOut
from replayctl.local import databases, environments, housekeeping, parts, processes, record, state
from replayctl.local.capacity import LOCAL_POOL, local_slots
from replayctl.local.disk import disk_errors, make_private
from replayctl.local.environments import Environment
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
# How often other ports are tried when a program has taken one between our look and our server's start.
_ATTEMPTS = 3
# How long a stack whose parts all live may take to answer before it is started again.
_RECOVERY_DEADLINE_S = 60.0


def status(settings: Settings) -> Stack:
    """What runs now, asked of the processes and the servers themselves."""
    return state_in(settings.local.home)


def up(settings: Settings, reporter: Reporter, *, spark: bool = False) -> Stack:
    """Starts what does not run, and returns when all of it answers; a second call finds the first one's stack.

    Makes the environments when needed, with `spark` that of the Spark engine, too. Ports that are taken are replaced by
    free ones. Interrupted or failed, it stops what it has started. Raises NotFound without a fitting Python or Java,
    TimedOut with the log's last lines.
    """
    home = make_private(settings.local.home, "local.home")
    with _exclusive(home, reporter):
        stack = _recovered(home, reporter)
        if not stack.stopped and not stack.running:
            reporter.step("the local stack runs in part: stopping the rest of it first")
            _stop(home)
        elif stack.running and _has_damaged_servers(settings):
            reporter.step("the environment of the local stack is damaged: stopping it first")
            _stop(home)
            stack = state_in(home)
        with disk_errors("prepare", home):
            _prepare_folders(settings)
            if parts.ensure_password(home) and stack.running:
                reporter.step("the password's file was missing or broken: wrote it again")
            housekeeping.tidy(home, settings.local.keep_logs_days, idle=not stack.running)
        if spark:
            environments.find_java_home(settings.local.java_home)
        if stack.running:
            _ensure_environments(settings, reporter, spark=spark)
            reporter.step(f"the local stack is running already, in {home}")
            return replace(stack, found=True)
        made = _ensure_environments(settings, reporter, spark=spark)
        try:
            started = _start(settings, made, reporter)
            airflow_api(settings).ensure_pool(
                LOCAL_POOL, local_slots(settings), "Steps that fit into this machine at once"
            )
        except BaseException:
            with process.signals_deferred():
                _stop(home)
            raise
    return started


def down(settings: Settings, reporter: Reporter) -> tuple[str, ...]:
    """Stops the stack and everything it has started; returns the parts of which something ran. State stays.

    Raises Conflict that names the processes which cannot be ended.
    """
    home = settings.local.home
    # A folder that was removed under a running stack takes the lock with it, but not the processes.
    with _exclusive(home, reporter) if home.is_dir() else contextlib.nullcontext():
        names = running_parts(settings)
        if names:
            reporter.step(f"stopping {', '.join(names)}")
        _stop(home)
    return names


def running_parts(settings: Settings) -> tuple[str, ...]:
    """The names of the parts of which any process runs."""
    return state.running_parts(settings.local.home)


def airflow_api(settings: Settings) -> AirflowApi:
    """A client of the local Airflow as its admin.

    Raises NotReady when it does not run, or only in part: no password goes to a port behind which our own server is
    not listening.
    """
    url = state.address_in(settings.local.home, API_SERVER, *PARTS[1:])
    text = parts.read_password(settings.local.home)
    if text is None:
        raise NotReady(
            f"cannot read Airflow's password in {parts.password_file(settings.local.home)}",
            hint="write it again with: replayctl local up",
        )
    # Made a secret, so that nothing prints it from here on.
    return AirflowApi(url, username=USERNAME, password=Secret(text).reveal())


def mlflow_url(settings: Settings) -> str:
    """The address of the local MLflow; NotReady when it does not run. Airflow is not asked."""
    return state.address_in(settings.local.home, MLFLOW)


def airflow_url(settings: Settings) -> str:
    """The address of the local Airflow's pages; NotReady when they are not served."""
    return state.address_in(settings.local.home, API_SERVER)


def _prepare_folders(settings: Settings) -> None:
    folders = find_folders(settings)
    for folder in (folders.dags, folders.spark_submit_files, folders.data_in_pods, folders.artifacts_in_pods):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("airflow", "mlflow", "logs", "spark"):
        (settings.local.home / name).mkdir(exist_ok=True)


class _PortLostError(Exception):
    """Another program listens where ours should; `name` is the part whose port it is."""

    def __init__(self, name: str, port: int) -> None:
        super().__init__(f"port {port} of {name}")
        self.name = name
        self.port = port


def _start(settings: Settings, made: Mapping[str, Environment], reporter: Reporter) -> Stack:
    home = settings.local.home
    for _ in range(_ATTEMPTS):
        mlflow_port = _free_port(settings.local.mlflow_port, "MLflow", reporter)
        # MLflow has not bound its port yet, so nothing but this list knows that it is spoken for.
        airflow_port = _free_port(settings.local.airflow_port, "Airflow", reporter, spoken_for=(mlflow_port,))
        ports = Ports(mlflow_port, airflow_port)
        reporter.step(f"starting MLflow on port {ports.mlflow} and Airflow on port {ports.airflow}")
        try:
            with disk_errors("start the local stack in", home):
                _spawn_all(settings, made, ports, reporter)
            stack = _wait_until_healthy(home, reporter)
            with disk_errors("start the local stack in", home):
                # MLflow migrates its database by itself when it starts.
                databases.end_migration(home / "mlflow" / "mlflow.db", made["mlflow"].path.name)
            return stack
        except _PortLostError as lost:
            reporter.step(f"another program has taken port {lost.port} before {lost.name} did: starting again")
            _stop(home)
    raise PortTaken(f"another program took the ports of the local stack {_ATTEMPTS} times")


def _spawn_all(settings: Settings, made: Mapping[str, Environment], ports: Ports, reporter: Reporter) -> None:
    home = settings.local.home
    identity = record.ensure_identity(home)
    started: list[Part] = []

    def start(program: Program) -> None:
        # Between its start and its record a process would be known by its mark alone.
        with process.signals_deferred():
            log = housekeeping.begin_log(home, program.name)
            pid = process.spawn_detached(program.argv, env=program.environment, cwd=home, log_path=log)
            started.append(Part(program.name, processes.leader_of(pid), program.port))
            record.write_record(home, tuple(started))

    databases.begin_migration(home / "mlflow" / "mlflow.db", made["mlflow"].path.name)
    start(parts.mlflow_program(settings, made, ports, record.mark(home, identity, MLFLOW)))
    _migrate(settings, made, ports, record.mark(home, identity, "db"), reporter)
    for name in PARTS[1:]:
        environment = parts.airflow_environment(settings, made, ports, record.mark(home, identity, name))
        start(parts.airflow_program(name, made, environment, ports))


def _migrate(
    settings: Settings,
    made: Mapping[str, Environment],
    ports: Ports,
    mark: str,
    reporter: Reporter,
) -> None:
    """Makes Airflow's database, unless it was made by this very environment."""
    home = settings.local.home
    database, version = home / "airflow" / "airflow.db", made["airflow"].path.name
    if databases.is_current(database, version):
        return
    reporter.status("preparing Airflow's database")
    databases.begin_migration(database, version)
    program = parts.migration_program(made, parts.airflow_environment(settings, made, ports, mark))
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
    """Whether an environment that the servers run from must be made again; those of tasks can be while they run."""
    return any(environments.find_damage(name, settings.cache_dir) is not None for name in _SERVERS)


def _recovered(home: Path, reporter: Reporter) -> Stack:
    """The stack as it is; one whose parts all live, but do not all answer, is given some time: tasks may run in it."""
    stack = state_in(home)
    if stack.complete and not stack.running:
        with contextlib.suppress(TimedOut, OperationFailed, _PortLostError):
            return _wait_until_healthy(home, reporter, _RECOVERY_DEADLINE_S)
    return stack


def _wait_until_healthy(home: Path, reporter: Reporter, timeout_s: float = _START_DEADLINE_S) -> Stack:
    deadline = time.monotonic() + timeout_s
    while True:
        stack = state_in(home)
        if stack.running:
            return stack
        for part in stack.parts:
            if part.port and part.problem and _is_strangers(home, part):
                raise _PortLostError(part.name, part.port)
        for part in stack.parts:
            if part.problem == state.ENDED:
                raise housekeeping.failure(home, f"the local {part.name} ended while starting", name=part.name)
        waiting = [part.name for part in stack.parts if part.problem]
        if time.monotonic() > deadline:
            raise TimedOut(
                f"the local {waiting[0]} did not answer within {timeout_s:.0f} s",
                details=housekeeping.log_tail(home, waiting[0]),
                hint=f"the whole log: {housekeeping.log_path(home, waiting[0])}",
            )
        reporter.status(f"waiting for {', '.join(waiting)}")
        time.sleep(_POLL_S)


def _is_strangers(home: Path, part: PartState) -> bool:
    """Whether a program that is not ours listens on the part's port; asked again: ours may have begun by now."""
    leader = next((entry.leader for entry in record.read_record(home) if entry.name == part.name), None)
    return (
        part.port is not None
        and processes.is_taken(part.port)
        and (leader is None or not processes.is_listened_by(leader, part.port))
    )


def _stop(home: Path) -> None:
    """Ends everything that carries the stack's mark, and forgets the record; Conflict when something stays."""
    left = processes.end(lambda: state.processes_in(home))
    if left:
        raise Conflict(
            f"cannot end processes of the local stack: {processes.describe(left)}",
            hint=f"look at them: ps -o pid,stat,args -p {','.join(str(member.pid) for member in left)}",
        )
    if home.is_dir():
        with disk_errors("forget the stack in", home):
            record.remove_record(home)


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


@contextlib.contextmanager
def _exclusive(home: Path, reporter: Reporter) -> Iterator[None]:
    from replayctl.local.locking import exclusive

    with exclusive(home / "lock", "the local stack is being started or stopped by another replayctl", reporter):
        yield
