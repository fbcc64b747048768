"""`python -m tests.environment NAME` creates an environment if necessary and prints its path.

`test` is a folder with pytest alone, for the environments that have none.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from replayctl.console.reporter import StderrReporter
from replayctl.local import environments

ROOT = Path(__file__).parent.parent


def cache_dir() -> Path:
    return Path(os.environ["REPLAYCTL_CACHE_DIR"])


def test_tools() -> Path:
    pinned = ROOT / "requirements" / "test.txt"
    digest = hashlib.sha256(pinned.read_bytes() + sys.version.encode()).hexdigest()[:12]
    path = cache_dir() / "environments" / f"test-{digest}"
    if not (path / ".complete").exists():
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(path)]
        subprocess.run([*argv, "-r", str(pinned)], check=True, stdout=sys.stderr)
        (path / ".complete").touch()
    return path


def main() -> None:
    name = sys.argv[1]
    if name == "test":
        print(test_tools())
        return
    environment = environments.ensure(name, cache_dir(), None, StderrReporter())
    if name.startswith("workload"):
        # The real data that the workload tests sample come in this package.
        from replayctl.local import datasets

        if not (environment.site_packages / "recbole").exists():
            environments.add_package(environment, datasets.PACKAGE, None, StderrReporter())
    print(environment.path)


if __name__ == "__main__":
    main()
