"""What is known of a pod and of its successor with the same name, as in a stateful set."""

import asyncio
from dataclasses import replace

from replayctl.cluster.api import Endpoint, Pod
from replayctl.forwarding.connection import PodChoice

FORMER = Pod("ns", "web-0", ("main",), True, "Running", {}, life=("uid-1",))
LATTER = replace(FORMER, life=("uid-2",))


class Cluster:
    """A cluster in which the successor has replaced its predecessor."""

    def pods(self, target: Endpoint) -> list[Pod]:
        return [LATTER]


def choice() -> PodChoice:
    return PodChoice(Cluster(), None, Endpoint("ns", "service", "web"))  # type: ignore[arg-type]


def test_the_end_of_a_pod_is_not_that_of_its_successor() -> None:
    async def work() -> list[bool]:
        pods = choice()
        return [await pods.has_died(FORMER), await pods.has_died(LATTER), await pods.has_died(FORMER)]

    assert asyncio.run(work()) == [True, False, True]


def test_those_who_ask_at_the_same_time_each_learn_of_their_own_pod() -> None:
    async def work() -> list[bool]:
        pods = choice()
        return await asyncio.gather(*(pods.has_just_died(pod) for pod in (FORMER, FORMER, LATTER, FORMER)))

    assert asyncio.run(work()) == [True, True, False, True]
