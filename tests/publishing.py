"""Publishes that are watched and killed: tiny DAG folders, a reader that looks all the time, shells that are cut off.

Run as a program it is one publisher, for tests that kill it: `python -m tests.publishing CONFIG.json`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from replayctl.bundle.release import Release, build_release
from replayctl.bundle.stubs import stubs_of
from replayctl.process import Exchanged
from replayctl.publishing.plan import make_plan
from replayctl.publishing.rollback import check_whole
from replayctl.settings.namespace import Namespace
from replayctl.storage import lock
from replayctl.storage.audit import audit_line
from replayctl.storage.fabric_shell import FabricShell
from replayctl.storage.shell import (
    BOOTSTRAP,
    END_OF_SCRIPT,
    REMOTE_COMMAND,
    LocalShell,
    Shell,
    answer_of,
    quiet_environment,
    script_text,
)
from replayctl.storage.ssh import SshShell
from replayctl.storage.ssh_config import SshAddress
from replayctl.storage.target import Modes, Publication, Target
from tests.reporters import SilentReporter

MODULES = ("dag_a", "dag_b", "dag_c")
CLIENTS = {"openssh": SshShell, "fabric": FabricShell}
PHASES = ("upload", "zip", "store", "publish")

_RELEASE = """
import importlib

def load_dags(module):
    loaded = importlib.import_module(f".{module}", __package__)
    return {"SEEN": (__package__, loaded.VALUE)}
"""

# Loads all stubs again and again, in its own process and in children as Airflow does, and counts what it saw.
_READER = """
import json, os, sys, types
from pathlib import Path
dags, stop, answer, owner = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
words = "airflow.providers.apache.spark.operators.spark_submit".split(".")
for name in ("airflow.sdk", *(".".join(words[:length]) for length in range(1, len(words) + 1))):
    sys.modules[name] = types.ModuleType(name)
stubs = [dags / f"{module}_{owner}.py" for module in ("dag_a", "dag_b", "dag_c")]
code = {}

def look():
    seen = set()
    for stub in stubs:
        text = stub.read_text()
        if text not in code:
            code[text] = compile(text, str(stub), "exec")
        names = {"__file__": str(stub), "__name__": "stub"}
        exec(code[text], names)
        seen.add(tuple(names.get("SEEN", ("nothing", 0))))
    return sorted(seen)

def look_in_child():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(look()).encode())
        except BaseException as error:
            os.write(write, json.dumps([["error", repr(error)]]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text)

counts = {"passes": 0, "mixed": [], "errors": [], "releases": []}
while not all(stub.exists() for stub in stubs) and not stop.exists():
    pass
while not stop.exists():
    counts["passes"] += 1
    try:
        seen = look_in_child() if counts["passes"] % 2 else look()
    except Exception as error:
        counts["errors"].append(repr(error))
        continue
    if len(seen) != 1:
        counts["mixed"].append(seen)
    elif seen[0][0] == "error":
        counts["errors"].append(seen[0][1])
    elif seen[0][0] not in counts["releases"]:
        counts["releases"].append(seen[0][0])
counts["releases"] = len(counts["releases"])
answer.write_text(json.dumps(counts))
"""


def write_dags(folder: Path, value: object, *, padding: int = 0, modules: Sequence[str] = MODULES) -> Path:
    """A DAG folder whose modules all say the same value; `padding` bytes make its upload last."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("dag_*.py"):
        old.unlink()
    (folder / "__init__.py").write_text("")
    (folder / "dag_release.py").write_text(_RELEASE)
    (folder / "dag_submit.py").write_text(f"print({value!r})\n")
    for module in modules:
        (folder / f"{module}.py").write_text(f"VALUE = {value!r}\n\ndef build_dags(namespace):\n    return []\n")
    for index in range(padding // 1_000_000):
        (folder / f"padding_{index}.txt").write_bytes(os.urandom(500_000).hex().encode())
    return folder


def release_of(folder: Path, owner: str) -> Release:
    return build_release(folder, json.dumps({"user": owner}))


def deploy(target: Target, namespace: Namespace, release: Release, *, force: bool = False) -> bool:
    """What sync-dags does between its checks and its wait; True when something was written."""
    stubs = stubs_of(release.modules, namespace.suffix, namespace.directory)
    with lock.held(
        target, SilentReporter(), what="test", timeout_s=60, names=list(stubs), release=release, sleep=_briefly
    ) as (token, state):
        plan = make_plan(release, (), namespace, state, force=force)
        if plan.changes:
            upload = release if plan.of("upload", "repair") else None
            target.publish(
                token,
                Publication(
                    release.name,
                    audit_line("publish", release=release.name, previous=plan.previous),
                    upload=upload,
                    metadata=json.dumps({"dags": {module: [] for module in release.modules}}),
                    stubs={name: plan.stubs[name] for name in plan.of("create", "update")},
                    removed_stubs=plan.of("delete"),
                ),
            )
        return bool(plan.changes)


def roll_back(target: Target, namespace: Namespace, release: str, modules: Sequence[str] = MODULES) -> None:
    """What rollback does before its wait, for releases with the same modules."""
    names = list(stubs_of(modules, namespace.suffix, namespace.directory))
    with lock.held(target, SilentReporter(), what="test", timeout_s=60) as (token, _):
        state = target.inspect(names, [release])
        check_whole(release, state)
        target.publish(token, Publication(release, audit_line("rollback", release=release, previous=state.pointer)))


def _briefly(_seconds: float) -> None:
    time.sleep(0.02)


class Reader:
    """A process that reads all stubs in a loop until it is asked what it saw."""

    def __init__(self, dags: Path, scratch: Path, owner: str) -> None:
        self._stop, self._answer = scratch / f"stop-{owner}", scratch / f"answer-{owner}.json"
        argv = [sys.executable, "-c", _READER, str(dags), str(self._stop), str(self._answer), owner]
        self._process = subprocess.Popen(argv)

    def result(self) -> dict:
        self._stop.touch()
        assert self._process.wait(30) == 0
        return json.loads(self._answer.read_text())


class TellingShell:
    """A shell that tells each line of an answer as it comes, and can cut off what it sends."""

    def __init__(self, inner: Shell, tell: Callable[[str], None], keep: float = 1.0) -> None:
        self._inner, self._tell, self._keep = inner, tell, keep
        self.name = inner.name

    def run(
        self,
        script: str,
        variables: Mapping[str, str],
        words: Sequence[str] = (),
        data: bytes = b"",
        *,
        timeout_s: float | None = None,
    ) -> bytes:
        data = data[: int(len(data) * self._keep)]
        text = script_text(script, variables, words)
        self._tell(f"script {script}")
        if isinstance(self._inner, FabricShell):
            return self._run_by_fabric(self._inner, text + data)
        argv = ["/bin/sh", "-c", BOOTSTRAP, END_OF_SCRIPT]
        if isinstance(self._inner, SshShell):
            shell = self._inner
            argv = [*shell._ssh, *shell._sharing, *shell._address.words, REMOTE_COMMAND]
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=quiet_environment(),
            start_new_session=True,
        )
        assert child.stdin
        assert child.stdout
        assert child.stderr
        self._tell(f"child {child.pid}")
        stdin, stdout, stderr = child.stdin, child.stdout, child.stderr

        def feed() -> None:
            try:
                stdin.write(text + data)
                stdin.close()
            except BrokenPipeError:
                pass

        threading.Thread(target=feed, daemon=True).start()
        answer = b""
        for line in stdout:
            answer += line
            if line.startswith((b"phase ", b"published")):
                self._tell(line.decode().strip())
        messages = stderr.read().decode()
        with child:
            result = Exchanged(child.wait(), answer, messages)
        return answer_of(result, self.name)

    def _run_by_fabric(self, shell: FabricShell, data: bytes) -> bytes:
        channel = shell._transport().open_session()
        channel.exec_command(REMOTE_COMMAND)

        def feed() -> None:
            with contextlib.suppress(OSError, EOFError):
                channel.sendall(data)
                channel.shutdown_write()

        threading.Thread(target=feed, daemon=True).start()
        answer = b""
        for line in channel.makefile("rb"):
            answer += line
            if line.startswith((b"phase ", b"published")):
                self._tell(line.decode().strip())
        messages = channel.makefile_stderr("rb").read().decode()
        return shell._answer(Exchanged(channel.recv_exit_status(), answer, messages))

    def close(self) -> None:
        self._inner.close()


def target_of(config: Mapping[str, str], tell: Callable[[str], None] | None = None, keep: float = 1.0) -> Target:
    """A target by the words of a configuration: folders, owner, and for ssh the alias, user and configuration."""
    shell: Shell = LocalShell()
    if config.get("host"):
        client = CLIENTS[config.get("client", "openssh")]
        shell = client(SshAddress(config["host"], config.get("user"), None, Path(config["config"])))
    if tell is not None or keep < 1:
        shell = TellingShell(shell, tell or (lambda _: None), keep)
    return Target(shell, config["dags"], config["files"], config["owner"], Modes())


def processes_of_user(user: str) -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=", "-u", user], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listing.stdout.split()]


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def main() -> None:
    """One publish or rollback, told line by line on stdout."""
    from dags.dag_entities import Namespace as Shipped

    config = json.loads(Path(sys.argv[1]).read_text())

    def tell(line: str) -> None:
        print(line, flush=True)

    target = target_of(config, tell)
    namespace = Shipped(config["owner"])
    tell("begin")
    if config.get("rollback"):
        roll_back(target, namespace, config["rollback"])
    else:
        deploy(target, namespace, release_of(Path(config["folder"]), config["owner"]))
    tell("done")
    target.shell.close()


if __name__ == "__main__":
    main()
