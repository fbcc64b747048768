"""Rules for every module and every command, including future ones."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replayctl import cli, errors
from replayctl.settings.declared import SETTINGS
from tests import reference

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "replayctl").rglob("*.py"))
SOURCES = [
    path for name in ("replayctl", "dags", "tests", "benchmarks", "scripts") for path in (ROOT / name).rglob("*.py")
]
HEAVY = (
    "rich",
    "fabric",
    "paramiko",
    "cryptography",
    "yaml",
    "airflow_client",
    "urllib3",
    "pydantic",
    "asyncio",
    "psutil",
    "http",
    "ssl",
    "docker",
)


def commands() -> Iterator[tuple[str, ...]]:
    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, subcommand in getattr(command, "commands", {}).items():
            yield from walk(subcommand, (*path, name))

    yield from walk(cli.program(), ())


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in PACKAGE:
        yield path, ast.parse(path.read_text())


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    code = (
        "import json, sys\n"
        "from replayctl import cli\n"
        f"code = cli.run({[*command, '--help']!r})\n"
        f"print('@' + json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout.rpartition("@")[2]) == [0, []]


def test_the_reference_pages_are_up_to_date() -> None:
    """Help or a setting has changed? Then: python -m tests.reference."""
    assert reference.COMMANDS.read_text() == reference.commands_page()
    page = reference.SETTINGS_PAGE.read_text()
    assert page == reference.settings_page(page)
    assert all(f"| `{setting.key}` |" in page for setting in SETTINGS)


def test_every_exit_code_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ReplayctlError):
            assert f"`{kind.code}`" in page


def test_changing_commands_have_a_dry_run() -> None:
    reads_only = {("settings", "show"), ("settings", "profiles"), ("local", "status"), ("leaderboard",), ("releases",)}
    reads_only |= {
        ("help",),
        ("yarn-apps",),
        ("yarn-logs",),
        ("forwards", "list"),
        ("images",),
        ("airflow-config",),
        ("runs", "list"),
        ("runs", "follow"),
    }
    root = cli.program()
    for path in commands():
        command: Any = root
        for name in path:
            command = command.commands[name]
        if not hasattr(command, "commands") and path not in reads_only:
            assert any("--dry-run" in parameter.opts for parameter in command.params), path


def test_layers_hold() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_only_output_prints() -> None:
    for path, tree in trees():
        if path.name == "output.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno}"


def test_no_error_is_made_and_not_raised() -> None:
    names = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = node.value.func
                name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                assert name not in names | {"Exit", "BadParameter", "ValueError"}, f"{path}:{node.lineno}"


def test_every_module_has_a_docstring() -> None:
    for path in [*PACKAGE, *(ROOT / "dags").rglob("*.py")]:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_modules_and_functions_stay_readable() -> None:
    """No module has more than 400 lines; no function has more than 50, its options and its help not counted."""
    for path in [*PACKAGE, *(ROOT / "dags").rglob("*.py")]:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
                assert (node.end_lineno or 0) - first.lineno < 50, f"{path}:{node.lineno} {node.name}"


def test_pinned_lists_are_complete_and_exact() -> None:
    for path in [*(ROOT / "docker" / "requirements").glob("*.txt"), *(ROOT / "requirements").glob("*.txt")]:
        for line in path.read_text().splitlines():
            assert re.fullmatch(r"#.*|-r \w+\.txt|[A-Za-z0-9._-]+==[A-Za-z0-9.+]+", line), f"{path}: {line}"


# Participles and pronouns say nothing about a value: the field has nouns for it (a run, a release, an entry, a path).
VAGUE_NAMES = {
    *("found", "made", "each", "told", "wanted", "chosen", "given", "said", "asked", "shown", "left", "gone", "right"),
    *("caught", "got", "begun"),
}


def test_names_are_nouns_of_the_field() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            # Names that are bound here; `given` of hypothesis is not.
            bound = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            name = node.id if bound else node.arg if isinstance(node, ast.arg) else ""
            assert name not in VAGUE_NAMES, f"{path}:{getattr(node, 'lineno', 0)}: {name}"
