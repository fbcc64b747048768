"""Which releases use a package, from what others may have written."""

import json

import pytest

from replayctl.publishing.package_uses import uses_of
from replayctl.storage.answers import Record
from replayctl.storage.packages import StoredPackage


def deployment(release: str, document: object) -> Record:
    return Record("deployment", release, json.dumps(document))


def test_wheels_and_the_environment_are_in_use() -> None:
    uses = uses_of(
        [
            Record("published", "alice/r_2"),
            deployment("alice/r_1", {"packages": {"model": {"path": "/f/p_aa/model.jar", "digest": "aa"}}}),
            deployment("alice/r_2", {"packages": {"model": {"digest": "aa"}}, "python": {"digest": "bb"}}),
            deployment("alice/r_3", {}),
        ]
    )
    assert uses.of(StoredPackage("p_aa", "model.jar", 1)) == ("alice/r_1", "alice/r_2 (published)")
    assert uses.of(StoredPackage("p_bb", "python.tar.gz", 1)) == ("alice/r_2 (published)",)
    assert uses.of(StoredPackage("p_cc", "other.jar", 1)) == ()


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        *((text, ("carol", "bob")) for text in ("", "[]", "{", "[" * 100_000)),
        *((text, ("carol",)) for text in ('{"packages": [1], "python": "x"}', '{"packages": {"a": {"digest": null}}}')),
    ],
)
def test_documents_of_others_break_nothing(text: str, unread: tuple[str, ...]) -> None:
    good = deployment("alice/r_1", {"python": {"digest": "bb"}})
    uses = uses_of([Record("deployment", "bob/r_1", text), Record("unread", "carol"), good])
    assert uses.of(StoredPackage("p_bb", "python.tar.gz", 1)) == ("alice/r_1",)
    assert uses.unread == unread
