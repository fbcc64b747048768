"""Settings: the order of sources, and errors that name the place."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayctl.console.secret import Secret
from replayctl.errors import SettingsError
from replayctl.settings.declared import SETTINGS, value_of
from replayctl.settings.folders import find_folders
from replayctl.settings.load import list_profiles, load_settings, login_user


def load(tmp_path: Path, team: str = "", user: str = "", profile: str | None = None, **environ: str):
    home = Path.home()
    (home / ".config" / "replayctl").mkdir(parents=True, exist_ok=True)
    work = tmp_path / "work" / "deep"
    work.mkdir(parents=True, exist_ok=True)
    if team:
        (tmp_path / "work" / "replayctl.yaml").write_text(team)
    (home / ".config" / "replayctl" / "config.yaml").write_text(user or "{}")
    return load_settings(profile, environ={"LOGNAME": "tester", **environ}, cwd=work)


def test_each_source_wins_over_those_before_it(tmp_path: Path) -> None:
    team = "profiles:\n  lab:\n    user: team\n    mlflow:\n      url: http://team:1\n    airflow: {url: 'http://team:2'}\n"
    user = "profiles:\n  lab:\n    mlflow: {url: 'http://user:1'}\ndefault_profile: lab\n"
    values = load(tmp_path, team, user, REPLAYCTL_AIRFLOW_URL="http://env:2/")
    assert values.profile == "lab"
    assert (values.user, values.mlflow.url, values.airflow.url) == ("team", "http://user:1", "http://env:2")
    assert values.sources["user"].endswith("replayctl.yaml:3")
    assert values.sources["mlflow.url"].endswith("config.yaml:3")
    assert values.sources["airflow.url"] == "REPLAYCTL_AIRFLOW_URL"
    assert values.sources["deploy.poll_s"] == "default"


def test_folders_follow_the_base_directory_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = load(tmp_path)
    assert values.local.home == Path.home() / ".local" / "state" / "replayctl" / "local"
    assert values.cache_dir == Path.home() / ".cache" / "replayctl"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    # The specification has relative paths ignored.
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    values = load(tmp_path, user="profiles: {local: {user: carol}}")
    assert (values.local.home, values.state_dir) == (
        tmp_path / "state" / "replayctl" / "local",
        tmp_path / "state" / "replayctl",
    )
    assert values.cache_dir == Path.home() / ".cache" / "replayctl"
    assert values.user == "carol"


def test_the_user_comes_from_the_clusters_variable_and_ours_beats_it(tmp_path: Path) -> None:
    assert load(tmp_path).user == "tester"
    assert load(tmp_path).sources["user"] == "login name"
    assert load(tmp_path, USERNAME_ON_CLUSTER="alice").user == "alice"
    assert load(tmp_path, USERNAME_ON_CLUSTER="alice", REPLAYCTL_USER="bob").user == "bob"


def test_a_profile_of_a_cluster_has_no_user_by_itself(tmp_path: Path) -> None:
    assert load(tmp_path, "profiles: {lab: {}}", profile="lab").user is None


@pytest.mark.parametrize(
    ("login", "user"), [("John.Doe", "john-doe"), ("_x_", "x"), ("a" * 40, "a" * 32), ("ДИМА", None), ("-", None)]
)
def test_login_names_become_users(login: str, user: str | None) -> None:
    assert login_user({"LOGNAME": login}) == user


@pytest.mark.parametrize(
    ("team", "message"),
    [
        ("profiles:\n  lab:\n    usr: x\n", r"replayctl.yaml:3: unknown setting 'usr'; did you mean 'user'"),
        ("profiles:\n  lab:\n    user: a\n    user: b\n", r"replayctl.yaml:4: profiles.lab.user is set twice"),
        ("profiles:\n  lab:\n    user: no\n", r"replayctl.yaml:3: user is no, .* quote it: \"no\""),
        ("profiles:\n  lab:\n    user: 12\n", r"quote it"),
        ("profiles:\n  lab:\n    deploy: {timeout_s: soon}\n", r"deploy.timeout_s is 'soon', expected a number"),
        ("profiles:\n  lab:\n    deploy: {timeout_s: -1}\n", r"above 0"),
        ("profiles:\n  lab:\n    local: {airflow_port: 70000}\n", r"from 1 to 65535"),
        ("profiles:\n  lab:\n    airflow: {url: localhost}\n", r"expected http://host:port"),
        ('profiles:\n  lab:\n    hdfs: {filesystem: "node21:9000"}\n', r"expected hdfs://host:port"),
        ('profiles:\n  lab:\n    hdfs: {filesystem: "hdfs://node21:9000/shared"}\n', r"expected hdfs://host:port"),
        ("profiles:\n  lab:\n    hdfs: {packages: shared}\n", r"expected an absolute path"),
        ("profiles:\n  lab:\n    hdfs: {packages: /shared/../tmp}\n", r"without '\.' and '\.\.'"),
        ("profiles: [lab]\n", r"profiles must be a mapping"),
        ("profiles:\n  lab: 3\n", r"'lab' must be a mapping"),
        ("profile:\n", r"unknown key 'profile'; did you mean 'profiles'"),
        ("profiles: {lab: {\n", r"invalid YAML"),
        ("- a\n", r"expected the keys"),
        ("default_profile: 3\nprofiles: {lab: {}}\n", r"default_profile is 3"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_place(tmp_path: Path, team: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(tmp_path, team, profile="lab")


def test_unknown_profiles_and_variables_are_refused_with_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="profile 'labb' does not exist; did you mean 'lab'"):
        load(tmp_path, "profiles: {lab: {}}", profile="labb")
    with pytest.raises(SettingsError, match="REPLAYCTL_MLFLOW_URI .*did you mean 'REPLAYCTL_MLFLOW_URL'"):
        load(tmp_path, REPLAYCTL_MLFLOW_URI="http://x:1")
    with pytest.raises(SettingsError, match="not a file"):
        load(tmp_path, REPLAYCTL_CONFIG="/no/such/file")


def test_profiles_are_listed_with_their_place(tmp_path: Path) -> None:
    load(tmp_path, "profiles: {lab: {}, local: {user: me}}")
    profiles = list_profiles({"HOME": str(tmp_path / "home")}, tmp_path / "work")
    assert profiles["lab"].startswith("shipped, ")
    assert profiles["lab"].endswith("replayctl.yaml")
    assert set(profiles) == {"lab", "local", "bdcl"}


def test_a_password_shows_nowhere(tmp_path: Path) -> None:
    values = load(tmp_path, REPLAYCTL_AIRFLOW_PASSWORD="hunter2")
    assert values.airflow_password() == "hunter2"
    assert "hunter2" not in repr(values)
    assert str(value_of(values, "airflow.password")) == "***"
    assert f"{Secret('x')}" == "***"


def test_a_password_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    path.chmod(0o640)
    values = load(tmp_path, REPLAYCTL_AIRFLOW_PASSWORD_FILE=str(path))
    with pytest.raises(SettingsError, match="is readable by others") as excinfo:
        values.airflow_password()
    assert excinfo.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    assert values.airflow_password() == "hunter2"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(["team", "user", "env"]), st.from_regex(r"[a-z]{1,8}", fullmatch=True)))
def test_the_last_source_with_a_value_wins(tmp_path_factory: pytest.TempPathFactory, sources: dict[str, str]) -> None:
    tmp_path = tmp_path_factory.mktemp("merge")
    files = {key: f"profiles: {{p: {{user: '{sources[key]}'}}}}" if key in sources else "" for key in ("team", "user")}
    if not any(files.values()):
        files["team"] = "profiles: {p: }"
    environ = {"REPLAYCTL_USER": sources["env"]} if "env" in sources else {}
    values = load(tmp_path, files["team"], files["user"], "p", **environ)
    assert values.user == next((sources[key] for key in ("env", "user", "team") if key in sources), None)


def test_every_setting_has_a_help_and_a_place_in_the_dataclasses(tmp_path: Path) -> None:
    values = load(tmp_path)
    for setting in SETTINGS:
        assert setting.help
        value_of(values, setting.key)


@pytest.mark.parametrize("profile", ["bdcl", "lab"])
def test_a_shipped_profile_asks_only_who_one_is(tmp_path: Path, profile: str) -> None:
    environ = {"HOME": str(tmp_path), "USERNAME_ON_CLUSTER": "alice"}
    settings = load_settings(profile, environ=environ, cwd=tmp_path)
    assert settings.user == "alice"
    folders = find_folders(settings)
    assert str(folders.spark_submit_files).endswith("kaggle_used_cars_dataset/spark_submit_files")
    assert str(folders.spark_submit_files_in_pods) == "/opt/spark_data/spark_submit_files"
    assert "profiles.yaml:" in settings.sources["folders.dags"]


def test_a_teams_file_overrides_a_shipped_profile_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "replayctl.yaml").write_text("profiles: {bdcl: {ssh: {host: gateway}}}")
    settings = load_settings("bdcl", environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    assert settings.ssh.host == "gateway"
    assert settings.images.worker == "node2.bdcl:5000/airflow-worker"
