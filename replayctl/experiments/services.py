"""Which Airflow the profile means, and how to sign in there."""

from __future__ import annotations

from replayctl.clients.airflow import AirflowApi
from replayctl.clients.mlflow import MlflowApi
from replayctl.errors import SettingsError
from replayctl.local import stack
from replayctl.settings.declared import Settings
from replayctl.settings.load import LOCAL_PROFILE


def has_airflow(settings: Settings) -> bool:
    """Whether the profile names an Airflow; the local one always has its own."""
    return settings.airflow.url is not None or settings.profile == LOCAL_PROFILE


def find_airflow(settings: Settings) -> AirflowApi:
    """The profile's Airflow; the local stack's unless `airflow.url` is set.

    Raises SettingsError that names the missing key, NotReady when the local stack does not run.
    """
    airflow = settings.airflow
    if airflow.url is None and settings.profile == LOCAL_PROFILE:
        return stack.airflow_api(settings)
    if airflow.url is None:
        raise SettingsError(f"profile {settings.profile!r} has no airflow.url", hint=_hint(settings, "airflow → url"))
    password = settings.airflow_password()
    if airflow.username is None or password is None:
        raise SettingsError(
            f"profile {settings.profile!r} has no airflow.username or no password",
            hint="set airflow.username, and REPLAYCTL_AIRFLOW_PASSWORD or airflow.password_file",
        )
    return AirflowApi(airflow.url, username=airflow.username, password=password)


def find_mlflow(settings: Settings) -> MlflowApi:
    """The profile's MLflow; the local stack's unless `mlflow.url` is set."""
    if settings.mlflow.url is not None:
        return MlflowApi(settings.mlflow.url)
    if settings.profile == LOCAL_PROFILE:
        return MlflowApi(stack.mlflow_url(settings))
    raise SettingsError(f"profile {settings.profile!r} has no mlflow.url", hint=_hint(settings, "mlflow → url"))


def _hint(settings: Settings, where: str) -> str:
    return f"set it in replayctl.yaml under profiles → {settings.profile} → {where}"
