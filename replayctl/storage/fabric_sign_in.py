"""Signs in over an open connection: with keys and agents, and where someone can be asked, with a password."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from replayctl.errors import AuthFailed
from replayctl.storage.ssh_config import HostOptions

# Asks at the terminal; None where there is none. The second argument says whether the answer is secret.
Ask = Callable[[str, bool], str | None]
_TRIES = 3
_ANSWER_TIMEOUT_S = 300.0


class Memory:
    """What was unlocked and typed in this process, so that a lost connection asks nothing again. Never written down."""

    def __init__(self) -> None:
        self.keys: dict[Path, Any] = {}
        self.answers: dict[tuple[str, str], str] = {}


class SignIn:
    """One host's authentication; what paramiko calls a strategy."""

    def __init__(self, options: HostOptions, ask: Ask, memory: Memory) -> None:
        self._options = options
        self._ask = ask
        self._memory = memory
        self._who = f"{options.user}@{options.alias}"
        self._offered: set[bytes] = set()
        self._needs_terminal = False
        self._notes: list[str] = []

    def authenticate(self, transport: Any) -> None:
        """Signs in, by one method after another where the server requires several. Raises AuthFailed."""
        import paramiko

        # Typing takes longer than a server's answer.
        transport.auth_timeout = _ANSWER_TIMEOUT_S
        methods = self._accepted_methods(transport)
        try:
            while methods:
                remaining = self._next(transport, methods)
                if remaining is None:
                    raise self._denied(methods)
                methods = remaining
        except (paramiko.SSHException, EOFError) as error:
            self._notes.append(f"{self._options.alias} closed the connection: {error}")
            raise self._denied(methods) from error

    def _accepted_methods(self, transport: Any) -> Sequence[str]:
        import paramiko

        try:
            methods: Sequence[str] = transport.auth_none(self._options.user)
        except paramiko.BadAuthenticationType as error:
            methods = error.allowed_types
        return methods

    def _next(self, transport: Any, methods: Sequence[str]) -> Sequence[str] | None:
        """The methods that are still required after one has succeeded; None when none has."""
        if "publickey" in methods:
            for key in self._keys():
                remaining = self._attempt(transport, transport.auth_publickey, self._options.user, key)
                if remaining is not None:
                    return remaining
        if "keyboard-interactive" in methods:
            questions = _Questions(self._who, self._ask, self._memory)
            for _ in range(_TRIES):
                remaining = self._attempt(transport, questions.run, transport, self._options.user)
                if remaining is not None:
                    questions.remember()
                    return remaining
                if questions.is_unanswered or not questions.were_asked:
                    break
            self._needs_terminal |= questions.is_unanswered
            # Whoever has typed a wrong password three times is not asked three times more.
            if questions.were_asked:
                return None
        return self._by_password(transport) if "password" in methods else None

    def _by_password(self, transport: Any) -> Sequence[str] | None:
        place = (self._who, "password")
        for number in range(_TRIES):
            again = ", try again" if number else ""
            # A remembered one counts once: it may have been changed.
            password = self._memory.answers.pop(place, None) or self._ask(f"{self._who}'s password{again}: ", True)
            if password is None:
                self._needs_terminal = True
                return None
            # Without paramiko's fallback, which would answer any one question of the server's with the password.
            remaining = self._attempt(transport, transport.auth_password, self._options.user, password, None, False)
            if remaining is not None:
                self._memory.answers[place] = password
                return remaining
        return None

    def _attempt(self, transport: Any, method: Callable[..., Sequence[str]], *values: Any) -> Sequence[str] | None:
        """The methods still required after this one, or None when it was refused."""
        import paramiko

        try:
            return method(*values)
        except paramiko.AuthenticationException:
            # After too many attempts the server closes the connection.
            if not transport.is_active():
                raise
            return None

    def _keys(self) -> Iterator[Any]:
        """Keys to offer, in ssh's order: the agent's that are configured, its others, then those of files."""
        configured = {path: _public_blob(path) for path in self._options.keys}
        blobs = set(configured.values())
        with _agent_keys(self._options.uses_agent) as agent_keys:
            for key in sorted(agent_keys, key=lambda key: key.asbytes() not in blobs):
                may_be_offered = key.asbytes() in blobs or not self._options.only_these_keys
                if may_be_offered and key.asbytes() not in self._offered:
                    self._offered.add(key.asbytes())
                    yield key
        for path, blob in configured.items():
            if blob in self._offered:
                continue
            key = self._memory.keys.get(path) or self._key_of(path)
            if key is not None and key.asbytes() not in self._offered:
                self._offered.add(key.asbytes())
                yield key

    def _key_of(self, path: Path) -> Any:
        """The private key in a file; None when it cannot be used, which is noted."""
        import paramiko

        if path.suffix == ".pub":
            return None
        try:
            if not path.is_file():
                return None
            status = path.stat()
            if status.st_uid == os.getuid() and status.st_mode & 0o077:
                self._notes.append(f"{path} is not used: others can read it; run: chmod 600 {path}")
                return None
            key = _private_key(path) or self._unlocked(path)
        except (OSError, ValueError, paramiko.SSHException, paramiko.UnknownKeyType) as error:
            self._notes.append(f"{path} cannot be used: {getattr(error, 'strerror', None) or 'not a private key'}")
            return None
        if key is not None:
            self._memory.keys[path] = key
        return key

    def _unlocked(self, path: Path) -> Any:
        """The private key in a file with a passphrase; None when nobody knows that, which is noted."""
        for number in range(_TRIES):
            again = ", try again" if number else ""
            passphrase = self._ask(f"Enter passphrase for key '{path}'{again}: ", True)
            if not passphrase:
                self._notes.append(f"{path} has a passphrase: ssh-add {path}")
                self._needs_terminal |= passphrase is None
                return None
            with contextlib.suppress(ValueError):
                return _private_key(path, passphrase)
        self._notes.append(f"{path} was not unlocked: wrong passphrase")
        return None

    def _denied(self, methods: Sequence[str]) -> AuthFailed:
        notes = [f"accepted methods: {', '.join(methods)}; keys offered: {len(self._offered)}", *self._notes]
        if self._needs_terminal:
            hint = "run the same command in a terminal, without --output json, to be asked for a password or passphrase"
        else:
            hint = "check ssh.user, your password and your keys for this host, then try again"
        return AuthFailed(
            f"{self._options.alias} denied access to {self._options.user}", details="\n".join(notes), hint=hint
        )


class _Questions:
    """The questions of a server (keyboard-interactive), asked in the thread that may be interrupted by Ctrl-C."""

    def __init__(self, who: str, ask: Ask, memory: Memory) -> None:
        self._who = who
        self._ask = ask
        self._memory = memory
        self._typed: dict[tuple[str, str], str] = {}
        self.were_asked = False
        self.is_unanswered = False

    def run(self, transport: Any, user: str) -> Sequence[str]:
        """One attempt; returns the methods that are still required."""
        questions: queue.SimpleQueue[list[tuple[str, bool]] | None] = queue.SimpleQueue()
        answered: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        results: list[Sequence[str]] = []
        errors: list[BaseException] = []

        def handler(_title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
            # Such as which code is to be typed.
            words = " ".join(instructions.split())
            first = [(f"{words} {text}", is_shown) for text, is_shown in prompts[:1] if words]
            questions.put([*first, *prompts[len(first) :]])
            return answered.get()

        def attempt() -> None:
            try:
                results.append(transport.auth_interactive(user, handler))
            except Exception as error:  # noqa: BLE001  # raised again by the thread that waits
                errors.append(error)
            questions.put(None)

        threading.Thread(target=attempt, daemon=True).start()
        try:
            while (prompts := questions.get()) is not None:
                answered.put([self._answer(prompt, is_shown) for prompt, is_shown in prompts])
        except BaseException:
            answered.put([])
            raise
        if errors:
            raise errors[0]
        return results[0]

    def remember(self) -> None:
        """Keeps the answers for the next connection."""
        self._memory.answers.update(self._typed)

    def _answer(self, prompt: str, is_shown: bool) -> str:
        text = "".join(character for character in prompt if character.isprintable())
        place = (self._who, text)
        answer = self._memory.answers.pop(place, None) or (
            None if self.is_unanswered else self._ask(f"{self._who}: {text}", not is_shown)
        )
        if answer is None:
            self.is_unanswered = True
            return ""
        self.were_asked = True
        self._typed[place] = answer
        return answer


def _private_key(path: Path, passphrase: str | None = None) -> Any:
    """The private key in a file; None when it has a passphrase and none is given; ValueError when that is wrong."""
    import paramiko

    try:
        return paramiko.PKey.from_path(path, passphrase.encode() if passphrase else None)
    except TypeError:
        # What cryptography raises for a key with a passphrase.
        return None


@contextlib.contextmanager
def _agent_keys(uses_agent: bool) -> Iterator[list[Any]]:
    import paramiko

    if not uses_agent:
        yield []
        return
    try:
        agent = paramiko.Agent()
    except (paramiko.SSHException, OSError):
        # Something else listens there, or nothing any more.
        yield []
        return
    try:
        yield list(agent.get_keys())
    finally:
        agent.close()


def _public_blob(path: Path) -> bytes | None:
    """The public part of a key file, from the file beside it; None when there is none."""
    from replayctl.storage.known_hosts import decoded

    public = path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")
    try:
        words = public.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    return decoded(words[1]) if len(words) > 1 else None
