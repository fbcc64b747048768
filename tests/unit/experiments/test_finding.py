"""Names as users type them, with the suffix of their namespace or without it."""

import pytest

from dags.dag_entities import Namespace
from replayctl.experiments.finding import plain_name


@pytest.mark.parametrize(
    ("user", "typed", "plain"),
    [
        ("alice", "two_stage", "two_stage"),
        ("alice", "two_stage_alice", "two_stage"),
        # Another's name is not taken apart: it then is a name that does not exist here.
        ("alice", "two_stage_bob", "two_stage_bob"),
        ("alice", "_alice", "_alice"),
        (None, "two_stage_alice", "two_stage_alice"),
    ],
)
def test_the_suffix_may_be_typed_or_not(user: str | None, typed: str, plain: str) -> None:
    assert plain_name(Namespace(user), typed) == plain
