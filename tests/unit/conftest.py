"""What one test makes known to the process is unknown to the next one."""

from collections.abc import Iterator

import pytest

from replayctl.console import secret


@pytest.fixture(autouse=True)
def forgotten_secrets() -> Iterator[None]:
    """The secrets of a test are masked in that test alone."""
    before = set(secret._known)
    yield
    secret._known.intersection_update(before)
