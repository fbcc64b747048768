"""Following an application: logs that do not exist yet or no longer are awaited, and no line is shown twice."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from replayctl.clients.resource_manager import Application
from replayctl.errors import NotFound, OperationFailed, RemoteCommandFailed, TimedOut, Unreachable
from replayctl.logs import follow as following
from replayctl.logs import view
from replayctl.logs.stream import LogFile, Piece
from tests.reporters import RecordingReporter

CONTAINER = "container_1700000000000_0042_01_000001"
APP = Application(
    id="application_1700000000000_0042",
    name="job",
    user="alice",
    queue="default",
    state="ACCEPTED",
    final_status="UNDEFINED",
    kind="SPARK",
    tags=(),
    started=datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC),
    finished=None,
    progress=0,
    diagnostics="",
    am_container=CONTAINER,
    am_address=None,
    aggregation="",
    memory_mb=0,
    vcores=0,
)
WANTED = view.LogSelection(None, executors=False, every=False, names=("stdout",), tail=None, pattern=None)


@dataclass
class Cluster:
    """A YARN with one log: at each look a state, the log so far or an error, and whether its bytes can be had."""

    looks: list[tuple[str, bytes | Exception, Exception | None]]
    now: int = -1
    output: list[bytes] = field(default_factory=list)

    @property
    def manager(self) -> "Cluster":
        return self

    def application(self, name: str) -> Application:
        self.now += 1
        if self.looks[self.now][0] == "AWAY":
            raise Unreachable("the ResourceManager does not answer")
        if self.looks[self.now][0] == "FORGOTTEN":
            raise NotFound(f"the ResourceManager cannot find {name}")
        return replace(APP, state=self.looks[self.now][0])

    def files(self, app: Application, *, wait_s: float, driver_only: bool) -> list[LogFile]:
        assert driver_only
        text = self.looks[self.now][1]
        if isinstance(text, Exception):
            raise text
        return [LogFile(CONTAINER, "node", "stdout", len(text), not app.is_final)]

    def expect(self, app: Application, files: list[LogFile], *, tail: int | None) -> None:
        """Nothing: all of it is at hand."""

    def pieces(self, app: Application, file: LogFile, *, tail: int | None = None) -> Iterator[Piece]:
        _, text, trouble = self.looks[self.now]
        if trouble:
            raise trouble
        assert isinstance(text, bytes)
        yield Piece(CONTAINER, "stdout", len(text), text[-(tail or len(text)) :], first=True, last=True)


def follow(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, selection: view.LogSelection = WANTED) -> bytes:
    monkeypatch.setattr("time.sleep", lambda _: None)
    following.follow(
        cluster,  # type: ignore[arg-type] # as far as it is asked
        APP,
        selection,
        lambda data, raw: cluster.output.append(data),
        RecordingReporter(),
        raw=False,
        wait_s=0,
    )
    return b"".join(cluster.output)


def test_an_application_that_waits_for_its_turn_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(
        [
            ("ACCEPTED", TimedOut("nothing yet"), None),
            ("RUNNING", NotFound("no container yet"), None),
            ("RUNNING", b"one\n", None),
            ("AWAY", b"", None),
            ("RUNNING", Unreachable("a node does not answer"), None),
            ("RUNNING", b"one\ntwo\n", RemoteCommandFailed("the container has just gone")),
            ("RUNNING", b"one\ntwo\n", OperationFailed("cut off")),
            ("FINISHED", b"one\ntwo\nthree\n", None),
        ]
    )
    assert follow(cluster, monkeypatch) == b"one\ntwo\nthree\n"


def test_one_that_the_resource_manager_forgets_meanwhile_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster([("RUNNING", b"one\n", None), ("AWAY", b"", None), ("FORGOTTEN", b"one\ntwo\nkilled\n", None)])
    assert follow(cluster, monkeypatch) == b"one\ntwo\nkilled\n"


def test_at_the_end_a_log_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster([("RUNNING", b"one\n", None), ("FINISHED", b"one\ntwo\n", OperationFailed("cut off"))])
    with pytest.raises(OperationFailed, match="cut off"):
        follow(cluster, monkeypatch)


def test_following_begins_with_the_last_lines_and_shows_wanted_ones_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[str, bytes | Exception, Exception | None]] = [
        ("RUNNING", b"one\ntwo\nthree\n", None),
        ("RUNNING", b"one\ntwo\nthree\nfo", None),
        ("RUNNING", b"one\ntwo\nthree\nfour\nfive\n", None),
        ("FINISHED", b"one\ntwo\nthree\nfour\nfive\nfor good", None),
    ]
    last = replace(WANTED, tail=1)
    assert follow(Cluster(looks), monkeypatch, last) == b"three\nfour\nfive\nfor good"
    filtered = replace(WANTED, pattern=view.pattern("^(two|fo)"))
    assert follow(Cluster(looks), monkeypatch, filtered) == b"two\nfour\nfor good"
    assert follow(Cluster(looks), monkeypatch, replace(filtered, tail=1)) == b"four\nfor good"


def test_a_log_that_grows_while_it_is_read_is_shown_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    class Growing(Cluster):
        def pieces(self, app: Application, file: LogFile, *, tail: int | None = None) -> Iterator[Piece]:
            _, text, _ = self.looks[self.now]
            assert isinstance(text, bytes)
            if not app.is_final:
                # More than was listed, each time it is asked for.
                text += b"x" * 200_000 * (len(offsets) + 1)
                offsets.append(tail)
            data = text[-(tail or len(text)) :]
            for start in range(0, len(data), 70_000):
                yield Piece(CONTAINER, "stdout", len(text), data[start : start + 70_000], first=not start, last=False)

    offsets: list[int | None] = []
    cluster = Growing([("RUNNING", b"y" * 1000, None), ("FINISHED", b"y" * 1000 + b"x" * 900_000 + b"z", None)])
    assert follow(cluster, monkeypatch) == b"y" * 1000 + b"x" * 900_000 + b"z"
    assert len(offsets) > 1


def test_a_log_that_was_replaced_is_shown_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[str, bytes | Exception, Exception | None]] = [
        ("RUNNING", b"1\n2\n3\n4\n", None),
        ("RUNNING", b"5\n", None),
        ("FINISHED", b"5\n6\n7\n8\n9\n", None),
    ]
    assert follow(Cluster(looks), monkeypatch) == b"".join(b"%d\n" % number for number in range(1, 10))


def test_the_last_lines_are_those_of_the_log_as_it_is_when_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Growing(Cluster):
        def files(self, app: Application, *, wait_s: float, driver_only: bool) -> list[LogFile]:
            (file,) = super().files(app, wait_s=wait_s, driver_only=driver_only)
            # Listed when it was shorter.
            return [replace(file, size=file.size - 10)] if file.running else [file]

    text = b"".join(b"%d\n" % number for number in range(10, 30))
    cluster = Growing([("RUNNING", text, None), ("FINISHED", text + b"end\n", None)])
    assert follow(cluster, monkeypatch, replace(WANTED, tail=2)) == b"28\n29\nend\n"


def test_a_line_that_does_not_fit_into_memory_is_searched_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"x" * 700_000 + b"wanted" + b"y" * 1_500_000
    cluster = Cluster([("FINISHED", text, None)])
    assert b"wanted" in follow(cluster, monkeypatch, replace(WANTED, pattern=view.pattern("wanted")))


def test_progress_bars_are_one_line_and_are_searched_as_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = b"".join(b"\rfit: %3d%%" % percent for percent in range(101))
    text = b"first\n" + bar + b"\nlast\n"

    def following(selection: view.LogSelection) -> bytes:
        return follow(Cluster([("RUNNING", text, None), ("FINISHED", text, None)]), monkeypatch, selection)

    assert following(replace(WANTED, tail=2)) == bar + b"\nlast\n"
    assert following(replace(WANTED, tail=1)) == b"last\n"
    assert following(replace(WANTED, tail=0)) == b""
    assert following(replace(WANTED, pattern=view.pattern("^fit: 100"))) == bar + b"\n"
    assert following(replace(WANTED, pattern=view.pattern(" 57%"))) == b""


def test_saved_logs_are_counted_while_they_are_read(tmp_path: Path) -> None:
    text = b"one\ntwo\nthree\n"
    cluster: Any = Cluster([("FINISHED", text, None)], now=0)
    files = cluster.files(replace(APP, state="FINISHED"), wait_s=0, driver_only=True)
    reporter = RecordingReporter()
    selection = replace(WANTED, pattern=view.pattern("two"))
    (saved,) = view.save(cluster, APP, files, f"{tmp_path}/", selection, reporter)
    assert saved == (tmp_path / APP.id / f"{CONTAINER}.stdout", 4)
    assert saved[0].read_bytes() == b"two\n"
    assert reporter.messages("progress") == [f"saving 1 log file: {len(text)} of {len(text)} bytes"]
