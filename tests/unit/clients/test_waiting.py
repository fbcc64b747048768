"""What applications wait for, in the words of a real ResourceManager."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.clients import resource_manager
from replayctl.clients.resource_manager import ResourceManager
from replayctl.clients.waiting import Ask, Resources, waiting_for_containers, waiting_to_start
from replayctl.errors import UsageProblem

DATE = "[Wed Nov 25 21:16:57 +0000 2026] "
ADDED = "Application is added to the scheduler and is not yet activated. "
REQUEST = {
    "priority": 0,
    "resourceName": "*",
    "capability": {"memory": 1536, "vCores": 1},
    "numContainers": 1,
    "nodeLabelExpression": "",
}
LIMITS = (
    " Details : AM Partition = <DEFAULT_PARTITION>; AM Resource Request = <memory:1536, vCores:1>; "
    "Queue Resource Limit for AM = <memory:1280, vCores:1>; "
    "User AM Resource Limit of the queue = <memory:640, vCores:1>; "
    "Queue AM Resource Usage = <memory:1024, vCores:1>; "
)


def test_a_full_queue_is_reported_with_its_amounts() -> None:
    waits = waiting_to_start(f"{DATE}{ADDED}Queue's AM resource limit exceeded. {LIMITS}", "root.default", [REQUEST])
    assert waits.reason == "Queue's AM resource limit exceeded"
    assert waits.asks == (Ask(1, Resources(1536, 1), ""),)
    assert (waits.limit, waits.in_use) == (Resources(1280, 1), Resources(1024, 1))
    assert str(waits) == (
        "Queue's AM resource limit exceeded (requests 1536 MB, 1 core; limit 1280 MB, 1 core; in use 1024 MB, 1 core; "
        "queue root.default, partition <DEFAULT_PARTITION>)"
    )


def test_a_users_limit_is_the_users() -> None:
    waits = waiting_to_start(f"{DATE}{ADDED}User's AM resource limit exceeded. {LIMITS}", "root.default", ())
    assert waits.limit == Resources(640, 1)
    assert waits.asks == (Ask(1, Resources(1536, 1), ""),)


@pytest.mark.parametrize(
    ("diagnostics", "reason"),
    [
        ("", "accepted, but no container is allocated yet"),
        (f"{DATE}{ADDED}", "accepted, but no container is allocated yet"),
        (
            f"{DATE}{ADDED}Skipping AM assignment as cluster resource is empty.  Details : AM Partition = <X>; ",
            "Skipping AM assignment as cluster resource is empty",
        ),
        (
            f"{DATE}Application is Activated, waiting for resources to be assigned for AM.  Details : "
            "AM Partition = x ; "
            "Queue's max capacity (absolute resource) = <memory:6144, vCores:8> ; "
            "Queue's used capacity (absolute resource) = <memory:6144, vCores:3> ; ",
            "Application is Activated, waiting for resources to be assigned for AM",
        ),
        (
            f"{DATE}AM container is launched, waiting for AM container to Register with RM",
            "AM container is launched, waiting for AM container to Register with RM",
        ),
        ("a text of another scheduler", "a text of another scheduler"),
    ],
)
def test_other_reasons_are_passed_on(diagnostics: str, reason: str) -> None:
    waits = waiting_to_start(diagnostics, "q", [REQUEST])
    assert waits.reason == reason
    assert "requests 1536 MB, 1 core" in str(waits)
    if "absolute" in diagnostics:
        assert (waits.limit, waits.in_use) == (Resources(6144, 8), Resources(6144, 3))


def test_open_requests_of_one_that_runs_are_summed_and_not_counted_by_node() -> None:
    rows = [
        {**REQUEST, "numContainers": 3, "nodeLabelExpression": "gpu"},
        {**REQUEST, "numContainers": 2, "nodeLabelExpression": "gpu", "priority": 1},
        {**REQUEST, "numContainers": 3, "resourceName": "node-7"},
        {**REQUEST, "numContainers": 0},
    ]
    waits = waiting_for_containers("q", rows)
    assert waits is not None
    assert waits.asks == (Ask(5, Resources(1536, 1), "gpu"),)
    assert "5 containers of 1536 MB, 1 core on nodes labelled gpu" in str(waits)
    assert waiting_for_containers("q", rows[2:]) is None


@given(st.text(), st.lists(st.dictionaries(st.sampled_from(sorted(REQUEST)), st.none() | st.integers() | st.text())))
def test_any_words_and_requests_are_read(diagnostics: str, rows: list[dict[str, Any]]) -> None:
    assert str(waiting_to_start(diagnostics, "q", rows))
    waiting_for_containers("q", rows)


class Manager(ResourceManager):
    """Answers with one application for each state, and keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.parameters: dict[str, str] = {}

    def json(self, path: str, what: str, parameters: Any = None) -> dict[str, Any]:
        self.parameters = dict(parameters or {})
        common = {"queue": "root.q", "resourceRequests": [REQUEST]}
        rows = [
            {"id": f"application_1_{number:04}", "state": state, "startedTime": 1000 + number, **common}
            for number, state in enumerate(resource_manager.STATES)
        ]
        return {"apps": {"app": rows}}


def test_applications_are_asked_for_without_a_limit_and_say_what_they_wait_for() -> None:
    manager = Manager()
    apps = manager.applications()
    # With one, the ResourceManager stops after the first that it meets, in no order.
    assert "limit" not in manager.parameters
    assert [app.started for app in apps] == sorted((app.started for app in apps), reverse=True)
    waits = {app.state: app.waits_for for app in apps}
    assert {state for state, why in waits.items() if why} == {*waits} - resource_manager.FINAL_STATES
    assert {app.state for app in apps if app.is_waiting} == {"NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED"}


def test_a_state_is_the_one_that_is_shown_or_yarns_own() -> None:
    assert resource_manager.states_with({resource_manager.state("succeeded")}) == ["FINISHED"]
    assert resource_manager.states_with({"FAILED", "RUNNING"}) == ["FAILED", "FINISHED", "RUNNING"]
    assert resource_manager.states_with(set()) == []
    with pytest.raises(UsageProblem, match="TIRED"):
        resource_manager.state("TIRED")
