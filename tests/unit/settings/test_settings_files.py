"""Settings files as people write them: values that YAML would change are rejected, paths mean the same everywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayctl.errors import SettingsError
from replayctl.settings.declared import SETTINGS
from replayctl.settings.load import list_profiles, load_settings
from replayctl.settings.values import to_path, to_paths, to_properties, to_servers
from tests.conftest import ROOT


def load(tmp_path: Path, team: str, *, below: str = ".", **flags: object):
    (tmp_path / "replayctl.yaml").write_text(team, encoding="utf-8")
    cwd = tmp_path / below
    cwd.mkdir(parents=True, exist_ok=True)
    return load_settings("p", flags=flags, environ={"HOME": str(tmp_path / "home")}, cwd=cwd)


@pytest.mark.parametrize("written", ["no", "3.10", "010", "12:30", "2026-01-01", "0x1F"])
def test_values_that_yaml_changes_are_named_as_they_are_written(tmp_path: Path, written: str) -> None:
    with pytest.raises(SettingsError) as excinfo:
        load(tmp_path, f"profiles:\n  p:\n    user: {written}\n")
    assert "replayctl.yaml:3: user is" in str(excinfo.value)
    assert f'quote it: "{written}"' in str(excinfo.value)
    assert load(tmp_path, f'profiles:\n  p:\n    user: "{written}"\n').user == written


def test_a_secret_is_not_repeated_in_the_message_about_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as excinfo:
        load(tmp_path, "profiles: {p: {airflow: {password: 7391}}}")
    assert "7391" not in str(excinfo.value)


@pytest.mark.parametrize("key", ["no", "1", "3.10", "~"])
def test_profile_names_that_are_not_text_are_rejected(tmp_path: Path, key: str) -> None:
    (tmp_path / "replayctl.yaml").write_text(f"profiles:\n  {key}: {{}}\n")
    with pytest.raises(SettingsError, match="yaml:2: .* quote it"):
        list_profiles({"HOME": str(tmp_path)}, tmp_path)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("1: x", "yaml:3: .* quote it"),
        ("[a]: x", "yaml:3: a key is a list"),
        ("user:", "user is empty"),
        ("user: [a]", "expected text"),
        ("airflow: 3", "airflow must be a mapping of settings"),
        ("airflow: {1: x}", "yaml:3: .* quote it"),
        ("airflow: &a {airflow: *a}", "unknown setting 'airflow.airflow'"),
        ("airflow: {url: http://a, url: http://b}", "is set twice"),
        ("user: 2026-02-30", "quote it"),
    ],
)
def test_wrong_blocks_are_named(tmp_path: Path, block: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(tmp_path, f"profiles:\n  p:\n    {block}\n")


def test_an_empty_group_sets_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "profiles:\n  p:\n    airflow:\n").airflow.url is None


def test_a_relative_path_starts_at_the_folder_of_its_file(tmp_path: Path) -> None:
    team = "profiles: {p: {folders: {dags: shared/dags}}}"
    for below in (".", "a/b/c"):
        assert load(tmp_path, team, below=below).folders.dags == tmp_path / "shared" / "dags"


def test_a_secret_cannot_be_an_option(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot set airflow.password by a flag"):
        load(tmp_path, "profiles: {p: {}}", **{"airflow.password": "hunter2"})


@pytest.mark.parametrize(("content", "message"), [("", "is empty"), (b"\xff\xfe", "cannot read")])
def test_a_password_file_without_a_password_is_named_with_its_source(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "password"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    values = load(tmp_path, f"profiles:\n  p:\n    airflow: {{password_file: {path}}}\n")
    with pytest.raises(SettingsError, match=message) as excinfo:
        values.airflow_password()
    assert "replayctl.yaml:3" in str(excinfo.value)


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("abc:[]{}&*!|>'\"%@`#-? \n", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["user", "airflow", "url", "x"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(YAML_VALUES, st.booleans())
def test_no_file_is_a_bug(tmp_path: Path, value: object, as_document: bool) -> None:
    """Whatever stands in a file: settings, or a SettingsError that names the file."""
    import yaml

    team = yaml.safe_dump(value if as_document else {"profiles": {"p": value}}, allow_unicode=True)
    try:
        load(tmp_path, team)
    except SettingsError as error:
        assert "replayctl.yaml" in str(error) + (error.hint or "")  # noqa: PT017 - both ends are right


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
def test_no_text_is_a_bug(tmp_path: Path, text: str) -> None:
    try:
        load(tmp_path, text.encode("utf-8", "ignore").decode())
    except SettingsError as error:
        assert str(error)  # noqa: PT017 - both ends are right


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/srv/dags\n", "has a line end in it"),
        ("/srv/\rdags", "has a line end in it"),
        ("/srv/\0dags", r"has the control character '\\x00' in it"),
        ("/srv/\x1b[31mdags", "has the control character"),
        ("/srv/\udce9", "has a byte that is not UTF-8 in it"),
        ("~nobody-of-that-name/dags", "that user's home folder does not exist"),
    ],
)
@pytest.mark.parametrize("key", [setting.key for setting in SETTINGS if setting.convert is to_path])
def test_paths_are_one_line_of_text(tmp_path: Path, key: str, value: str, message: str) -> None:
    environ = {"HOME": str(tmp_path), "REPLAYCTL_" + key.upper().replace(".", "_"): value}
    with pytest.raises(SettingsError, match=message):
        load_settings(None, environ=environ, cwd=tmp_path)


@pytest.mark.parametrize(
    "key", [setting.key for setting in SETTINGS if setting.convert not in (to_properties, to_paths, to_servers)]
)
def test_no_setting_has_a_line_end(tmp_path: Path, key: str) -> None:
    environ = {"HOME": str(tmp_path), "REPLAYCTL_" + key.upper().replace(".", "_"): "http://x\ny"}
    with pytest.raises(SettingsError) as excinfo:
        load_settings(None, environ=environ, cwd=tmp_path)
    assert "\n" not in str(excinfo.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 5000,
        "profiles: !!timestamp x",
        "profiles: !!int ''",
        "profiles: !!bool x",
        "profiles: {a: {deploy: {timeout_s: 1" + "0" * 400 + "}}}",
        "profiles: {a: {airflow: {url: 'http://x:99999'}}}",
        "profiles: {a: {airflow: {url: 'http://[x'}}}",
        "# " + "x" * (1 << 20),
    ],
)
def test_odd_files_are_settings_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "replayctl.yaml").write_text(text)
    with pytest.raises(SettingsError):
        load_settings("a", environ={"HOME": str(tmp_path)}, cwd=tmp_path)


def test_a_removed_working_directory_is_a_clear_error(tmp_path: Path) -> None:
    removed = tmp_path / "gone"
    removed.mkdir()
    command = f'cd "{removed}" && rmdir "{removed}" && exec "{sys.executable}" -m replayctl settings show'
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    result = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
