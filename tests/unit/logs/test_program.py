"""Logs through YARN's program: started once for all files of a command, in any order of the files."""

import datetime
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.clients.resource_manager import forgotten
from replayctl.errors import NotFound, RemoteCommandFailed
from replayctl.logs.program import LogProgram
from replayctl.logs.stream import LogFile

APP = replace(
    forgotten("application_1_0001"), state="FINISHED", user="alice", started=datetime.datetime.now(tz=datetime.UTC)
)


def container(number: int) -> str:
    return f"container_1_0001_01_{number:06}"


class Pod:
    """`yarn logs` over some texts, in the order in which YARN has them; its starts are counted."""

    def __init__(self, texts: dict[tuple[int, str], bytes]) -> None:
        self.texts = texts
        self.starts: list[list[str]] = []

    def execute(self, argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        self.starts.append(argv)
        assert argv[:4] == ["yarn", "logs", "-applicationId", APP.id]
        option = dict(zip(argv[2::2], argv[3::2], strict=False))
        if option["-applicationId"] != APP.id:
            raise RemoteCommandFailed("status 255", details="Can not find the appOwner")
        for (number, name), text in self.texts.items():
            if option.get("-containerId", container(number)) != container(number):
                continue
            if name not in option["-log_files"].split(","):
                continue
            part = text[int(option["-size"]) :] if "-size" in option else text
            header = f"Container: {container(number)} on node_1\nLogAggregationType: AGGREGATED\n{'=' * 30}\n"
            fields = f"LogType:{name}\nLogLastModifiedTime:Tue Nov 24\nLogLength:{len(text)}\nLogContents:\n"
            end = f"\nEnd of LogType:{name}\n{'*' * 30}\n\n"
            on_stdout((header + fields).encode() + part + end.encode())

    def files(self) -> dict[tuple[int, str], LogFile]:
        return {
            (number, name): LogFile(container(number), "node", name, len(text), running=False)
            for (number, name), text in self.texts.items()
        }


TEXTS = {(number, name): f"{number} {name}\n".encode() * 5 for number in (2, 1, 3) for name in ("stderr", "stdout")}


def read(program: LogProgram, file: LogFile, tail: int | None = None) -> bytes:
    pieces = list(program.pieces(APP, file, tail))
    assert pieces[0].first
    assert pieces[-1].last
    return b"".join(piece.data for piece in pieces)


@given(
    st.permutations(sorted(TEXTS)),
    st.sets(st.sampled_from(sorted(TEXTS))),
    st.one_of(st.none(), st.integers(1, 100)),
)
def test_files_come_in_any_order_and_some_again_by_one_start(
    order: list[tuple[int, str]], again: set[tuple[int, str]], tail: int | None
) -> None:
    pod = Pod(TEXTS)
    files = pod.files()
    with LogProgram(pod.execute) as program:
        program.expect(APP, [files[key] for key in order], [files[key] for key in again], tail)
        for key in order:
            assert read(program, files[key], tail) == TEXTS[key][-(tail or 1000) :]
        for key in again:
            assert read(program, files[key], min(tail or 7, 7)) == TEXTS[key][-min(tail or 7, 7) :]
        assert len(pod.starts) == 1
        # What was not announced comes all the same, by a start of its own.
        first = next(key for key in order)
        if first not in again:
            assert read(program, files[first]) == TEXTS[first]
            assert len(pod.starts) <= 2


def test_a_larger_part_than_announced_is_had_by_a_start_of_its_own() -> None:
    pod = Pod(TEXTS)
    files = pod.files()
    with LogProgram(pod.execute) as program:
        program.expect(APP, [files[1, "stderr"], files[1, "stdout"]], [], 5)
        assert read(program, files[1, "stdout"], 5) == TEXTS[1, "stdout"][-5:]
        assert read(program, files[1, "stdout"], 9) == TEXTS[1, "stdout"][-9:]
        assert read(program, files[1, "stderr"]) == TEXTS[1, "stderr"]
    assert len(pod.starts) == 3
    assert pod.starts[0][-2:] == ["-size", "-5"]


def test_one_container_is_asked_for_alone() -> None:
    pod = Pod(TEXTS)
    files = pod.files()
    with LogProgram(pod.execute) as program:
        program.expect(APP, [files[2, "stderr"], files[2, "stdout"]], [], None)
        assert read(program, files[2, "stderr"]) == TEXTS[2, "stderr"]
    (argv,) = pod.starts
    assert argv[4:] == ["-appOwner", "alice", "-containerId", container(2), "-log_files", "stderr,stdout"]


def test_a_file_that_is_not_there_is_an_error_and_an_empty_one_costs_nothing() -> None:
    pod = Pod({(1, "stdout"): b"x"})
    with LogProgram(pod.execute) as program:
        missing = LogFile(container(1), "node", "stderr", 5, running=False)
        program.expect(APP, [missing, pod.files()[1, "stdout"]], [], None)
        with pytest.raises(NotFound, match="cannot find log file stderr"):
            read(program, missing)
        assert read(program, pod.files()[1, "stdout"]) == b"x"
        empty = replace(missing, size=0)
        assert read(program, empty) == b""
    assert len(pod.starts) == 1


def test_the_owner_of_a_forgotten_application_is_left_to_the_program() -> None:
    argvs: list[list[str]] = []

    def execute(argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        argvs.append(argv)
        on_stdout(
            f"Container: {container(1)} on n_1\n====\n  LogFile  LogLength\n====\n"
            f"   stderr\t  19923\tWed Nov 25 20:25:44 +0000 2026\t  AGGREGATED\n".encode()
        )

    with LogProgram(execute) as program:
        assert program.files(forgotten(APP.id)) == [LogFile(container(1), "n_1", "stderr", 19923, running=False)]
    assert argvs == [["yarn", "logs", "-applicationId", APP.id, "-show_container_log_info"]]


def test_without_logs_the_programs_message_is_shown() -> None:
    def execute(argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        raise RemoteCommandFailed("status 255", details="Can not find the appOwner")

    with LogProgram(execute) as program, pytest.raises(NotFound) as error:
        program.files(APP)
    assert error.value.details == "Can not find the appOwner"


def test_any_error_of_the_program_ends_its_logs_with_it() -> None:
    def execute(argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        on_stdout(b"Container: ")
        raise ValueError("not foreseen")

    file = LogFile(container(1), "node", "stdout", 5, running=False)
    with LogProgram(execute) as program, pytest.raises(ValueError, match="not foreseen"):
        list(program.pieces(APP, file, None))
