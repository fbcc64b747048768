"""The source of logs: servers that do not answer are asked once, forgotten applications are found by their logs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from replayctl.clients.resource_manager import Application, HttpService, forgotten
from replayctl.clients.waiting import waiting_to_start
from replayctl.errors import NotFound, NotReady, RemoteCommandFailed, ReplayctlError, Unreachable
from replayctl.logs.sources import Yarn
from replayctl.logs.stream import LogFile, Piece
from replayctl.settings.load import load_settings
from tests.reporters import RecordingReporter

ID = "application_1_0001"
DRIVER = "container_e02_1_0001_02_000001"
GATHERED = [
    {
        "containerId": container,
        "nodeId": "node_1",
        "containerLogInfo": [{"fileName": "stderr", "fileSize": "10"}, {"fileName": "stdout", "fileSize": "10"}],
    }
    for container in ("container_e02_1_0001_01_000001", DRIVER, "container_e02_1_0001_02_000002")
]
LISTING = b"".join(
    b"Container: %s on node_1\n   stderr\t10\tWed Nov 25 20:25:44 +0000 2026\t  AGGREGATED\n"
    % str(container["containerId"]).encode()
    for container in GATHERED
)


class LogServer(HttpService):
    """Answers with what is gathered, or with trouble; its questions are counted."""

    def __init__(self, trouble: ReplayctlError | None = None) -> None:
        super().__init__("the log server", "http://127.0.0.1:1")
        self.trouble = trouble
        self.requests = 0

    def json(self, path: str, what: str, parameters: Any = None) -> dict[str, Any]:
        self.requests += 1
        if self.trouble:
            raise self.trouble
        return {"containerLogsInfo": GATHERED}


@pytest.fixture
def yarn(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Yarn:
    monkeypatch.setattr("time.sleep", lambda _: None)
    settings = load_settings(None, environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    cluster: Any = object()
    client = Yarn(cluster, settings, RecordingReporter())

    def application(name: str) -> Application:
        raise NotFound(f"the ResourceManager cannot find {name}", details="not found")

    monkeypatch.setattr(Yarn, "manager", type("Manager", (), {"application": staticmethod(application)}))
    return client


@pytest.fixture
def programs(yarn: Yarn, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    starts: list[list[str]] = []

    def execute(argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        starts.append(argv)
        on_stdout(LISTING)

    monkeypatch.setattr(yarn._program, "_execute", execute)
    return starts


def test_a_forgotten_application_is_found_by_the_log_server(yarn: Yarn, programs: list[list[str]]) -> None:
    yarn._log_server = LogServer()
    words = b"INFO ApplicationMaster: Final app status: SUCCEEDED, exitCode: 0\n"

    def pieces(service: HttpService, file: LogFile, tail: int) -> list[Piece]:
        assert (file.container, file.name) == (DRIVER, "stderr")
        return [Piece(DRIVER, "stderr", len(words), words, first=True, last=True)]

    yarn._pieces_over_http = pieces  # type: ignore[method-assign,assignment]
    app = yarn.application(ID)
    assert (app.am_container, app.outcome, app.has_failed, app.is_final) == (DRIVER, "SUCCEEDED", False, True)
    assert [file.container for file in yarn.files(app, wait_s=0)][:2] == [DRIVER, DRIVER]
    assert yarn._log_server.requests == 1
    assert programs == []


def test_then_by_the_program_and_a_silent_server_is_asked_once(yarn: Yarn, programs: list[list[str]]) -> None:
    server = yarn._log_server = LogServer(Unreachable("the log server did not answer within 15 s"))
    app = yarn.application(ID)
    assert (app.am_container, app.outcome, app.has_failed) == (DRIVER, "FORGOTTEN", True)
    assert len(yarn.files(app, wait_s=0)) == 3
    assert server.requests == 1
    assert len(programs) == 1


def test_a_server_that_says_no_is_believed_only_after_the_program(yarn: Yarn, programs: list[list[str]]) -> None:
    yarn._log_server = LogServer(NotFound("Can not find remote application directory"))
    assert yarn.application(ID).am_container == DRIVER
    assert len(programs) == 1


def test_one_without_logs_is_refused_in_the_words_of_the_resource_manager(
    yarn: Yarn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        raise RemoteCommandFailed("status 255")

    monkeypatch.setattr(yarn._program, "_execute", execute)
    yarn._log_server = LogServer(NotFound("none"))
    with pytest.raises(NotFound, match="cannot find application_1_0001, and YARN has no logs of it") as error:
        yarn.application(ID)
    assert error.value.details == "not found"


def test_one_that_ended_before_it_began_is_not_waited_for(yarn: Yarn, programs: list[list[str]]) -> None:
    yarn._log_server = LogServer(NotFound("none"))

    def nothing(argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        raise RemoteCommandFailed("status 255")

    yarn._program._execute = nothing
    app = replace(forgotten(ID), state="KILLED", final_status="KILLED", aggregation="NOT_START", diagnostics="by bob")
    with pytest.raises(NotFound, match="before a container was allocated") as error:
        yarn.files(app, wait_s=60)
    assert error.value.details == "by bob"


def test_logs_that_yarn_could_not_gather_are_not_waited_for(yarn: Yarn, programs: list[list[str]]) -> None:
    yarn._log_server = LogServer(NotFound("none"))
    app = replace(forgotten(ID), state="FINISHED", final_status="FAILED", aggregation="TIME_OUT", am_container=DRIVER)
    # What some nodes have gathered all the same.
    assert len(yarn.files(app, wait_s=60)) == 3


def test_one_that_waits_says_at_once_for_what(yarn: Yarn, programs: list[list[str]]) -> None:
    waits = waiting_to_start("Queue's AM resource limit exceeded.", "root.default", [])
    app = replace(forgotten(ID), state="ACCEPTED", final_status="UNDEFINED", waits_for=waits)
    with pytest.raises(NotReady, match="has not started; it is waiting: Queue's AM resource limit exceeded"):
        yarn.files(app, wait_s=60)
    assert programs == []
