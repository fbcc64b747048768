"""Host names of the cluster, as its programs write them, and the services and pods that they name."""

import pytest

from replayctl.cluster.api import Endpoint, Kubernetes, Pod, _pod
from replayctl.errors import AuthFailed, Unreachable
from replayctl.forwarding.addresses import AddressBook
from tests.reporters import RecordingReporter


def pod(name: str, *names: str, ports: dict[str, int] | None = None, namespace: str = "spark") -> Pod:
    return Pod(namespace, name, ("main",), True, "Running", ports or {}, (name, *names))


class Cluster:
    def __init__(self) -> None:
        self.trouble: dict[str, Exception] = {}

    def services(self, namespace: str) -> list[tuple[str, tuple[str, ...]]]:
        if namespace in self.trouble:
            raise self.trouble[namespace]
        return {"spark": [("rm", ("10.0.0.1",)), ("nodes", ())], "hdfs": [("namenode", ()), ("rm", ())]}[namespace]

    def pods_of(self, namespace: str) -> list[Pod]:
        if namespace == "hdfs":
            return [pod("namenode-0", "10.1.0.9", namespace="hdfs")]
        return [
            pod("nm-0", "10.1.0.5"),
            pod("dn-x", "node7.example.org", "10.9.9.7", ports={"web": 9864}),
            pod("nm-x", "node7.example.org", "10.9.9.7", ports={"web": 8042}),
        ]


def book(cluster: Cluster, reporter: RecordingReporter | None = None) -> AddressBook:
    return AddressBook(cluster, ["spark", "hdfs"], reporter or RecordingReporter())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "port", "endpoint"),
    [
        ("rm", 8088, Endpoint("spark", "service", "rm", "8088")),
        ("RM.spark", 8088, Endpoint("spark", "service", "rm", "8088")),
        ("rm.spark.svc", 8088, Endpoint("spark", "service", "rm", "8088")),
        ("rm.spark.svc.cluster.local", 8088, Endpoint("spark", "service", "rm", "8088")),
        ("rm.spark.svc.corp.example.", 8088, Endpoint("spark", "service", "rm", "8088")),
        ("10.0.0.1", 8088, Endpoint("spark", "service", "rm", "8088")),
        ("rm.hdfs.svc.cluster.local", 1, Endpoint("hdfs", "service", "rm", "1")),
        ("nm-0", 8042, Endpoint("spark", "pod", "nm-0", "8042")),
        ("10.1.0.5", 8042, Endpoint("spark", "pod", "nm-0", "8042")),
        ("nm-0.nodes.spark.svc.cluster.local", 8042, Endpoint("spark", "pod", "nm-0", "8042")),
        # Pods in their node's network: the one that has the port, else any of that node.
        ("node7.example.org", 8042, Endpoint("spark", "pod", "nm-x", "8042")),
        ("10.9.9.7", 9864, Endpoint("spark", "pod", "dn-x", "9864")),
        ("node7.example.org", 4040, Endpoint("spark", "pod", "dn-x", "4040")),
        ("namenode-0", 9870, Endpoint("hdfs", "pod", "namenode-0", "9870")),
        ("nm-0.example.org", 8042, None),
        ("rm.example.org", 8088, None),
        ("example.org", 80, None),
        ("rm", 0, None),
        ("rm", 99_999, None),
    ],
)
def test_names_lead_to_services_and_pods(host: str, port: int, endpoint: Endpoint | None) -> None:
    assert book(Cluster()).find(host, port) == endpoint


def test_a_bare_name_is_taken_from_where_it_was_read() -> None:
    assert book(Cluster()).find("rm", 1, near="hdfs") == Endpoint("hdfs", "service", "rm", "1")


def test_a_namespace_without_permission_counts_as_empty_and_is_reported_once() -> None:
    cluster, reporter = Cluster(), RecordingReporter()
    cluster.trouble["spark"] = AuthFailed("alice may not list services")
    address_book = book(cluster, reporter)
    for _ in range(3):
        address_book._read_at = float("-inf")
        assert address_book.find("nm-0", 8042) is None
        assert address_book.find("namenode", 9870) is not None
    (note,) = reporter.messages("note")
    assert "cannot look up names in namespace spark" in note


def test_a_cluster_that_is_away_is_asked_once_in_a_while() -> None:
    cluster = Cluster()
    address_book = book(cluster)
    assert address_book.find("nm-0", 8042) is not None
    cluster.trouble = {"spark": Unreachable("away")}
    address_book._read_at = float("-inf")
    with pytest.raises(Unreachable):
        address_book.find("nm-0", 8042)
    # What was known before goes on to be good.
    assert address_book.find("nm-0", 8042) is not None


def test_pods_that_have_ended_have_no_address() -> None:
    def item(name: str, phase: str, ready: str) -> dict:
        status = {"phase": phase, "podIP": "10.1.0.7", "conditions": [{"type": "Ready", "status": ready}]}
        return {"metadata": {"name": name, "namespace": "spark"}, "spec": {"containers": []}, "status": status}

    class Api(Kubernetes):
        def __init__(self) -> None:
            pass

        def get(self, path: str, what: str, parameters: object = None) -> dict:
            items = [item("a-done", "Succeeded", "False"), item("b-starts", "Running", "False")]
            return {"items": [*items, item("c-serves", "Running", "True"), item("d-broken", "Failed", "False")]}

    assert [pod.name for pod in Api().pods_of("spark")] == ["c-serves", "b-starts"]
    assert _pod(item("x", "Running", "True")).names == ("x", "10.1.0.7")
