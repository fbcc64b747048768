"""Random sequences of edits, deploys, kills and rollbacks by two users, checked against a model."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dags.dag_entities import Namespace
from replayctl.bundle.release import STORE, Release
from replayctl.errors import Conflict, OperationFailed
from replayctl.storage.target import Target
from tests.publishing import MODULES, deploy, release_of, roll_back, target_of, write_dags

USERS = ("alice", "bob")


class Publishing(RuleBasedStateMachine):
    """The model: for each user the published release, those stored, and whether the folder may have leftovers."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="replayctl model "))
        for name in ("dags", "files"):
            (self.root / name).mkdir()
        (self.root / "dags" / "dag_of_somebody.py").write_text("theirs\n")
        self.published: dict[str, Release | None] = dict.fromkeys(USERS)
        self.stored: dict[str, dict[str, Release]] = {user: {} for user in USERS}
        self.modules = {user: MODULES for user in USERS}
        self.value = 0

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    def target(self, user: str, keep: float = 1.0) -> Target:
        folders = {"dags": str(self.root / "dags"), "files": str(self.root / "files")}
        return target_of({**folders, "owner": user}, keep=keep)

    def edited(self, user: str) -> Release:
        folder = write_dags(self.root / f"own {user}", self.value, modules=self.modules[user])
        return release_of(folder, user)

    @rule(user=st.sampled_from(USERS), modules=st.sets(st.sampled_from(MODULES), min_size=1))
    def edit(self, user: str, modules: set[str]) -> None:
        self.value += 1
        self.modules[user] = tuple(sorted(modules))

    @rule(user=st.sampled_from(USERS))
    def deploy_all(self, user: str) -> None:
        release = self.edited(user)
        before = self.published[user]
        changed = deploy(self.target(user), Namespace(user), release)
        assert changed == (before is None or before.name != release.name)
        self.published[user] = self.stored[user][release.name] = release

    @rule(user=st.sampled_from(USERS), keep=st.floats(0, 0.4))
    def deploy_cut_off(self, user: str, keep: float) -> None:
        release = self.edited(user)
        if self.published[user] is not None and self.published[user].name == release.name:
            return
        with pytest.raises(OperationFailed):
            deploy(self.target(user, keep), Namespace(user), release)

    @rule(user=st.sampled_from(USERS), which=st.integers(0, 5))
    def go_back(self, user: str, which: int) -> None:
        same = [release for release in self.stored[user].values() if release.modules == self.modules_there(user)]
        if not same:
            return
        release = same[which % len(same)]
        roll_back(self.target(user), Namespace(user), release.name, release.modules)
        self.published[user] = release

    @rule(user=st.sampled_from(USERS))
    def change_a_stored_file_by_hand(self, user: str) -> None:
        release = self.published[user]
        if release is None:
            return
        path = self.root / "dags" / STORE / user / release.name / "dag_submit.py"
        text = path.read_bytes()
        path.write_bytes(text + b"# mine\n")
        self.value += 1
        with pytest.raises(Conflict, match="dag_submit.py"):
            deploy(self.target(user), Namespace(user), self.edited(user))
        deploy(self.target(user), Namespace(user), release, force=True)
        assert path.read_bytes() == text

    def modules_there(self, user: str) -> tuple[str, ...]:
        release = self.published[user]
        return release.modules if release else ()

    @invariant()
    def folders_are_as_the_model_says(self) -> None:
        if not hasattr(self, "root"):
            return
        stubs = {"dag_of_somebody.py"}
        for user in USERS:
            release, own = self.published[user], self.root / "dags" / STORE / user
            assert (own / "current").exists() == (release is not None)
            if release is None:
                continue
            stubs |= {f"{module}_{user}.py" for module in release.modules}
            assert (own / "current").read_text() == f"{release.name}\n"
            for stored in self.stored[user].values():
                for file in stored.files:
                    assert (own / stored.name / file.path).read_bytes() == file.content
                assert (self.root / "files" / user / stored.name / f"{stored.name}.zip").exists()
            assert not (own / ".lock").exists()
            lines = (own / "audit.log").read_text().splitlines()
            assert json.loads(lines[-1])["release"] == release.name
        names = {path.name for path in (self.root / "dags").glob("*.py")}
        # A deploy that was cut off may have brought new stubs, which publish nothing; it has taken none away.
        assert names >= stubs
        assert (self.root / "dags" / "dag_of_somebody.py").read_text() == "theirs\n"


TestPublishing = Publishing.TestCase
TestPublishing.settings = settings(
    max_examples=400 if os.environ.get("SOAK") else 15,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
