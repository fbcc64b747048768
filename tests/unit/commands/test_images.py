"""build-airflow-image and push-airflow-image: what is done, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from replayctl import cli
from replayctl.images import build as building
from replayctl.images import engine as engines
from replayctl.images.engine import LocalImage
from replayctl.images.reference import Reference


class FakeEngine:
    """An engine with the base image; the registry has every image but that."""

    def __init__(self) -> None:
        self.tagged: list[str] = []

    def image(self, name: str) -> LocalImage | None:
        return LocalImage("sha256:base", ("base:1",), (), 10, {}) if name == "base:1" else None

    def architecture(self) -> str:
        return "x86_64"

    def registry_digest(self, reference: Reference) -> str:
        return "sha256:" + "a" * 64

    def tag(self, image: str, reference: Reference) -> None:
        self.tagged.append(str(reference))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(engines, "find_engine", lambda: fake)
    monkeypatch.setattr(building, "build", lambda *_, **__: "sha256:new")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "airflow-worker.Dockerfile").write_text("FROM base:1\n")
    profile = {"user": "alice", "images": {"worker": "registry:5000/worker", "base": "base:1"}}
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"default_profile": "p", "profiles": {"p": profile}}))
    monkeypatch.chdir(tmp_path)
    return fake


def call(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    code = cli.run([*argv, "--output", "json"])
    return code, json.loads(capfd.readouterr().out)


@pytest.mark.parametrize(("options", "status"), [((), "nothing-to-do"), (("--dry-run",), "ok")])
def test_latest_of_an_image_that_only_the_registry_has(
    engine: FakeEngine, capfd: pytest.CaptureFixture[str], options: tuple[str, ...], status: str
) -> None:
    code, document = call(capfd, "build-airflow-image", "--latest", *options)
    assert (code, document["status"], document["data"]["latest"]) == (0, status, False)
    assert "is not tagged as latest" in document["warnings"][0]
    assert engine.tagged == []


def test_latest_of_an_image_that_is_built(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    _, document = call(capfd, "build-airflow-image", "--latest", "--force", "--dry-run")
    assert (document["data"]["latest"], engine.tagged) == (True, [])
    _, document = call(capfd, "build-airflow-image", "--latest", "--force")
    assert (document["data"]["latest"], document["warnings"]) == (True, [])
    assert engine.tagged == ["registry:5000/worker:latest"]


@pytest.mark.parametrize("option", ["--base", "--build-arg", "--docker-dir"])
def test_a_tag_is_not_combined_with_inputs_of_another(
    engine: FakeEngine, capfd: pytest.CaptureFixture[str], option: str
) -> None:
    code, document = call(capfd, "push-airflow-image", "alice-1", option, "A=1")
    assert (code, document["errors"][0]["code"]) == (2, "usage")
