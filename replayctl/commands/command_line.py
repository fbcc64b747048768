"""A command line sorted out before it is parsed: global options may stand anywhere, all options keep their values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

_FLAGS = r"-v+|-q+|--verbose|--quiet|--debug"
_WITH_VALUE = ("--output", "--profile")


@dataclass(eq=False, repr=False)
class CommandLine:
    """Global options, the other words in their order, and what they say of the command and the form of its answer."""

    lifted: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    command: str = "replayctl"
    mode: str | None = None
    # A global option at the end, without its value.
    incomplete: str | None = None

    @property
    def words(self) -> list[str]:
        """Every word that was given, as the parser wants them: the global options in front."""
        return [*self.lifted, *self.rest]

    @property
    def debug(self) -> bool:
        """Whether whole tracebacks are asked for."""
        return "--debug" in self.lifted


def sort_out(program: Any, argv: Sequence[str]) -> CommandLine:
    """The command line by the rules of `program`, a tree of commands. What follows `--` is left alone.

    A word that an option of the command takes for its value is that value, whatever it looks like.
    """
    line = CommandLine()
    command, names = program, []
    words = iter(argv)
    for word in words:
        values = None if command is program else _values_after(command, word)
        if word == "--":
            line.rest += [word, *words]
        elif values is not None:
            line.rest += [word, *_next(words, values)]
        elif re.fullmatch(_FLAGS, word):
            line.lifted.append(word)
        elif word.partition("=")[0] in _WITH_VALUE:
            _lift(line, word, words)
        else:
            line.rest.append(word)
            below = getattr(command, "commands", {}).get(word)
            if below is not None:
                command = below
                names.append(word)
    line.command = " ".join(names) or line.command
    return line


def _lift(line: CommandLine, word: str, words: Iterator[str]) -> None:
    option, assigned, value = word.partition("=")
    parts = [word] if assigned else [word, *_next(words, 1)]
    if not assigned and len(parts) == 1:
        # In front it would take the command for its value.
        line.incomplete = word
        line.rest.append(word)
        return
    line.lifted += parts
    if option == "--output":
        # The last one counts, for the parser as well.
        line.mode = value if assigned else parts[1]


def _values_after(command: Any, word: str) -> int | None:
    """How many of the next words an option of the command takes; None when the word is no option of it."""
    if not word.startswith("-") or word == "-":
        return None
    options = {name: parameter for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if word.startswith("--"):
        name, assigned, _ = word.partition("=")
        return None if name not in options else 0 if assigned else _count(options[name])
    for place, letter in enumerate(word[1:], start=1):
        option = options.get(f"-{letter}")
        if option is None:
            # Among letters that are ours; alone it may be a global one.
            return None if place == 1 else 0
        if _count(option):
            # The rest of the word is the value, if there is a rest.
            return _count(option) if place == len(word) - 1 else 0
    return 0


def _count(option: Any) -> int:
    takes_none = getattr(option, "is_flag", False) or getattr(option, "count", False)
    return 0 if takes_none else int(option.nargs)


def _next(words: Iterator[str], count: int) -> list[str]:
    return [word for _, word in zip(range(count), words, strict=False)]
