"""exec and forwards on a real Kubernetes, as a user with no more rights than the documented ones."""

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayctl.cluster.api import Kubernetes, Pod, container_of, parse_endpoint
from replayctl.cluster.kubeconfig import find_cluster
from replayctl.cluster.streams import Executed, execute
from replayctl.errors import AuthFailed, NotFound, NotReady, OperationFailed, TimedOut, Unreachable
from replayctl.forwarding.tunnel import open_tunnel
from tests.conftest import ROOT
from tests.reporters import SilentReporter

from .lab import NAMESPACE, STATE, Lab, why_not

pytestmark = [pytest.mark.integration, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]

SOAK = bool(os.environ.get("SOAK"))
SERVER = f"{NAMESPACE}/svc/server:80"


@pytest.fixture
def pod(lab: Lab, cluster: Kubernetes) -> Pod:
    lab.wait_for_server()
    return cluster.ready_pod(parse_endpoint(SERVER))


@pytest.fixture(params=["one tunnel", "a WebSocket each"])
def address(
    lab: Lab, cluster: Kubernetes, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    if request.param != "one tunnel":
        # As with a server before Kubernetes 1.31.
        monkeypatch.setattr("replayctl.cluster.tunnels._OFFERED", ("v4.channel.k8s.io",))
    lab.wait_for_server()
    with open_tunnel(cluster, parse_endpoint(SERVER), SilentReporter()) as url:
        yield url


def run(cluster: Kubernetes, pod: Pod, *argv: str, **options: object) -> tuple[Executed, bytes, bytes]:
    out, err = bytearray(), bytearray()
    result = execute(cluster, pod, container_of(pod, None), argv, on_stdout=out.extend, on_stderr=err.extend, **options)  # type: ignore[arg-type]
    return result, bytes(out), bytes(err)


def test_exec_separates_streams_and_returns_the_exit_code(cluster: Kubernetes, pod: Pod) -> None:
    result, out, err = run(cluster, pod, "sh", "-c", "printf 'ф\\0ю'; printf wrong >&2; exit 17")
    assert (result.exit_code, out.decode(), err) == (17, "ф\0ю", b"wrong")
    result, out, _ = run(cluster, pod, "echo", "$HOME; rm -rf /", "two words", "'\"")
    assert out == b"$HOME; rm -rf / two words '\"\n"


def test_exec_returns_every_byte_of_large_output(cluster: Kubernetes, pod: Pod) -> None:
    code = "import sys; block = bytes(range(256)) * 4096\nfor _ in range(64): sys.stdout.buffer.write(block)"
    result, out, _ = run(cluster, pod, "python3", "-c", code)
    assert result == Executed(0, 64 << 20, 0)
    assert hashlib.sha256(out).digest() == hashlib.sha256(bytes(range(256)) * 4096 * 64).digest()


def test_exec_passes_stdin_on_to_its_end(cluster: Kubernetes, pod: Pod) -> None:
    text = os.urandom(3_000_000)
    _, out, _ = run(cluster, pod, "sha256sum", stdin=text)
    assert out.split()[0].decode() == hashlib.sha256(text).hexdigest()


def test_exec_says_what_cannot_be_run_and_what_takes_too_long(cluster: Kubernetes, pod: Pod) -> None:
    with pytest.raises(OperationFailed, match="no-such-program cannot be run") as excinfo:
        run(cluster, pod, "no-such-program")
    assert "not found" in (excinfo.value.details or "")
    with pytest.raises(TimedOut, match="did not end within 1 s"):
        run(cluster, pod, "sleep", "60", timeout_s=1)


def test_exec_that_is_cut_is_never_a_short_success(lab: Lab, cluster: Kubernetes, pod: Pod) -> None:
    received = [0]

    def take(data: bytes) -> None:
        if received[0] < 5_000_000 <= received[0] + len(data):
            lab.kubectl("-n", NAMESPACE, "delete", "pod", pod.name, "--force", "--grace-period=0", "--wait=false")
        received[0] += len(data)

    argv = ["sh", "-c", "while :; do head -c 1000000 /dev/zero; sleep 0.05; done"]
    try:
        result = execute(
            cluster, pod, container_of(pod, None), argv, on_stdout=take, on_stderr=lambda _: None, timeout_s=60
        )
    except Unreachable as error:
        assert f"{received[0]} bytes of stdout" in str(error)  # noqa: PT017 - one of two right ends
    else:
        # Killed with its pod, the program ends by a signal.
        assert result.exit_code != 0


def test_each_missing_thing_is_named(lab: Lab, cluster: Kubernetes, pod: Pod) -> None:
    with pytest.raises(NotFound, match=r"deployment/nothing does not exist"):
        cluster.ready_pod(parse_endpoint(f"{NAMESPACE}/deploy/nothing"))
    with pytest.raises(NotFound, match="has no container 'other'") as excinfo:
        container_of(pod, "other")
    assert "use one of: server" in (excinfo.value.hint or "")
    with pytest.raises(NotFound, match="has no TCP port 81"):
        cluster.port_of(parse_endpoint(f"{NAMESPACE}/svc/server:81"), pod)
    assert cluster.port_of(parse_endpoint(f"{NAMESPACE}/svc/server:web"), pod) == 8000
    lab.kubectl("-n", NAMESPACE, "create", "deployment", "broken", "--image=lab/no-such-image:1")
    try:
        deadline = time.monotonic() + 30
        while True:
            with pytest.raises((NotFound, NotReady)) as waiting:
                cluster.ready_pod(parse_endpoint(f"{NAMESPACE}/deploy/broken"))
            if "ImagePull" in str(waiting.value):
                break
            assert time.monotonic() < deadline, waiting.value
            time.sleep(0.2)
        lab.kubectl("-n", NAMESPACE, "scale", "deploy/broken", "--replicas=0")
        while "has no pod" not in str(waiting.value):
            assert time.monotonic() < deadline + 30
            with pytest.raises((NotFound, NotReady)) as waiting:
                cluster.ready_pod(parse_endpoint(f"{NAMESPACE}/deploy/broken"))
    finally:
        lab.kubectl("-n", NAMESPACE, "delete", "deployment", "broken", "--wait=false")


def test_a_missing_right_is_named_with_its_verb_and_resource(lab: Lab, pod: Pod, tmp_path: Path) -> None:
    nobody = Kubernetes(find_cluster(lab.user("nobody", tmp_path, forward=False, execute=False), None, {}))
    with pytest.raises(
        AuthFailed, match=rf"system:serviceaccount:{NAMESPACE}:nobody may not get services in namespace"
    ):
        nobody.ready_pod(parse_endpoint(SERVER))
    reader = Kubernetes(find_cluster(lab.user("reader", tmp_path, execute=False), None, {}))
    with pytest.raises(AuthFailed, match=r"reader may not \w+ pods/exec in namespace"):
        run(reader, pod, "true")
    stranger = json.loads((tmp_path / "kubeconfig-nobody").read_text())
    stranger["users"][0]["user"]["token"] = "not-a-token"
    (tmp_path / "stranger").write_text(json.dumps(stranger))
    with pytest.raises(AuthFailed, match="does not accept your credentials"):
        Kubernetes(find_cluster(tmp_path / "stranger", None, {})).ready_pod(parse_endpoint(SERVER))
    stranger["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "stranger").write_text(json.dumps(stranger))
    with pytest.raises(Unreachable, match="cannot be reached"):
        Kubernetes(find_cluster(tmp_path / "stranger", None, {})).ready_pod(parse_endpoint(SERVER))


def test_several_files_are_merged_as_kubectl_merges_them(lab: Lab, tmp_path: Path) -> None:
    def row(kind: str, name: str, **values: object) -> dict[str, object]:
        return {"name": name, kind: values}

    documents: list[dict[str, object]] = [
        {"contexts": [row("context", "c", cluster="c", user="u", namespace="first")]},
        {
            **{"current-context": "c", "users": [row("user", "u", **{"client-certificate": "c", "client-key": "k"})]},
            "contexts": [row("context", "c", cluster="d", user="u", namespace="second")],
            "clusters": [row("cluster", "c", server="https://second:1")],
        },
        {
            **{"current-context": "d", "users": [row("user", "u", token="third-token")]},
            "clusters": [row("cluster", "c", server="https://third:1", **{"tls-server-name": "third"})],
        },
    ]
    paths = [tmp_path / "missing", tmp_path / "empty"]
    paths[1].write_text("")
    for number, document in enumerate(documents):
        folder = tmp_path / str(number)
        folder.mkdir()
        new_key = ["-newkey", "rsa:2048", "-nodes", "-keyout", folder / "k", "-out", folder / "c", "-subj", "/CN=u"]
        subprocess.run(["openssl", "req", "-x509", *new_key], check=True, capture_output=True)
        paths.append(folder / "config")
        paths[-1].write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **document}))
    environ = {"KUBECONFIG": os.pathsep.join(map(str, paths)), "HOME": str(tmp_path)}
    command = [STATE / "bin" / "kubectl", "config", "view", "--minify", "-o", "json"]
    theirs = json.loads(subprocess.run(command, env=environ, check=True, capture_output=True).stdout)
    ours = find_cluster(None, None, environ)
    assert ours.context == theirs["current-context"] == "c"
    assert [ours.namespace] == [context["context"]["namespace"] for context in theirs["contexts"]] == ["first"]
    assert [ours.server] == [entry["cluster"]["server"] for entry in theirs["clusters"]] == ["https://second:1"]
    assert ours.server_name is None
    # kubectl, too, leaves the third file's token out; ours were read from the second one's folder.
    assert theirs["users"][0]["user"] == {"client-certificate": "c", "client-key": "k"}
    assert ours.headers() == []


def test_whom_to_act_as_is_who_the_server_answers(lab: Lab, tmp_path: Path) -> None:
    document = json.loads(lab.kubectl("config", "view", "--raw", "-o", "json"))
    document["users"][0]["user"] |= {"as": "eve", "as-groups": ["system:masters"]}
    (tmp_path / "config").write_text(json.dumps(document))
    assert Kubernetes(find_cluster(tmp_path / "config", None, {})).pods_of("kube-system") is not None
    document["users"][0]["user"]["as-groups"] = []
    (tmp_path / "config").write_text(json.dumps(document))
    with pytest.raises(AuthFailed, match="eve may not list pods in namespace kube-system"):
        Kubernetes(find_cluster(tmp_path / "config", None, {})).pods_of("kube-system")


def digest(url: str, size: int) -> str:
    hasher = hashlib.sha256()
    with urllib.request.urlopen(f"{url}/bytes/{size}", timeout=120) as page:
        while data := page.read(1 << 16):
            hasher.update(data)
    return hasher.hexdigest()


def test_many_downloads_at_once_bring_every_byte(address: str) -> None:
    size = 16 << 20
    block = bytes(range(256)) * 256
    expected = hashlib.sha256(block * (size // len(block))).hexdigest()
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        digests = list(pool.map(lambda _: digest(address, size), range(64 if SOAK else 24)))
    assert set(digests) == {expected}


def test_what_is_sent_arrives_whole(address: str) -> None:
    body = os.urandom(24 << 20)
    with contextlib.closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)) as connection:
        for _ in range(2):
            connection.request("POST", "/", body)
            assert connection.getresponse().read().decode() == hashlib.sha256(body).hexdigest()


def raw(address: str, request: bytes) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(request)
    return connection


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(1 << 20):
        # The whole of it would not fit into memory, should it never end.
        parts = [*parts[-7:], data]
    return b"".join(parts)


def test_a_client_that_has_finished_sending_still_gets_its_answer(address: str) -> None:
    with raw(address, b"GET /slow/2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as connection:
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).endswith(b"\r\n\r\nlate\n")


def test_the_servers_close_comes_after_its_last_byte(address: str) -> None:
    with raw(address, b"GET /close/3000000 HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        text = b""
        while data := connection.recv(1 << 16):
            text += data
        assert len(text.partition(b"\r\n\r\n")[2]) == 3_000_000


def test_a_reader_that_stops_keeps_nobody_waiting_and_loses_nothing(address: str) -> None:
    size = 256 << 20
    request = b"GET /close/%d HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as open_connections:
        # As many as share a tunnel, and all of them begin.
        stopped = [open_connections.enter_context(raw(address, request % size)) for _ in range(6)]
        first = [connection.recv(1 << 16) for connection in stopped]
        assert all(first)
        for _ in range(20):
            assert digest(address, 100_000)
        digest(address, 32 << 20)
        text = first[0]
        received = len(text.partition(b"\r\n\r\n")[2])
        while data := stopped[0].recv(1 << 20):
            received += len(data)
        assert received == size


@pytest.mark.parametrize("how", [("--force", "--grace-period=0"), ()])
def test_a_connection_that_loses_its_pod_is_reset_and_the_next_is_served(
    lab: Lab, address: str, how: tuple[str, ...]
) -> None:
    (name,) = lab.server_pods()
    with raw(address, b"GET /bytes/4000000000 HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        for _ in range(20):
            assert connection.recv(1 << 20)
        lab.kubectl("-n", NAMESPACE, "delete", name, "--wait=false", *how)
        with pytest.raises(ConnectionResetError):
            read_all(connection)
    with urllib.request.urlopen(f"{address}/pod", timeout=60) as page:
        assert page.read().decode().strip() != name.partition("/")[2]


def test_requests_go_on_through_restarts_of_the_pod(lab: Lab, address: str) -> None:
    """Each deleted pod costs failed requests at most, never a hanging one; the listener stays."""
    count = 50 if SOAK else 3
    late = []
    for _ in range(count):
        (name,) = lab.server_pods()
        lab.kubectl("-n", NAMESPACE, "delete", name, "--wait=false", "--force", "--grace-period=0")
        lab.wait_for_server(after=name)
        ready = time.monotonic()
        deadline = ready + 30
        # The processes of a pod may outlive it in the API for a moment, and go on to serve an open tunnel.
        server = ""
        while server in ("", name.partition("/")[2]):
            assert time.monotonic() < deadline
            try:
                with urllib.request.urlopen(f"{address}/pod", timeout=10) as page:
                    server = page.read().decode().strip()
            except TimeoutError:
                pytest.fail("a request hung")
            except OSError:
                continue
        late.append(time.monotonic() - ready)
    print(
        f"\n{count} restarts: the next request served after {max(late):.2f} s at most, "
        f"{sorted(late)[count // 2]:.2f} s usually"
    )


def call(home: Path, kubeconfig: Path, *argv: str) -> tuple[int, dict, str]:
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig)}
    command = [sys.executable, "-m", "replayctl", "--output", "json", *argv]
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    return result.returncode, json.loads(result.stdout), result.stderr


def test_forwards_in_the_background_are_listed_and_stopped(lab: Lab, kubeconfig: Path, tmp_path: Path) -> None:
    lab.wait_for_server()
    code, started, _ = call(tmp_path, kubeconfig, "port-forward", SERVER, "yarn", "--port", "auto", "--detach")
    assert code == 0
    try:
        for url in started["data"]["forwards"].values():
            with urllib.request.urlopen(url, timeout=30) as page:
                assert page.status == 200
        (listed,) = call(tmp_path, kubeconfig, "forwards", "list")[1]["data"]["running"]
        assert listed["id"] == started["data"]["id"]
        port = started["data"]["forwards"]["yarn"].rpartition(":")[2]
        code, conflict, _ = call(tmp_path, kubeconfig, "port-forward", f"yarn={port}")
        assert code == 7
        assert f"(process {listed['pid']})" in conflict["errors"][0]["message"]
        # A note of a process whose number is another's by now.
        note = tmp_path / ".local/state/replayctl/forwards/00000000.json"
        note.write_text(json.dumps({"pid": os.getpid(), "started": 1.0, "profile": "local", "addresses": {}}))
        assert len(call(tmp_path, kubeconfig, "forwards", "list")[1]["data"]["running"]) == 1
        assert not note.exists()
    finally:
        code, stopped, _ = call(tmp_path, kubeconfig, "forwards", "stop", "--all")
    assert stopped["data"]["stopped"] == [started["data"]["id"]]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(started["data"]["forwards"]["yarn"], timeout=10)


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_what_cannot_be_forwarded_is_refused_before_an_address_is_shown(
    lab: Lab, kubeconfig: Path, tmp_path: Path, detach: tuple[str, ...]
) -> None:
    """The same in the background, where the error is another process's."""

    def endpoint(config: Path, target: str) -> tuple[int, str, str]:
        code, document, _ = call(tmp_path, config, "port-forward", target, *detach)
        assert document["data"] is None
        return code, document["errors"][0]["code"], document["errors"][0]["message"]

    any_port = f"{NAMESPACE}/svc/server"
    code, word, message = endpoint(kubeconfig, f"{NAMESPACE}/svc/nothing:80")
    assert (code, word) == (6, "not-found")
    assert "nothing:80 does not exist" in message
    code, word, message = endpoint(kubeconfig, f"{any_port}:81=auto")
    assert (code, word, message) == (6, "not-found", f"service {NAMESPACE}/server has no TCP port 81")
    code, word, message = endpoint(kubeconfig, f"{NAMESPACE}/deploy/server:metrics=auto")
    assert (code, word) == (6, "not-found")
    assert "has no port named 'metrics'" in message
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        code, word, message = endpoint(kubeconfig, f"{any_port}:80={occupant.getsockname()[1]}")
    assert (code, word) == (7, "conflict")
    assert "is in use by" in message
    looker = lab.user("looker", tmp_path, forward=False, execute=False)
    words = ("create", "role", "look", "--verb=get,list", "--resource=pods,services,deployments.apps")
    lab.kubectl("-n", NAMESPACE, *words, check=False)
    account = f"--serviceaccount={NAMESPACE}:looker"
    lab.kubectl("-n", NAMESPACE, "create", "rolebinding", "look", "--role=look", account, check=False)
    code, word, message = endpoint(looker, f"{any_port}:80=auto")
    assert (code, word) == (4, "auth")
    name = f"system:serviceaccount:{NAMESPACE}:looker"
    assert message == f"{name} may not get pods/portforward in namespace {NAMESPACE}"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_forward_ends_clean_when_it_is_asked_to(
    lab: Lab, kubeconfig: Path, tmp_path: Path, number: int, code: int
) -> None:
    lab.wait_for_server()
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig)}
    command = [sys.executable, "-m", "replayctl", "--output", "json", "port-forward", SERVER, "--port", "auto"]
    running = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout
    url = json.loads(running.stdout.readline())["data"]["forwards"][SERVER]
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError), raw(url, b"GET /bytes/4000000 HTTP/1.1\r\nHost: x\r\n\r\n") as busy:
                busy.settimeout(5)
                while busy.recv(1 << 16):
                    pass

    # Traffic, so that the signal arrives in the middle of it.
    loads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
    with raw(url, b"GET /slow/30 HTTP/1.1\r\nHost: x\r\n\r\n") as waiting:
        for thread in loads:
            thread.start()
        time.sleep(1)
        running.send_signal(number)
        with pytest.raises(ConnectionResetError):
            read_all(waiting)
    _, stderr = running.communicate(timeout=30)
    ended.set()
    assert running.returncode == code
    assert "Traceback" not in stderr
