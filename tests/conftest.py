"""Every test starts in an empty home with a clean environment. Standard library and pytest only: all tiers use this."""

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Read before the environment is cleaned: the environments that the test run has made.
CACHE_DIR = os.environ.get("REPLAYCTL_CACHE_DIR")
_OURS = ("REPLAYCTL_", "USERNAME_ON_CLUSTER", "KUBECONFIG", "XDG_", "AIRFLOW", "MLFLOW_")

# Children inherit what is ignored, as these are when the tests themselves are started by nohup or in a script by &.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home, nobody's settings, a fixed width and no colour; returns the home."""
    for name in list(os.environ):
        if name.startswith(_OURS):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOGNAME", "tester")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    return home
