"""Real MLflow servers of the tests' own, and a relay that makes them fail. Standard library only."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TROUBLES = ("refuses connections", "loses an answer", "answers 500", "answers 503 by a proxy")


class Mlflow:
    """A real MLflow server of the tests' own."""

    def __init__(self, program: str, folder: Path, port: int | None = None) -> None:
        if port is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        argv = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        argv += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTHON"))}
        environ |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "NO_PROXY": "*"}
        environ["PATH"] = f"{Path(program).parent}{os.pathsep}{environ['PATH']}"
        self._log = (folder / "mlflow.log").open("wb")
        self.process = subprocess.Popen(
            argv, env=environ, cwd=folder, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def wait(self, deadline_s: float = 120.0) -> None:
        deadline = time.monotonic() + deadline_s
        while True:
            assert self.process.poll() is None, "MLflow has ended"
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "MLflow does not answer"
                time.sleep(0.2)

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """Runs of an experiment: id, status, name, tags, params and metrics."""
        answer = self.ask(f"experiments/get-by-name?experiment_name={experiment}")
        request = {"experiment_ids": [answer["experiment"]["experiment_id"]]}
        return [
            {
                "id": run["info"]["run_id"],
                "status": run["info"]["status"],
                "name": run["info"]["run_name"],
                **{
                    kind: {entry["key"]: entry["value"] for entry in run["data"].get(kind, [])}
                    for kind in ("tags", "params", "metrics")
                },
            }
            for run in self.ask("runs/search", request).get("runs", [])
        ]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._log.close()


class Relay:
    """Stands before a real MLflow and fails from the request with the number `fails_at` on, until it is mended."""

    def __init__(self, target: str) -> None:
        self.target = urllib.parse.urlsplit(target).netloc
        self.requests = 0
        self.fails_at: int | None = None
        self.trouble = TROUBLES[0]
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                relay.requests += 1
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                late = None if relay.fails_at is None else relay.requests - relay.fails_at
                if late is not None and late >= 0:
                    if relay.trouble == "loses an answer" and late == 0:
                        relay.forwarded(self.command, self.path, body)
                    if relay.trouble.startswith("answers"):
                        self.answer(int(relay.trouble.split()[1]), b"<html>not now</html>")
                    else:
                        self.close_connection = True
                    return
                self.answer(*relay.forwarded(self.command, self.path, body))

            do_POST = do_GET

            def answer(self, code: int, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def forwarded(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def mend(self) -> None:
        self.fails_at, self.requests = None, 0

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def assert_recorded_once(mlflow: Mlflow, experiment: str, levels: Sequence[str]) -> None:
    """The experiment has one finished run, with a finished one below it for each level."""
    runs = mlflow.runs(experiment)
    assert sorted(run["tags"]["replayctl.level"] for run in runs) == sorted(("experiment", *levels))
    assert {run["status"] for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if run["tags"]["replayctl.level"] == "experiment"]
    assert {run["tags"].get("mlflow.parentRunId", parent["id"]) for run in runs} == {parent["id"]}
    assert all("NDCG.10" in run["metrics"] and run["params"] for run in runs)
