"""The program as its user calls it: exit codes, streams, the JSON envelope, help."""

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl import __main__ as program
from replayctl import cli
from replayctl.commands.command_line import sort_out
from replayctl.settings.context import AppContext

ROOT = Path(__file__).parents[2]


def run(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = cli.run(argv)
    out, err = capfd.readouterr()
    return code, out, err


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "--version") == (0, "replayctl 0.1.0\n", "")


@pytest.mark.parametrize(
    "argv",
    [
        ("settings", "show", "--output", "json"),
        ("--output", "json", "settings", "show"),
        ("settings", "--output=json", "show"),
    ],
)
def test_global_options_stand_anywhere(capfd: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    code, out, err = run(capfd, *argv)
    document = json.loads(out)
    assert (code, err, document["command"], document["status"]) == (0, "", "settings show", "ok")
    assert document["data"]["settings"]["user"] == {"value": "tester", "source": "login name"}


@given(
    st.lists(
        st.sampled_from(
            [
                *("run", "yarn-logs", "forwards", "list", "x", "--wait", "--output", "json", "-v", "--profile", "p"),
                *("--force", "--", "--debug", "--grep", "-n", "-f", "-fn", "--tail=3"),
            ]
        )
    )
)
def test_sorting_out_loses_no_word_and_keeps_the_order_of_the_rest(words: list[str]) -> None:
    line = sort_out(cli._program(), words)
    assert sorted(line.words) == sorted(words)
    rest = iter(words)
    assert all(word in rest for word in line.rest)
    assert set(line.lifted) <= {"--output", "json", "-v", "--profile", "p", "--debug", *words}
    assert line.lifted == [] or line.lifted[0] in ("--output", "-v", "--profile", "--debug")


@pytest.mark.parametrize(
    ("argv", "lifted", "rest"),
    [
        ("yarn-logs X --grep --debug", "", "yarn-logs X --grep --debug"),
        ("yarn-logs X --grep --debug --debug", "--debug", "yarn-logs X --grep --debug"),
        ("yarn-logs X --grep=--debug -v", "-v", "yarn-logs X --grep=--debug"),
        ("yarn-logs X --grep --output json", "", "yarn-logs X --grep --output json"),
        ("yarn-logs X --grep --profile --output json", "--output json", "yarn-logs X --grep --profile"),
        ("yarn-logs -n --debug X", "", "yarn-logs -n --debug X"),
        ("yarn-logs -fn --debug X", "", "yarn-logs -fn --debug X"),
        ("yarn-logs -n5 --debug X", "--debug", "yarn-logs -n5 X"),
        ("yarn-logs -f -q X", "-q", "yarn-logs -f X"),
        ("yarn-logs X --grep -- --debug", "--debug", "yarn-logs X --grep --"),
        ("yarn-logs X -- --debug", "", "yarn-logs X -- --debug"),
        ("forwards -vv list --output=json", "-vv --output=json", "forwards list"),
        ("run a --profile", "", "run a --profile"),
    ],
)
def test_options_keep_their_values(argv: str, lifted: str, rest: str) -> None:
    line = sort_out(cli._program(), argv.split())
    assert (line.lifted, line.rest) == (lifted.split(), rest.split())


@pytest.mark.parametrize("command", [(), ("yarn-logs",), ("forwards",), ("forwards", "list"), ("help",)])
def test_help_is_available_in_every_form(capfd: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    helps = [run(capfd, *words) for words in ((*command, "--help"), (*command, "-h"), ("help", *command))]
    assert helps[0] == helps[1] == helps[2]
    code, out, err = helps[0]
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: {' '.join(('replayctl', *command))} ")
    assert "-h, --help" in out


def test_help_errors_and_reference_name_values_alike(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Usage: replayctl run [OPTIONS] DAG\n" in run(capfd, "run", "--help")[1]
    assert "--timeout SECONDS" in run(capfd, "run", "--help")[1]
    assert run(capfd, "run")[2].startswith("error: missing argument 'DAG'\n")
    assert "'x' is not an integer\n" in run(capfd, "gc", "--keep", "x")[2]
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert "replayctl run [OPTIONS] DAG\n" in page
    assert "| `--timeout SECONDS` |" in page


def test_help_of_what_is_not_there_names_what_is_near(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "help", "yarn-log")
    assert (code, out) == (2, "")
    assert "error: no such command 'yarn-log'. Did you mean 'yarn-logs'" in err
    code, _, err = run(capfd, "help", "forwards", "lits")
    assert code == 2
    assert "error: no such command 'lits'. Did you mean 'list'?" in err
    code, _, err = run(capfd, "help", "forwards", "list", "all")
    assert code == 2
    assert "error: replayctl forwards list has no subcommands\nhint: run `replayctl forwards list -h`" in err


@pytest.mark.parametrize("group", ["local", "runs", "forwards", "settings"])
def test_help_of_a_group_cuts_no_sentence(capfd: pytest.CaptureFixture[str], group: str) -> None:
    code, out, _ = run(capfd, group, "--help")
    assert code == 0
    assert "..." not in out.replace("COMMAND [ARGS]...", "")


def test_a_command_works_with_the_garbage_collector_that_a_start_does_without(
    capfd: pytest.CaptureFixture[str],
) -> None:
    gc.disable()
    try:
        assert run(capfd, "settings", "profiles")[0] == 0
        assert gc.isenabled()
    finally:
        gc.enable()


def test_an_end_leaves_nothing_to_collect(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["replayctl", "--version"])
    try:
        with pytest.raises(SystemExit) as ended:
            program.main()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.enable()
    assert (ended.value.code, capfd.readouterr().out) == (0, "replayctl 0.1.0\n")


def test_usage_errors_have_the_form_of_all_errors(capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "open")
    assert (code, err) == (2, "error: missing argument 'TARGET'\nhint: run `replayctl open --help`\n")


@pytest.mark.parametrize("argv", [("releases",), ("rollback",), ("mlflow-sync",), ("upd-wheels-and-jars", "--list")])
def test_before_the_first_local_up_every_command_names_it(
    capfd: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    code, _, err = run(capfd, *argv)
    assert code == 6
    assert err.endswith("error: the local stack is not running\nhint: run `replayctl local up`\n")


@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        (("nonsense",), 2, "usage"),
        (("run",), 2, "usage"),
        (("--output", "xml", "settings", "show"), 2, "usage"),
        (("--profile", "nowhere", "settings", "show"), 3, "settings"),
        (("run", "two_stage_ml100k"), 6, "not-ready"),
        (("leaderboard", "two_stage_ml100k"), 6, "not-ready"),
        (("local", "data", "ml25m"), 2, "usage"),
        (("run", "two_stage_ml100k", "--timeout", "5"), 2, "usage"),
        (("run", "two_stage_ml100k", "--wait", "--timeout", "-5"), 2, "usage"),
        (("runs", "follow", "two_stage_ml100k", "--timeout", "-5"), 2, "usage"),
        (("yarn-kill", "application_1_0001", "--timeout", "-5"), 2, "usage"),
        (("yarn-logs", "application_1_0001", "--wait-for", "-5"), 2, "usage"),
        (("sync-dags", "--dags-dir", "/nonexistent"), 2, "usage"),
    ],
)
def test_failures_have_their_code_in_both_forms(
    capfd: pytest.CaptureFixture[str], argv: tuple[str, ...], code: int, word: str
) -> None:
    exit_code, out, err = run(capfd, *argv)
    assert (exit_code, out) == (code, "")
    assert err.splitlines()[-1].startswith(("hint: ", "error: "))
    if "xml" in argv:
        return
    exit_code, out, _ = run(capfd, "--output", "json", *argv)
    document = json.loads(out)
    assert (exit_code, document["exit_code"], document["status"], document["data"]) == (code, code, "error", None)
    assert [error["code"] for error in document["errors"]] == [word]
    assert (
        document["command"] == " ".join(argv[:2] if argv[0] in ("local", "runs") else argv[:1])
        or argv[0].startswith("-")
        or argv[0] == "nonsense"
    )


@pytest.mark.parametrize("name", ["", "Alice", "a b", "../x", "a;reboot", "a\nb", "ä"])
def test_an_invalid_user_is_rejected_before_anything_changes(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, clean_environment: Path, name: str
) -> None:
    monkeypatch.setenv("USERNAME_ON_CLUSTER", name)
    if not name:
        (clean_environment / "replayctl.yaml").write_text("profiles: {lab: {folders: {dags: /x}}}")
        monkeypatch.setenv("REPLAYCTL_CONFIG", str(clean_environment / "replayctl.yaml"))
        monkeypatch.setenv("REPLAYCTL_PROFILE", "lab")
    code, _, err = run(capfd, "sync-dags")
    assert code == 2
    assert "USERNAME_ON_CLUSTER" in err
    assert {path.name for path in clean_environment.iterdir()} <= {"replayctl.yaml"}


def test_local_commands_belong_to_the_local_profile(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> None:
    (clean_environment / "r.yaml").write_text("profiles: {lab: {}}")
    monkeypatch.setenv("REPLAYCTL_CONFIG", str(clean_environment / "r.yaml"))
    code, _, err = run(capfd, "local", "up", "--profile", "lab")
    assert code == 2
    assert "--profile local" in err


@pytest.mark.parametrize(
    "argv", [("yarn-apps",), ("yarn-logs", "--last"), ("airflow-config",), ("port-forward", "yarn"), ("open", "yarn")]
)
def test_commands_of_a_cluster_name_the_profile_that_has_none(
    capfd: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    code, _, err = run(capfd, *argv)
    assert code == 3
    assert err.splitlines()[-2] == "error: profile 'local' has neither Kubernetes nor YARN: it is this machine"
    assert "--profile" in err.splitlines()[-1]


def test_a_list_of_forwards_creates_no_folder_and_a_forward_names_one_that_it_cannot_create(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("REPLAYCTL_STATE_DIR", str(tmp_path / "file" / "state"))
    assert run(capfd, "forwards", "list")[:2] == (0, "no forwards are running\n")
    code, _, err = run(capfd, "port-forward", "yarn", "--detach")
    assert code == 1
    assert err.startswith("error: cannot create folder ")
    assert "export REPLAYCTL_STATE_DIR=<folder>" in err


def test_status_and_down_of_nothing_are_successes(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "local", "status", "--output", "json")
    assert (code, json.loads(out)["data"]["running"]) == (0, False)
    code, out, _ = run(capfd, "local", "down", "--output", "json")
    assert (code, json.loads(out)["status"]) == (0, "nothing-to-do")


def test_dry_runs_of_the_local_stack_write_nothing(capfd: pytest.CaptureFixture[str], clean_environment: Path) -> None:
    for argv in (("local", "up"), ("local", "down"), ("local", "data"), ("local", "environments")):
        code, out, _ = run(capfd, *argv, "--dry-run", "--output", "json")
        assert code == 0
        assert json.loads(out)["command"] == " ".join(argv)
    assert list(clean_environment.iterdir()) == []


def test_a_bug_is_one_line_and_a_private_file_without_secrets(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(_self: AppContext) -> None:
        raise RuntimeError("http://me:hunter2@host is odd")

    monkeypatch.setattr(AppContext, "settings", property(broken))
    code, out, err = run(capfd, "settings", "show")
    assert (code, out) == (70, "")
    assert "a bug in replayctl: RuntimeError" in err
    assert "Traceback" not in err
    (saved,) = tmp_path.glob("replayctl-bug-*.txt")
    assert saved.stat().st_mode & 0o077 == 0
    assert "Traceback" in saved.read_text()
    assert "hunter2" not in err + saved.read_text()
    _, _, err = run(capfd, "settings", "show", "--debug")
    assert "Traceback" in err


def test_an_argument_that_is_not_utf8_is_not_a_bug(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sends(_self: AppContext) -> None:
        "caf\udce9".encode()

    monkeypatch.setattr(AppContext, "settings", property(sends))
    code, _, err = run(capfd, "run", "caf\udce9")
    assert (code, "not UTF-8" in err) == (2, True)
    assert run(capfd, "run", "cafe")[0] == 70


_WAITS = """
import sys, time
from replayctl import cli
from replayctl.settings.context import AppContext
def wait(self):
    print("waiting", flush=True)
    time.sleep(60)
AppContext.settings = property(wait)
cli.main(["settings", "show", *sys.argv[1:]])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_it_with_their_code_and_one_document(number: signal.Signals, code: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _WAITS, "--output", "json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"waiting\n"
    time.sleep(0.1)
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert child.returncode == code
    assert json.loads(out)["errors"][0]["code"] == "interrupted"
    assert b"Traceback" not in err


def test_a_closed_reader_is_not_an_error() -> None:
    command = f'"{sys.executable}" -m replayctl settings show | head -c 1 >/dev/null; exit "${{PIPESTATUS[0]}}"'
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_no_secret_of_the_environment_is_printed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAYCTL_AIRFLOW_PASSWORD", "hunter2")
    for mode in ("human", "json"):
        _, out, err = run(capfd, "settings", "show", "--output", mode)
        assert "hunter2" not in out + err
    assert os.environ["REPLAYCTL_AIRFLOW_PASSWORD"] == "hunter2"


def test_open_takes_the_direct_link_where_there_is_one(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "REPLAYCTL_LINKS_YARN": "http://node.example:32524"}
    command = [sys.executable, "-m", "replayctl", "--output", "json", "open"]
    result = subprocess.run([*command, "yarn", "--dry-run"], env=environ, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["data"]["address"] == "http://node.example:32524"
    result = subprocess.run([*command, "hdfs", "--dry-run"], env=environ, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["data"]["forwards"] == {
        "hdfs": {"target": "hdfs-3/service/hdfs-namenode:9870", "port": "auto", "links": True}
    }
    command += ["yarn", "--forward", "--dry-run"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert list(json.loads(result.stdout)["data"]["forwards"]) == ["yarn"]


def test_without_a_browser_no_page_is_reported_as_open(clean_environment: Path) -> None:
    environ = {
        "HOME": str(clean_environment),
        "PATH": "/nonexistent",
        "REPLAYCTL_LINKS_YARN": "http://yarn.example.org",
    }
    command = [sys.executable, "-m", "replayctl", "--output", "json", "open", "yarn"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    (problem,) = json.loads(result.stdout)["errors"]
    assert (result.returncode, problem["message"]) == (1, "cannot start a browser")
    assert problem["hint"] == "open http://yarn.example.org"


def test_a_browser_in_the_terminal_does_not_write_into_the_answer(clean_environment: Path) -> None:
    environ = {
        "HOME": str(clean_environment),
        "PATH": os.environ["PATH"],
        "REPLAYCTL_LINKS_YARN": "http://yarn.example.org",
        "BROWSER": "echo %s",
    }
    command = [sys.executable, "-m", "replayctl", "--output", "json", "open", "yarn"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["data"]["address"] == "http://yarn.example.org"
    assert "http://yarn.example.org" in result.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the system refused: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/some/file"), "cannot use /some/file: Permission denied"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b"), "cannot use /a/b: Not a directory"),
    ],
)
def test_trouble_with_the_machine_is_nobodys_bug(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("replayctl.local.stack.status", fail)
    code, out, _ = run(capfd, "local", "status", "--output", "json")
    assert (code, json.loads(out)["errors"][0]["message"]) == (1, message)


def test_a_bug_is_reported_even_if_its_traceback_cannot_be_saved(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("replayctl.local.stack.status", lambda _: 1 / 0)
    monkeypatch.setattr("tempfile.mkstemp", fail)
    code, out, _ = run(capfd, "local", "status", "--output", "json")
    (problem,) = json.loads(out)["errors"]
    assert (code, problem["code"]) == (70, "bug")
    assert "ZeroDivisionError" in problem["details"]


@pytest.mark.parametrize("option", [("--keep", "3"), ("--include-used",)])
def test_options_of_prune_need_it(
    capfd: pytest.CaptureFixture[str], clean_environment: Path, option: tuple[str, ...]
) -> None:
    code, _, err = run(capfd, "upd-wheels-and-jars", *option)
    assert code == 2
    assert f"error: {option[0]} has no effect without --prune" in err
