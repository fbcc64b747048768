"""The stack as the system reports its processes and sockets; idle programs stand in for its parts."""

import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayctl.clients.airflow import AirflowApi
from replayctl.clients.mlflow import MlflowApi
from replayctl.errors import NotReady
from replayctl.experiments.services import open_airflow, open_mlflow
from replayctl.local import environments, housekeeping, parts, processes, record, stack, state
from replayctl.local.environments import Environment
from replayctl.local.parts import API_SERVER, MLFLOW, PARTS
from replayctl.local.processes import MARK_VARIABLE
from replayctl.local.record import Part
from replayctl.settings.declared import Settings
from replayctl.settings.load import load_settings
from tests.reporters import RecordingReporter


@pytest.fixture
def settings(clean_environment: Path) -> Settings:
    values = load_settings(None, environ={}, cwd=clean_environment)
    (values.local.home / "airflow").mkdir(parents=True)
    (values.local.home / "logs").mkdir()
    (values.local.home / "spark").mkdir()
    parts.ensure_password(values.local.home)
    return values


class Listener(http.server.ThreadingHTTPServer):
    """Says yes to everything, and counts what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests = requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.requestline)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_CONNECT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def stranger() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.shutdown()
    server.server_close()


def find_airflow(settings: Settings) -> AirflowApi:
    with open_airflow(settings, {}, RecordingReporter()) as api:
        return api


def find_mlflow(settings: Settings) -> MlflowApi:
    with open_mlflow(settings, {}, RecordingReporter()) as api:
        return api


SERVE = (
    "import http.server, sys; s = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler);"
    "print(s.server_address[1], flush=True); s.serve_forever()"
)


@pytest.fixture
def start(settings: Settings) -> Iterator[object]:
    """Starts a part that does nothing, or listens; all of them are recorded."""
    home = settings.local.home
    children: list[subprocess.Popen[str]] = []
    recorded: list[Part] = []

    def run(name: str, *, port: int | None = None, listens: bool = False) -> subprocess.Popen[str]:
        environ = {**os.environ, MARK_VARIABLE: record.mark(home, record.ensure_identity(home), name)}
        script = SERVE if listens else "print(flush=True); import time; time.sleep(600)"
        child = subprocess.Popen(
            [sys.executable, "-c", script], env=environ, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert child.stdout is not None
        line = child.stdout.readline()
        children.append(child)
        recorded.append(Part(name, processes.leader_of(child.pid), int(line) if listens else port))
        record.write_record(home, tuple(recorded))
        return child

    yield run
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def start_all(start, *, airflow: int | None, mlflow: int | None) -> dict[str, subprocess.Popen[str]]:
    ports = {API_SERVER: airflow, MLFLOW: mlflow}
    return {name: start(name, port=ports.get(name), listens=name in ports and ports[name] is None) for name in PARTS}


def test_a_password_is_not_sent_to_a_program_on_our_port(settings: Settings, stranger: Listener, start) -> None:
    start_all(start, airflow=stranger.port, mlflow=None)
    with pytest.raises(NotReady, match=r"api-server does not listen on port \d+, which another program uses"):
        find_airflow(settings)
    assert stranger.requests == []
    assert find_mlflow(settings).url


def test_an_answer_of_another_program_does_not_make_it_our_mlflow(
    settings: Settings, stranger: Listener, start
) -> None:
    start_all(start, airflow=None, mlflow=stranger.port)
    with pytest.raises(NotReady, match="mlflow does not listen"):
        find_mlflow(settings)
    state = {part.name: part.problem for part in stack.status(settings).parts}
    assert "another program" in str(state[MLFLOW])
    assert stranger.requests == []


@pytest.mark.parametrize("name", PARTS)
def test_each_dead_part_is_named_and_no_command_goes_on_without_it(settings: Settings, start, name: str) -> None:
    children = start_all(start, airflow=None, mlflow=None)
    children[name].send_signal(signal.SIGKILL)
    children[name].wait()
    assert {part.name: part.problem for part in stack.status(settings).parts}[name] == "has ended"
    find = find_mlflow if name == MLFLOW else find_airflow
    with pytest.raises(NotReady, match=f"{name} has ended") as excinfo:
        find(settings)
    assert excinfo.value.hint == "run `replayctl local up`"


def test_results_are_read_while_airflow_hangs(settings: Settings, start) -> None:
    children = start_all(start, airflow=None, mlflow=None)
    children[API_SERVER].send_signal(signal.SIGSTOP)
    find_mlflow(settings)
    assert {part.name: part.problem for part in stack.status(settings).parts}[API_SERVER] == "does not answer"


def test_a_running_stack_has_its_environments_looked_at_again(
    settings: Settings, start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_all(start, airflow=None, mlflow=None)
    monkeypatch.setattr(state, "_problems_of_servers", lambda _: {})
    damaged = {"workload"}
    monkeypatch.setattr(environments, "find_damage", lambda name, *_, **__: "gone" if name in damaged else None)
    ensured: list[str] = []
    monkeypatch.setattr(environments, "ensure", lambda name, *_, **__: ensured.append(name))
    assert stack.up(settings, RecordingReporter()).existed
    assert "workload" in ensured
    # What the servers themselves run from cannot be made again below them.
    damaged.add("airflow")
    monkeypatch.setattr(stack, "_start", lambda *_: (_ for _ in ()).throw(NotReady("started")))
    monkeypatch.setattr(environments, "find_java_home", lambda _: Path())
    with pytest.raises(NotReady, match="started"):
        stack.up(settings, RecordingReporter())
    assert stack.status(settings).stopped


def test_runs_of_an_airflow_that_hangs_are_not_waited_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(stack, "running_parts", lambda _: [API_SERVER])
        monkeypatch.setattr(stack, "airflow_api", lambda _: AirflowApi(url, username="admin", password="x"))
        monkeypatch.setattr("replayctl.clients.airflow._HEALTH_TIMEOUT_S", 0.1)
        assert stack.running_runs(settings) == []
        # The request with the short limit is the only one.
        server.accept()[0].close()
        with pytest.raises(TimeoutError):
            server.accept()


def test_down_ends_what_no_record_names(settings: Settings, start) -> None:
    children = start_all(start, airflow=None, mlflow=None)
    (settings.local.home / "stack.json").write_text("{")
    state = stack.status(settings)
    assert not state.stopped
    assert set(state.orphans) == {child.pid for child in children.values()}
    assert set(stack.down(settings, RecordingReporter())) == set(PARTS)
    assert all(child.wait(10) is not None for child in children.values())
    assert stack.status(settings).stopped


def test_down_ends_what_has_lost_its_folder(settings: Settings, start) -> None:
    children = start_all(start, airflow=None, mlflow=None)
    shutil.rmtree(settings.local.home)
    assert not stack.status(settings).stopped
    assert set(stack.down(settings, RecordingReporter())) == set(PARTS)
    assert all(child.wait(10) is not None for child in children.values())
    assert not settings.local.home.exists()


def test_a_copied_folder_does_not_take_the_originals_processes_for_its_own(settings: Settings, start) -> None:
    children = start_all(start, airflow=None, mlflow=None)
    copy = settings.local.home.with_name("copy")
    shutil.copytree(settings.local.home, copy)
    copied = load_settings(None, environ={"REPLAYCTL_LOCAL_HOME": str(copy)}, cwd=copy)
    assert stack.running_parts(copied) == ()
    with pytest.raises(NotReady):
        find_airflow(copied)
    stack.down(copied, RecordingReporter())
    assert all(child.poll() is None for child in children.values())


def test_no_request_to_this_machine_reaches_a_proxy(
    settings: Settings, stranger: Listener, start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{stranger.port}")
    start_all(start, airflow=None, mlflow=None)
    stack.status(settings)
    with pytest.raises(Exception, match="Airflow at"):
        list(find_airflow(settings).dags())
    with pytest.raises(Exception, match="MLflow at"):
        find_mlflow(settings).experiment_id("x")
    assert stranger.requests == []


@pytest.mark.parametrize("no_proxy", ["", "example.org, 10.0.0.0/8", "*"])
def test_the_parts_reach_each_other_past_every_proxy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    from urllib.request import getproxies, proxy_bypass

    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    environment = parts._clean_environment("mark")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert getproxies()["http"] == "http://proxy.example:3128"
    assert proxy_bypass("127.0.0.1:8080")
    assert proxy_bypass("localhost")
    assert set(filter(None, no_proxy.split(", "))) <= set(environment["NO_PROXY"].split(","))


def test_a_failed_or_stopped_task_is_reported_within_a_second(settings: Settings) -> None:
    """Airflow's supervisor may miss the end of a task that fails until its next heartbeat, by default after five."""
    installed = {name: Environment(name, settings.local.home / name) for name in environments.NAMES}
    variables = parts.airflow_environment(settings, installed, parts.Ports(1, 2), "mark")
    assert variables["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] == "1"


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", None])
def test_an_unreadable_password_is_reported_and_written_again(settings: Settings, damage: bytes | None, start) -> None:
    start_all(start, airflow=None, mlflow=None)
    path = parts.password_file(settings.local.home)
    before = path.read_text()
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(NotReady, match="cannot read Airflow's password") as excinfo:
        find_airflow(settings)
    assert "replayctl local up" in (excinfo.value.hint or "")
    assert parts.ensure_password(settings.local.home)
    assert path.read_text() == before
    assert path.stat().st_mode & 0o077 == 0
    assert not parts.ensure_password(settings.local.home)


def test_both_files_of_the_password_can_be_lost(settings: Settings) -> None:
    parts.password_file(settings.local.home).unlink()
    (settings.local.home / "airflow" / "passwords.json").write_text("[]")
    assert parts.ensure_password(settings.local.home)
    assert parts.read_password(settings.local.home)


def test_old_logs_go_large_ones_are_cut_and_scratch_files_stay_while_something_runs(settings: Settings) -> None:
    home = settings.local.home
    old, new = home / "airflow" / "logs" / "dag" / "old.log", home / "airflow" / "logs" / "new.log"
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_text("x")
    os.utime(old, (0, 0))
    scratch = home / "spark" / "blockmgr"
    scratch.mkdir()
    workload = home / "artifacts" / "alice" / "ml100k" / "split"
    unfinished, whole = workload / ".0123.abcd.9f.tmp", workload / "0123"
    for folder in (unfinished, whole, workload / ".0123.abcd.9f.old"):
        (folder / "test").mkdir(parents=True)
    large = housekeeping.log_path(home, "scheduler")
    with large.open("ab") as log:
        log.write(b"first\n" + b"y" * 30_000_000 + b"\nlast\n")
        housekeeping.tidy(home, 30, idle=False)
        # Whoever has the log open goes on at its end.
        log.write(b"next\n")
    assert large.stat().st_size < 2_000_000
    assert large.read_bytes().endswith(b"last\nnext\n")
    assert (old.exists(), new.exists(), scratch.exists(), unfinished.exists()) == (False, True, True, True)
    housekeeping.tidy(home, 30, idle=True)
    assert not scratch.exists()
    assert list(workload.iterdir()) == [whole]
    assert not old.parent.exists()


def test_a_full_disk_is_reported_as_the_cause(settings: Settings) -> None:
    log = housekeeping.log_path(settings.local.home, "scheduler")
    log.write_text("sqlite3.OperationalError: database or disk is full\n")
    error = housekeeping.failure(settings.local.home, "the local scheduler ended", name="scheduler")
    assert "is full" in str(error)
    assert "df -h" in (error.hint or "")


def test_the_state_folder_is_private_whatever_comes_first(settings: Settings, clean_environment: Path) -> None:
    from replayctl.local.disk import make_private

    settings.local.home.chmod(0o755)
    make_private(settings.local.home, "local.home")
    assert settings.local.home.stat().st_mode & 0o777 == 0o700
