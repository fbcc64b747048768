"""The node of YARN in the lab: what it has unpacked, and what is left of its Python."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from .lab import Lab

_POD = "yarn-nodemanager-0"
_CACHES = "/data/nm-local-dir"
# What steps would otherwise run with, and what LightGBM is linked to.
_FILES = ("/usr/bin/python3.11", "/usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0")
_AWAY = ".taken-away"


@dataclass(frozen=True)
class Node:
    """The NodeManager's pod, in which containers run."""

    lab: Lab

    def unpacked(self, name: str) -> set[str]:
        """The folders into which an archive of that name was unpacked, in any of the node's caches."""
        return set(self._shell(f"find {_CACHES} -type d -name '{name}' -prune").split())

    def downloads(self, path: str) -> list[str]:
        """The lines of the NodeManager's log about downloads of a file of HDFS into its cache."""
        log = self.lab.kubectl("-n", "spark-lama-exps", "logs", _POD)
        return [line for line in log.splitlines() if path in line and "Downloading public resource" in line]

    @contextlib.contextmanager
    def without_python(self) -> Iterator[None]:
        """The node while it has neither a Python nor OpenMP."""
        self.put_back()
        try:
            self._shell("; ".join(f"mv {path} {path}{_AWAY}" for path in _FILES))
            assert self._shell("python3 -V || echo none").strip() == "none"
            yield
        finally:
            self.put_back()

    def put_back(self) -> None:
        """Gives it back what an interrupted test has taken away."""
        self._shell("; ".join(f"if test -e {path}{_AWAY}; then mv {path}{_AWAY} {path}; fi" for path in _FILES))

    def _shell(self, script: str) -> str:
        return self.lab.kubectl("-n", "spark-lama-exps", "exec", _POD, "--", "sh", "-c", script)
