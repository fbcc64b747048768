"""The commands as a tree for Typer: listed in named groups, and each imported and built when it is first used.

Building a command means reading its signature. For all of them together that takes as long as half of Typer's import,
and one call uses one.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Literal

import typer

from replayctl.console.result import Result

# A function by its module in `commands/` and its name, or a group of commands: its description, and functions by name.
Entry = str | tuple[str, Mapping[str, str]]
# The help's group → its commands.
Groups = Mapping[str, Mapping[str, Entry]]
Markup = Literal["rich"] | None
# The type of an option's value → its name.
_VALUES = {"int": "N", "integer": "N", "float": "SECONDS", "path": "PATH"}
# Characters of a command's first sentence: all of them.
_WHOLE = 1000


class Grouped(typer.core.TyperGroup):
    """Lists commands under the names of their groups in plain help, too, and cuts no sentence."""

    _is_listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, without building what they stand for."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; in a list only what is shown of it."""
        if self._is_listing and isinstance(self.commands, _Commands):
            return self.commands.sketch(cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help."""
        self._is_listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._is_listing = False

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                group = getattr(command, "rich_help_panel", None) or "Commands"
                groups.setdefault(group, []).append((name, command.get_short_help_str(_WHOLE)))
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)


class _Command(typer.core.TyperCommand):
    """Names values as its reader does, in help and errors: `DAG`, `[RELEASE]`, `SECONDS`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name_values(self)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name; Typer puts required arguments in braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


def name_values(command: Any) -> None:
    """Gives each parameter without a name for its value one by its type, each argument its own name."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            # Rich help shows the type beside the name; a copy, since arguments share their types.
            parameter.type = copy.copy(parameter.type)
            parameter.type.get_metavar = lambda **_: ""
        if parameter.metavar is not None or getattr(parameter, "is_flag", False) or getattr(parameter, "count", False):
            continue
        if parameter.param_type_name == "argument":
            name = parameter.name.upper()
            parameter.metavar = f"{name if parameter.required else f'[{name}]'}{'...' if parameter.nargs == -1 else ''}"
        elif choices := getattr(parameter.type, "choices", None):
            parameter.metavar = "|".join(choices)
        else:
            kind = parameter.type.name.partition(" ")[0]
            parameter.metavar = _VALUES.get(kind.strip("<>"), "TEXT")


class _Commands(Mapping[str, Any]):
    """Commands by name, built at their first use."""

    def __init__(self, root: Mapping[str, Any], groups: Groups, markup: Markup) -> None:
        self._built: dict[str, Any] = {}
        self._builders: dict[str, Callable[[], Any]] = {}
        self._sketches: dict[str, Callable[[], Any]] = {}
        for group, entries in groups.items():
            for name, entry in entries.items():
                self._builders[name] = partial(_build, name, entry, group, markup)
                self._sketches[name] = partial(_sketch, name, entry, group, markup)
        for name, command in root.items():
            self._built[name] = command
            self._builders[name] = self._sketches[name] = partial(self._built.__getitem__, name)

    def sketch(self, name: str) -> Any:
        """A command with its help and without its parameters."""
        return self._sketches[name]()

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = self._builders[name]()
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)


def build(app: typer.Typer, groups: Groups, markup: Markup) -> Any:
    """The program: what `app` has itself, after the commands of `groups`."""
    app.rich_markup_mode = markup
    root: Any = typer.main.get_command(app)
    name_values(root)
    root.commands = _Commands(root.commands, groups, markup)
    return root


def unwrapped(text: str) -> str:
    """A docstring as help: each paragraph in one line, except examples, which begin with `\\b`."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith("\b") else " ".join(paragraph.split()) for paragraph in paragraphs
    )


def _function(entry: str) -> Callable[..., Result]:
    module, _, name = entry.partition(".")
    function: Callable[..., Result] = getattr(import_module(f"replayctl.commands.{module}"), name)
    return function


def _sketch(name: str, entry: Entry, group: str, markup: Markup) -> Any:
    text = entry[0] if isinstance(entry, tuple) else unwrapped(_function(entry).__doc__ or "")
    return typer.core.TyperCommand(name, help=text, rich_help_panel=group, rich_markup_mode=markup)


def _build(name: str, entry: Entry, group: str, markup: Markup) -> Any:
    text, commands = entry if isinstance(entry, tuple) else (None, {name: entry})
    app = typer.Typer(
        name=name,
        help=text,
        cls=Grouped,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=markup,
        pretty_exceptions_enable=False,
    )
    for word, path in commands.items():
        function = _function(path)
        app.command(word, cls=_Command, help=unwrapped(function.__doc__ or ""))(function)
    built: Any = typer.main.get_group(app) if text else typer.main.get_command(app)
    built.rich_help_panel = group
    return built
