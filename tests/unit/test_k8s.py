"""The front door of the cluster before its first request."""

from pathlib import Path

import pytest

from replayctl import k8s
from replayctl.errors import UsageProblem
from replayctl.settings.load import load_settings


@pytest.mark.parametrize("word", ["airflow", "airflow=9000"])
def test_a_service_of_this_machine_needs_no_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setitem(k8s._LOCAL_PAGES, "airflow", lambda _settings: "http://127.0.0.1:8080")
    settings = load_settings("local", environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    with pytest.raises(UsageProblem, match=r"it is at http://127.0.0.1:8080") as excinfo:
        k8s.plan_forwards([word], settings)
    assert excinfo.value.hint == "run `replayctl open airflow`"
    assert k8s.plan_forwards(["yarn"], settings)[0].name == "yarn"
