"""`python -m tests.reference` writes the reference pages that follow from the program: commands and settings."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from replayctl import cli
from replayctl.settings.declared import SETTINGS

ROOT = Path(__file__).parent.parent
COMMANDS = ROOT / "docs" / "reference" / "cli.md"
SETTINGS_PAGE = ROOT / "docs" / "reference" / "settings.md"
# Stands for whose ever home it is.
_HOME = "/home/replayctl-user"
_INTRODUCTION = """# Commands

Global options stand before or after the command. Every command that changes something has `--dry-run`, and every one
answers with one JSON document under `--output json` ([its shape](json-output.md)). `replayctl COMMAND --help` shows the
same texts, and default values as well.

<!-- Written by `python -m tests.reference` from the program itself: change help texts there. -->
"""
_TABLE = re.compile(
    r"(?<=<!-- settings: written by `python -m tests.reference` -->\n).*?(?=<!-- end of settings -->)", re.DOTALL
)


def commands_page() -> str:
    """The page of all commands, in the groups and the order of the help."""
    root: Any = cli.program()
    parts = [_INTRODUCTION, _options(root)]
    group = None
    for name, command in root.commands.items():
        if command.hidden:
            continue
        if command.rich_help_panel != group:
            group = command.rich_help_panel
            parts.append(f"## {group}\n")
        parts += _command(f"replayctl {name}", command)
    return "\n".join(parts)


def settings_page(page: str) -> str:
    """The page of settings with its table as it follows from the declarations."""
    rows = ["| key | default | description |", "|---|---|---|"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    with mock.patch.dict(os.environ, {**bare, "HOME": _HOME}, clear=True):
        rows += [f"| `{setting.key}` | {_default(setting.default())} | {_cell(setting.help)} |" for setting in SETTINGS]
    assert _TABLE.search(page), f"{SETTINGS_PAGE} has lost the comments around its table"
    return _TABLE.sub(lambda _: "\n".join(rows) + "\n", page)


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"### `{name}`\n"
    yield from _help(command.help or "")
    if getattr(command, "commands", None):
        for word, subcommand in command.commands.items():
            yield from _command(f"{name} {word}", subcommand)
        return
    arguments = " ".join(parameter.metavar for parameter in command.params if parameter.param_type_name == "argument")
    usage = f"{name} [OPTIONS] {arguments}".strip()
    yield f"```\n{usage}\n```\n"
    yield _options(command)


def _help(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b"):
            lines = paragraph.lstrip("\b\n").splitlines()
            yield "```shell\n" + "\n".join(line.strip() for line in lines[1:]) + "\n```\n"
        else:
            yield paragraph + "\n"


def _options(command: Any) -> str:
    rows = [
        (_names(parameter), parameter.help or "")
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
    ]
    rows = [row for row in rows if row[0]]
    if not rows:
        return ""
    return (
        "\n".join(
            ["| option | what it does |", "|---|---|", *(f"| {_cell(name)} | {_cell(text)} |" for name, text in rows)]
        )
        + "\n"
    )


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    names = [*parameter.opts, *parameter.secondary_opts]
    if "--help" in names:
        return ""
    value = "" if parameter.is_flag or parameter.count else f" {parameter.metavar}"
    return ", ".join(f"`{name}{value if name.startswith('--') else ''}`" for name in names)


def _default(value: object) -> str:
    return "-" if value is None else f"`{str(value).replace(_HOME, '~')}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    COMMANDS.write_text(commands_page())
    SETTINGS_PAGE.write_text(settings_page(SETTINGS_PAGE.read_text()))
