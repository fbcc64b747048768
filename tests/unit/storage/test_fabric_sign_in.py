"""Prompts of a server (keyboard-interactive): shown in order, in the calling thread, if somebody can answer."""

import threading
from collections.abc import Callable, Sequence

import paramiko
import pytest

from replayctl.errors import AuthFailed
from replayctl.storage.fabric_sign_in import Memory, SignIn
from replayctl.storage.ssh_config import HostOptions

OPTIONS = HostOptions(
    "cluster", "alice", 22, {"hostname": "cluster", "identityfile": ["none"], "identityagent": "none"}
)


class Server:
    """A transport to a server that asks, and accepts these answers."""

    def __init__(self, *expected: str, methods: Sequence[str] = ("keyboard-interactive",)) -> None:
        self.expected = list(expected)
        self.methods = list(methods)
        self.attempts = 0
        self.auth_timeout = 0.0

    def is_active(self) -> bool:
        return True

    def auth_none(self, _user: str) -> list[str]:
        raise paramiko.BadAuthenticationType("", self.methods)

    def auth_interactive(self, _user: str, handler: Callable[..., list[str]]) -> list[str]:
        self.attempts += 1
        prompts = [("Password: ", False), ("Code\x1b[2J: ", True)][: len(self.expected)]
        if handler("", "", prompts) != self.expected:
            raise paramiko.AuthenticationException("no")
        return []


class Person:
    def __init__(self, *answers: str | BaseException | None) -> None:
        self.answers = list(answers)
        self.questions: list[tuple[str, bool]] = []

    def __call__(self, question: str, is_secret: bool) -> str | None:
        assert threading.current_thread() is threading.main_thread()
        self.questions.append((question, is_secret))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def test_all_questions_are_asked_and_shown_without_escape_codes() -> None:
    person = Person("secret", "123")
    SignIn(OPTIONS, person, Memory()).authenticate(Server("secret", "123"))
    assert person.questions == [("alice@cluster: Password: ", True), ("alice@cluster: Code[2J: ", False)]


def test_remembered_answers_count_once() -> None:
    memory = Memory()
    SignIn(OPTIONS, Person("secret"), memory).authenticate(Server("secret"))
    SignIn(OPTIONS, Person(), memory).authenticate(Server("secret"))
    # As for a code that has been used.
    person = Person("next")
    server = Server("next")
    SignIn(OPTIONS, person, memory).authenticate(server)
    assert (server.attempts, len(person.questions)) == (2, 1)


def test_three_wrong_answers_end_it() -> None:
    person = Person("a", "b", "c")
    with pytest.raises(AuthFailed, match="denied access to alice"):
        SignIn(OPTIONS, person, Memory()).authenticate(Server("secret", methods=["keyboard-interactive", "password"]))
    assert len(person.questions) == 3


def test_without_anybody_it_ends_at_once() -> None:
    person, server = Person(None), Server("secret", "123")
    with pytest.raises(AuthFailed) as excinfo:
        SignIn(OPTIONS, person, Memory()).authenticate(server)
    assert "in a terminal" in (excinfo.value.hint or "")
    assert (server.attempts, len(person.questions)) == (1, 1)


def test_a_key_where_nobody_may_look_is_not_used() -> None:
    # Root may look everywhere, but a name of this length exists nowhere.
    options = {**OPTIONS.options, "identityfile": [f"/{'k' * 300}"]}
    with pytest.raises(AuthFailed) as excinfo:
        SignIn(HostOptions("cluster", "alice", 22, options), Person(), Memory()).authenticate(
            Server(methods=["publickey"])
        )
    assert "cannot be used: File name too long" in (excinfo.value.details or "")


def test_ctrl_c_at_a_question_is_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):
        SignIn(OPTIONS, Person(KeyboardInterrupt()), Memory()).authenticate(Server("secret"))
