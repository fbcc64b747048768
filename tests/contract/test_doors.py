"""Import rules: each third-party client has one door, and commands do not import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "replayctl"
DOORS = {
    "rich": {"console/table.py", "console/reporter.py"},
    # All read files of others: settings, the kubeconfig, and pod templates.
    "yaml": {"settings/document.py", "cluster/kubeconfig.py", "experiments/airflow_config.py"},
    "websockets": {"cluster/websocket.py"},
    "filelock": {"local/locking.py"},
    "platformdirs": {"settings/base_dirs.py"},
    "h11": {"forwarding/pages.py"},
    "docker": {"images/context.py", "images/engine.py"},
    "fabric": {"storage/fabric_shell.py"},
    "paramiko": {
        *("storage/fabric_shell.py", "storage/fabric_sign_in.py", "storage/fabric_troubles.py"),
        "storage/ssh_config.py",
    },
    "airflow_client": {"clients/airflow.py", "clients/airflow_runs.py", "clients/airflow_session.py"},
    "urllib3": {
        *("clients/airflow.py", "clients/airflow_session.py", "clients/mlflow.py", "clients/resource_manager.py"),
        *("clients/hdfs.py", "clients/webhdfs.py", "clients/proxies.py"),
        *("cluster/api.py", "images/registry.py", "logs/sources.py", "python_env/standalone.py"),
    },
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(name: str) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(module == name or module.startswith(f"{name}.") for module in imports(path))
    }


@pytest.mark.parametrize("name", DOORS)
def test_each_client_has_its_door(name: str) -> None:
    assert importers(name) <= DOORS[name]


def test_typer_stays_in_the_program_and_its_commands() -> None:
    assert all(path == "cli.py" or path.startswith("commands/") for path in importers("typer"))


def test_only_the_program_prints() -> None:
    assert importers("replayctl.console.output") == {"cli.py"}
    assert importers("replayctl.console.reporter") == {"cli.py"}


def test_commands_do_not_import_each_other() -> None:
    for path in (PACKAGE / "commands").glob("*.py"):
        others = {name for name in imports(path) if name.startswith("replayctl.commands.")}
        # Tables that would make a file of commands too long stand beside it.
        allowed = ("replayctl.commands.options", f"replayctl.commands.{path.stem}_views")
        assert all(name.startswith(allowed) for name in others), path
