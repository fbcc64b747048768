"""Spark applications for the tests on YARN, and somebody at a workstation who looks after them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.conftest import ROOT

from .lab import Lab

_SESSION = "from pyspark.sql import SparkSession\nspark = SparkSession.builder.getOrCreate()\n"
JOBS = {
    "succeeds": "print('the answer is', spark.range(1000).selectExpr('sum(id)').first()[0])\nspark.stop()\n",
    "driver": "print('before\\x1b[31m')\n{'item': 1}['user_id']\n",
    "executor": (
        "def bad(row):\n    if row == 7:\n        raise ValueError('row 7 is bad')\n    return row\n"
        "print(spark.sparkContext.parallelize(range(10), 2).map(bad).collect())\n"
    ),
    # More than what fits into the buffers on the way.
    "big": "for number in range(256 * 1024):\n    print(str(number).rjust(1023))\n",
    "long": "import time\nfor second in range(600):\n    print('tick', second, flush=True)\n    time.sleep(1)\n",
}
# Its own for each run, so that what an earlier one has left is nobody's.
USER = f"yarn-tests-{os.getpid()}"
_POD = "deploy/yarn-resourcemanager"


@dataclass
class Answer:
    code: int
    document: dict
    stderr: str


@dataclass
class Workstation:
    """Somebody with a kubeconfig of their own."""

    home: Path
    kubeconfig: Path
    user: str = USER
    cwd: Path = ROOT

    @property
    def environ(self) -> dict[str, str]:
        environ = {"HOME": str(self.home), "PATH": os.environ["PATH"], "KUBECONFIG": str(self.kubeconfig)}
        return {**environ, "USERNAME_ON_CLUSTER": self.user}

    def call(self, *argv: str, timeout: float = 180) -> Answer:
        command = [sys.executable, "-m", "replayctl", "--output", "json", *argv]
        result = subprocess.run(
            command, cwd=self.cwd, env=self.environ, capture_output=True, text=True, timeout=timeout, check=False
        )
        lines = result.stdout.splitlines()
        # Several documents are one in a line; a single one may stand over many.
        last = lines[-1] if lines[-1].startswith("{") else result.stdout
        return Answer(result.returncode, json.loads(last), result.stderr)

    def text(self, *argv: str) -> str:
        command = [sys.executable, "-m", "replayctl", *argv]
        result = subprocess.run(command, cwd=self.cwd, env=self.environ, capture_output=True, timeout=180, check=True)
        return result.stdout.decode()


def submit(lab: Lab, jobs: Mapping[str, str] = JOBS, more: Mapping[str, str] = MappingProxyType({})) -> None:
    """Submits the jobs, with `more` of Spark's configuration, and waits for the end of all but the long one."""
    for name, code in jobs.items():
        path = f"/tmp/replayctl-{name}.py"  # noqa: S108 - in a pod of the lab
        lab.kubectl(
            "-n", "spark-lama-exps", "exec", "-i", _POD, "--", "sh", "-c", f"cat > {path}", data=_SESSION + code
        )
        conf = {
            "spark.yarn.tags": f"replay,replayctl-user-{USER}",
            "spark.yarn.jars": "local:/opt/spark/pyspark/jars/*",
            "spark.executor.instances": "1",
            "spark.yarn.maxAppAttempts": "1",
            "spark.driver.memory": "512m",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": "hdfs:///shared/spark-logs",
            "spark.yarn.historyServer.address": "http://yarn-spark-history-server.spark-lama-exps.svc.cluster.local:18080",
            "spark.executor.memory": "512m",
            "spark.yarn.submit.waitAppCompletion": str(name != "long").lower(),
            **more,
        }
        words = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        argv = [
            "spark-submit",
            "--master",
            "yarn",
            "--deploy-mode",
            "cluster",
            "--name",
            f"tests-{name}",
            *words,
            path,
        ]
        lab.kubectl("-n", "spark-lama-exps", "exec", _POD, "--", *argv, check=False)
