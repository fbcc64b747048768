"""A real Kubernetes with YARN and HDFS, from a folder beside the checkout or from REPLAYCTL_LAB."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

NAMESPACE = "replayctl-tests"
_GIVEN = os.environ.get("REPLAYCTL_LAB")
FOLDER = Path(_GIVEN) if _GIVEN else ROOT.parent / "shared" / "lab"
STATE = Path(os.environ.get("LAB_STATE", "/var/lib/replayctl-lab"))


def why_not() -> str | None:
    if not (FOLDER / "cluster").is_file():
        return f"no lab with a Kubernetes ({FOLDER}); name one by REPLAYCTL_LAB"
    return None if os.geteuid() == 0 else "the lab needs root"


@dataclass
class Lab:
    """The cluster as its administrator, and kubeconfigs of users with fewer rights."""

    folder: Path
    started: bool = False
    started_engine: bool = False

    def run(self, *words: str, data: bytes | None = None, check: bool = True) -> str:
        result = subprocess.run([str(self.folder / "cluster"), *words], input=data, capture_output=True, check=False)
        if check and result.returncode:
            raise AssertionError(f"cluster {' '.join(words)}: {result.stderr.decode()[-2000:]}")
        return result.stdout.decode()

    def kubectl(self, *words: str, data: str | None = None, check: bool = True) -> str:
        return self.run("kubectl", *words, data=data.encode() if data is not None else None, check=check)

    def is_up(self) -> bool:
        return (STATE / "kubeconfig").exists() and self.kubectl("get", "--raw", "/readyz", check=False) == "ok"

    def start(self) -> None:
        if not self.is_up():
            self.run("up")
            self.started = True
        if not self.kubectl("-n", "spark-lama-exps", "get", "deploy/yarn-resourcemanager", "-o", "name", check=False):
            self._start_stack()
        if self.kubectl("get", "namespace", NAMESPACE, "-o", "name", check=False):
            self.kubectl("delete", "namespace", NAMESPACE)
        self.kubectl("create", "namespace", NAMESPACE)
        self.kubectl("apply", "-f", "-", data=(ROOT / "tests" / "integration" / "server.yaml").read_text())
        self.kubectl("-n", NAMESPACE, "rollout", "status", "deploy/server", "--timeout=120s")

    def _start_stack(self) -> None:
        """HDFS and YARN; once more on a new cluster if the image store of this one is broken.

        containerd 1.6 now and then knows a blob of an image that it just took in, but has no file of it
        ("blob not found"). The store does not mend that at a second import, so only a new one helps, and
        only a cluster that was started here may be given up for it.
        """
        try:
            self.run("stack")
        except AssertionError as error:
            if not self.started or "blob not found" not in str(error):
                raise
            warnings.warn(f"a new cluster was started, since: {error}", stacklevel=2)
            self.run("down")
            self.run("up")
            self.run("stack")

    def start_airflow(self) -> None:
        """Airflow beside it, with the engine and the registry that its workers' image comes from."""
        if self.kubectl("-n", "airflow", "get", "deploy/airflow-scheduler", "-o", "name", check=False):
            return
        engine = str(self.folder / "engine")
        self.started_engine = (
            "dockerd running" not in subprocess.run([engine, "status"], capture_output=True, text=True).stdout
        )
        self.run("airflow")

    def look_for_new_dags(self) -> None:
        """Has Airflow look for new files now, if it has no DAG: then it does so every five minutes only."""
        query = ("psql", "-h", "127.0.0.1", "-U", "airflow", "-d", "airflow", "-tAc", "select count(*) from dag")
        if self.kubectl("-n", "airflow", "exec", "deploy/airflow-postgresql", "--", *query).strip() != "0":
            return
        processor = ("-n", "airflow", "exec", "deploy/airflow-scheduler", "-c", "dag-processor", "--")
        self.kubectl(*processor, "sh", "-c", "kill 1")

    def stop(self) -> None:
        self.kubectl("delete", "namespace", NAMESPACE, "--wait=false", check=False)
        if self.started:
            self.run("down")
        if self.started_engine:
            subprocess.run([str(self.folder / "engine"), "down"], capture_output=True, check=False)

    def user(self, name: str, folder: Path, *, forward: bool = True, execute: bool = True) -> Path:
        """A kubeconfig of a service account with the rights of docs/reference/kubernetes-rights.md, or fewer."""
        page = (ROOT / "docs" / "reference" / "kubernetes-rights.md").read_text()
        rights = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
        assert rights
        self.kubectl("apply", "-f", "-", data=rights[1])
        self.kubectl("-n", NAMESPACE, "create", "serviceaccount", name, check=False)
        account = f"--serviceaccount={NAMESPACE}:{name}"
        roles = [*(["replayctl-forward"] if forward else []), *(["replayctl-exec"] if execute else [])]
        for namespace in (NAMESPACE, "spark-lama-exps", "hdfs-3"):
            for role in roles:
                self.kubectl("-n", namespace, "delete", "rolebinding", f"{role}-{name}", "--ignore-not-found")
                self.kubectl(
                    "-n", namespace, "create", "rolebinding", f"{role}-{name}", f"--clusterrole={role}", account
                )
        token = self.kubectl("-n", NAMESPACE, "create", "token", name, "--duration=6h").strip()
        cluster = json.loads(self.kubectl("config", "view", "--raw", "-o", "json"))["clusters"][0]
        document = {
            "current-context": "lab",
            "contexts": [
                {"name": "lab", "context": {"cluster": cluster["name"], "user": name, "namespace": NAMESPACE}}
            ],
            "clusters": [cluster],
            "users": [{"name": name, "user": {"token": token}}],
        }
        path = folder / f"kubeconfig-{name}"
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return path

    def server_pods(self) -> list[str]:
        return self.kubectl("-n", NAMESPACE, "get", "pods", "-l", "app=server", "-o", "name").split()

    def wait_for_server(self, *, after: str | None = None) -> None:
        self.wait_for_pod(NAMESPACE, "app=server", after=after)

    def wait_for_pod(self, namespace: str, selector: str, *, after: str | None = None) -> None:
        """Waits until a pod is ready, and another one than `after` (`pod/NAME`), which was deleted.

        A deployment goes on calling itself rolled out until its controller has seen that a pod is gone.
        """
        deadline = time.monotonic() + 120
        while not (ready := self._ready_pods(namespace, selector)) or after in ready:
            assert time.monotonic() < deadline, f"no pod of {selector} is ready again; ready are {ready}"
            time.sleep(0.1)

    def kill_processes(self, namespace: str, pod: str, word: str = "") -> None:
        """SIGKILL for all that runs in a pod, or has the word in its command line.

        An API that deletes a pod lets its processes live on for a moment.
        """
        uid = self.kubectl("-n", namespace, "get", pod, "-o", "jsonpath={.metadata.uid}")
        killed = 0
        for groups in Path("/proc").glob("[0-9]*/cgroup"):
            with contextlib.suppress(OSError):
                named = word in (groups.parent / "cmdline").read_bytes().decode(errors="replace")
                if named and uid in groups.read_text().replace("_", "-"):
                    os.kill(int(groups.parent.name), signal.SIGKILL)
                    killed += 1
        assert killed, f"{pod} has no processes on this machine"

    def _ready_pods(self, namespace: str, selector: str) -> list[str]:
        pods = json.loads(self.kubectl("-n", namespace, "get", "pods", "-l", selector, "-o", "json"))["items"]
        return [
            f"pod/{pod['metadata']['name']}"
            for pod in pods
            if any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in pod["status"].get("conditions", ())
            )
        ]
