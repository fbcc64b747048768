"""The part of the Kubernetes API that replayctl needs: plain requests, and the pods behind a target.

Its errors distinguish a missing permission (with verb and resource), a missing pod, a pod that is not ready, and a
missing container.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replayctl.cluster.kubeconfig import ClusterAccess, find_cluster, kubeconfig_paths
from replayctl.errors import (
    AuthFailed,
    NotFound,
    NotReady,
    OperationFailed,
    ReplayctlError,
    SettingsError,
    Unreachable,
    UsageProblem,
    in_words,
)
from replayctl.settings.declared import Settings
from replayctl.settings.load import LOCAL_PROFILE

if TYPE_CHECKING:
    import urllib3

_TIMEOUT_S = 15.0
_PAGE = 500
# The addresses of ended pods may belong to other pods by now.
_ENDED = frozenset({"Succeeded", "Failed"})
_KINDS = {
    "svc": "service",
    "service": "service",
    "services": "service",
    "deploy": "deployment",
    "deployment": "deployment",
    "deployments": "deployment",
    "sts": "statefulset",
    "statefulset": "statefulset",
    "statefulsets": "statefulset",
    "po": "pod",
    "pod": "pod",
    "pods": "pod",
}
_NAME = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_TARGET = re.compile(rf"(?P<namespace>{_NAME})/(?P<kind>[a-z]+)/(?P<name>{_NAME})(:(?P<port>[a-z0-9-]{{1,63}}))?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service, deployment, stateful set or pod, optionally with a port."""

    namespace: str
    kind: str
    name: str
    port: str | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod: its containers, and its state, which is the reason if it is not ready.

    `ports` are the named ones. `names` are its host names and addresses in the cluster, including those of its node for
    a pod with hostNetwork. `life` changes when one of its containers ends; `leaving` is true once it is terminating.
    """

    namespace: str
    name: str
    containers: tuple[str, ...]
    ready: bool
    state: str
    ports: Mapping[str, int]
    names: tuple[str, ...] = ()
    life: tuple[str, ...] = ()
    leaving: bool = False


def parse_endpoint(text: str) -> Endpoint:
    """Parses `NAMESPACE/KIND/NAME[:PORT]`. Raises UsageProblem for anything else."""
    match = _TARGET.fullmatch(text)
    if match is None or match["kind"] not in _KINDS or len(match["name"]) > 253 or len(match["namespace"]) > 63:
        raise UsageProblem(
            f"{text!r} is not an endpoint",
            hint="pass NAMESPACE/KIND/NAME:PORT, such as airflow/svc/airflow-webserver:8080 (also deploy, sts, pod)",
        )
    if match["port"] and match["port"].isdigit() and not 0 < int(match["port"]) < 65536:
        raise UsageProblem(
            f"{text!r} has the invalid port {match['port']}", hint="pass a number from 1 to 65535, or a name"
        )
    return Endpoint(match["namespace"], _KINDS[match["kind"]], match["name"], match["port"])


class Kubernetes:
    """A client for one cluster and user, safe for several threads."""

    def __init__(self, access: ClusterAccess) -> None:
        self.access = access
        self._pool: urllib3.PoolManager | None = None

    def get(self, path: str, what: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON answer of a GET; `what` is used in errors. Raises NotFound, AuthFailed, Unreachable."""
        return self._request("GET", f"{path}{'?' + urllib.parse.urlencode(parameters) if parameters else ''}", what)

    def text(self, path: str, what: str) -> str:
        """The answer to a GET as text; raises what `get` raises."""
        return self._answer("GET", path, what, accept="*/*").decode("utf-8", "replace")

    def _request(self, method: str, path: str, what: str, document: object = None) -> dict[str, Any]:
        data = self._answer(method, path, what, document)
        try:
            return dict(json.loads(data))
        except ValueError as error:
            raise OperationFailed(f"cannot read {what} from {self.access.server}: the answer is not JSON") from error

    def _answer(
        self, method: str, path: str, what: str, document: object = None, accept: str = "application/json"
    ) -> bytes:
        import urllib3

        if self._pool is None:
            self._pool = _pool(self.access)
        # A second try, with newer credentials if there are any.
        for _ in range(2):
            headers = urllib3.HTTPHeaderDict([*self.access.headers(), ("Accept", accept)])
            try:
                answer = self._pool.request(
                    method, f"{self.access.server}{path}", headers=headers, json=document, timeout=_TIMEOUT_S
                )
            except urllib3.exceptions.HTTPError as error:
                raise unreachable(self.access, error) from error
            if answer.status != 401:
                break
            self.access.forget()
        if answer.status not in (200, 201):
            raise refusal(answer.status, answer.data, what, self.access)
        return bytes(answer.data)

    def pods(self, target: Endpoint) -> list[Pod]:
        """The pods behind a target, ready ones first. Raises NotFound if the target does not exist."""
        base = f"/api/v1/namespaces/{target.namespace}"
        if target.kind == "pod":
            return [_pod(self.get(f"{base}/pods/{target.name}", str(target)))]
        if target.kind == "service":
            selector = (self.get(f"{base}/services/{target.name}", str(target)).get("spec") or {}).get("selector")
        else:
            document = self.get(
                f"/apis/apps/v1/namespaces/{target.namespace}/{target.kind}s/{target.name}", str(target)
            )
            selector = ((document.get("spec") or {}).get("selector") or {}).get("matchLabels")
        if not selector:
            raise NotFound(f"{target} selects no pods")
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        pods = list(self._list_pods(target.namespace, {"labelSelector": labels}))
        return sorted(pods, key=lambda pod: (not pod.ready, pod.name))

    def pods_of(self, namespace: str) -> list[Pod]:
        """The live pods of a namespace, ready ones first, without those that are terminating or have ended."""
        live = (pod for pod in self._list_pods(namespace, {}) if pod.state not in _ENDED)
        return sorted(live, key=lambda pod: (not pod.ready, pod.name))

    def services(self, namespace: str) -> list[tuple[str, tuple[str, ...]]]:
        """The services of a namespace that select pods: names, with addresses in the cluster."""
        items = self._items(f"/api/v1/namespaces/{namespace}/services", f"services of {namespace}", {})
        specs = ((item["metadata"]["name"], item.get("spec") or {}) for item in items)
        return [(name, _addresses(spec)) for name, spec in specs if spec.get("selector")]

    def ready_pod(self, target: Endpoint) -> Pod:
        """One ready pod. Raises NotFound without any pod, NotReady with the reason if none is ready."""
        pods = self.pods(target)
        if not pods:
            raise NotFound(
                f"{target} has no pod", hint="check that it is not scaled to zero and that its image can be pulled"
            )
        if not pods[0].ready:
            raise NotReady(f"no pod of {target} is ready: {', '.join(f'{pod.name} {pod.state}' for pod in pods[:5])}")
        return pods[0]

    def port_of(self, target: Endpoint, pod: Pod) -> int:
        """The pod's port behind the target's. Raises UsageProblem for a target without one, NotFound if unknown."""
        port = self._port_behind(target)
        if isinstance(port, int):
            return port
        if port not in pod.ports:
            raise NotFound(f"pod {pod.name} has no port named {port!r}, which {target} refers to")
        return pod.ports[port]

    def check_port(self, target: Endpoint) -> None:
        """Raises NotFound if the target or its port does not exist. Pods that are not ready yet are no error."""
        pods = self.pods(target)
        port = self._port_behind(target)
        if isinstance(port, str) and pods:
            self.port_of(target, pods[0])

    def _port_behind(self, target: Endpoint) -> int | str:
        """A pod's port, by number or name."""
        if target.port is None:
            raise UsageProblem(f"{target} has no port", hint=f"pass {target}:PORT")
        if target.kind != "service":
            return int(target.port) if target.port.isdigit() else target.port
        base = f"/api/v1/namespaces/{target.namespace}/services/{target.name}"
        ports = (self.get(base, str(target)).get("spec") or {}).get("ports") or []
        tcp = [port for port in ports if port.get("protocol", "TCP") == "TCP"]
        for port in tcp:
            if target.port in (str(port.get("port")), port.get("name")):
                behind = port.get("targetPort") or port["port"]
                return int(behind) if str(behind).isdigit() else str(behind)
        known = ", ".join(f"{port.get('port')}{f' ({name})' if (name := port.get('name')) else ''}" for port in tcp)
        raise NotFound(
            f"service {target.namespace}/{target.name} has no TCP port {target.port}",
            hint=f"use one of its ports: {known}" if known else None,
        )

    def check_right_to_forward(self, namespace: str) -> None:
        """Raises AuthFailed if the API server allows neither verb; which one it needs depends on its version."""
        try:
            if any(self._may(verb, "pods", "portforward", namespace) for verb in ("get", "create")):
                return
        except (AuthFailed, NotFound, OperationFailed):
            # Without the permission for the review, the first connection shows it.
            return
        raise AuthFailed(
            f"{self._own_name()} may not get pods/portforward in namespace {namespace}",
            hint="ask for a Role with the verbs 'get' and 'create' on 'pods/portforward'; "
            "see docs/reference/kubernetes-rights.md",
        )

    def _may(self, verb: str, resource: str, subresource: str, namespace: str) -> bool:
        attributes = {"namespace": namespace, "verb": verb, "resource": resource, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self._request("POST", path, "the review of your permissions", review)
        return bool((answer.get("status") or {}).get("allowed"))

    def _own_name(self) -> str:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        try:
            status = self._request("POST", path, "your name", review).get("status") or {}
            return str(status["userInfo"]["username"])
        except (AuthFailed, NotFound, OperationFailed, KeyError):
            return f"the user of context {self.access.context}"

    def _list_pods(self, namespace: str, parameters: Mapping[str, str]) -> Iterator[Pod]:
        for item in self._items(f"/api/v1/namespaces/{namespace}/pods", f"pods of {namespace}", parameters):
            # A pod that is being deleted still shows as ready for a while.
            if not item["metadata"].get("deletionTimestamp"):
                yield _pod(item)

    def _items(self, path: str, what: str, parameters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        more = ""
        while True:
            page = self.get(path, what, {**parameters, "limit": str(_PAGE), **({"continue": more} if more else {})})
            yield from page.get("items") or []
            more = (page.get("metadata") or {}).get("continue") or ""
            if not more:
                return


def find_kubernetes(settings: Settings, environ: Mapping[str, str]) -> Kubernetes:
    """The profile's cluster. Raises SettingsError without a kubeconfig for it."""
    paths = kubeconfig_paths(settings.kubernetes.kubeconfig, environ)
    if settings.profile == LOCAL_PROFILE and not any(path.is_file() for path in paths):
        raise SettingsError(
            f"profile {settings.profile!r} has neither Kubernetes nor YARN: it is this machine",
            hint="pass --profile with the name of a cluster's profile; list them: `replayctl settings profiles`",
        )
    return Kubernetes(find_cluster(settings.kubernetes.kubeconfig, settings.kubernetes.context, environ))


def _pool(access: ClusterAccess) -> urllib3.PoolManager:
    import urllib3

    # insecure-skip-tls-verify is the user's decision; kubectl does not warn either.
    urllib3.disable_warnings()
    # Without `block`, a connection beyond maxsize would log a warning to stderr.
    options: dict[str, Any] = {"ssl_context": access.tls, "maxsize": 8, "block": True, "retries": False}
    if access.server_name:
        options["server_hostname"] = access.server_name
    if access.proxy is None:
        return urllib3.PoolManager(**options)
    parts = urllib.parse.urlsplit(access.proxy)
    login = f"{urllib.parse.unquote(parts.username or '')}:{urllib.parse.unquote(parts.password or '')}"
    headers = urllib3.make_headers(proxy_basic_auth=login) if parts.username else None
    return urllib3.ProxyManager(access.proxy, proxy_headers=headers, **options)


def container_of(pod: Pod, container: str | None) -> str:
    """The named container of a pod, or its first one. Raises NotFound with the names for an unknown one."""
    if container is None:
        return pod.containers[0]
    if container not in pod.containers:
        raise NotFound(
            f"pod {pod.namespace}/{pod.name} has no container {container!r}",
            hint=f"use one of: {', '.join(pod.containers)}",
        )
    return container


def unreachable(access: ClusterAccess, error: BaseException) -> Unreachable:
    """The error for an API server that cannot be reached."""
    return Unreachable(
        f"the Kubernetes API at {access.server} (context {access.context}) cannot be reached: {in_words(error)}",
        hint="check the VPN, and run `kubectl get --raw /version` to compare",
    )


def refusal(status: int, body: bytes, what: str, access: ClusterAccess) -> ReplayctlError:
    """The error for an answer other than success, from its status and the Status object in its body."""
    try:
        message = str(json.loads(body).get("message") or "")
    except (ValueError, AttributeError):
        message = body[:300].decode("utf-8", "replace").strip()
    if status == 401:
        return AuthFailed(
            f"the Kubernetes API does not accept your credentials (context {access.context})",
            hint="check whether they have expired: run `kubectl auth whoami`",
        )
    if status == 403:
        match = re.search(r'User "([^"]*)" cannot (\w+) resource "([^"]*)".*?(?:in the namespace "([^"]*)")?$', message)
        if match:
            user, verb, resource, namespace = match.groups()
            where = f" in namespace {namespace}" if namespace else ""
            return AuthFailed(
                f"{user} may not {verb} {resource}{where}",
                hint=f"ask for a Role with the verb {verb!r} on {resource!r}; see docs/reference/kubernetes-rights.md",
                details=message,
            )
        return AuthFailed(f"the Kubernetes API does not allow {what}", details=message)
    if status == 404:
        return NotFound(f"{what} does not exist (context {access.context})", details=message or None)
    return OperationFailed(f"the Kubernetes API refused {what} with status {status}", details=message or None)


def _pod(item: Mapping[str, Any]) -> Pod:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    containers = spec.get("containers") or []
    conditions = {condition.get("type"): condition.get("status") for condition in status.get("conditions") or []}
    ports = {
        str(port["name"]): int(port["containerPort"])
        for container in containers
        for port in container.get("ports") or []
        if port.get("name")
    }
    return Pod(
        namespace=item["metadata"]["namespace"],
        name=item["metadata"]["name"],
        containers=tuple(container["name"] for container in containers),
        ready=conditions.get("Ready") == "True" and not item["metadata"].get("deletionTimestamp"),
        state=_state(status),
        ports=ports,
        names=tuple(_names(item["metadata"]["name"], spec, status)),
        life=(item["metadata"].get("uid", ""), *_lives(status)),
        leaving=bool(item["metadata"].get("deletionTimestamp")),
    )


def _names(name: str, spec: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[str]:
    yield name
    if spec.get("hostname"):
        yield str(spec["hostname"])
    if spec.get("hostNetwork") and spec.get("nodeName"):
        yield str(spec["nodeName"])
    for address in status.get("podIPs") or ([{"ip": status["podIP"]}] if status.get("podIP") else []):
        yield str(address["ip"])


def _addresses(spec: Mapping[str, Any]) -> tuple[str, ...]:
    # "None" for a headless service.
    return tuple(address for address in spec.get("clusterIPs") or () if address != "None")


def _lives(status: Mapping[str, Any]) -> Iterator[str]:
    for container in status.get("containerStatuses") or []:
        running = (container.get("state") or {}).get("running")
        yield f"{container.get('containerID')} {'runs' if running else 'has ended'}"


def _state(status: Mapping[str, Any]) -> str:
    waiting: Sequence[str] = [
        str(((container.get("state") or {}).get("waiting") or {}).get("reason") or "")
        for container in status.get("containerStatuses") or []
    ]
    return next((reason for reason in waiting if reason), str(status.get("phase") or "unknown"))
