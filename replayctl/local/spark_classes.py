"""An archive of Spark's classes, from which the JVM of a step takes them instead of loading and verifying each.

Made once for a Java and an environment, and kept in the environment's folder. A JVM ignores an archive that another
Java has made. The worker's image has one of its own (docker/airflow-worker.Dockerfile). https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from replayctl import process
from replayctl.console.events import Reporter
from replayctl.errors import OperationFailed, RemoteCommandFailed, TimedOut
from replayctl.local import environments
from replayctl.local.environments import Environment
from replayctl.shipped import shipped_dir

_DEADLINE_S = 900.0
# What is compiled does not become part of the archive.
_JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xss16m"
_TEMPORARY = ".spark-classes-"
_TRAINING = "spark_training.py"
# Spark goes by these, too, and the classes must be those of a step.
_FOREIGN = ("SPARK_", "PYSPARK_", "PYTHON", "HADOOP_", "YARN_", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")


def path_of(environment: Path, java_home: Path) -> Path:
    """Where the archive for this Java is, which may not exist yet."""
    library = java_home.resolve() / "lib" / "server" / "libjvm.so"
    stamp = [str(library)]
    with contextlib.suppress(OSError):
        status = library.stat()
        stamp += [str(status.st_size), str(status.st_mtime_ns)]
    return environment / f"spark-classes-{hashlib.sha256(repr(stamp).encode()).hexdigest()[:12]}.jsa"


def ensure(environment: Environment, java_home: Path, reporter: Reporter) -> None:
    """Makes the archive if it does not exist. Warns where it cannot be made: then steps only start slower."""
    archive = path_of(environment.path, java_home)
    if archive.exists():
        return
    with environments.changing(environment, reporter):
        if archive.exists():
            return
        reporter.step(f"preparing Spark's classes in {archive} (once; takes half a minute)")
        try:
            for leftover in environment.path.glob(f"{_TEMPORARY}*"):
                shutil.rmtree(leftover)
            with tempfile.TemporaryDirectory(dir=environment.path, prefix=_TEMPORARY) as folder:
                _make(environment, java_home, Path(folder))
                os.replace(Path(folder) / "classes.jsa", archive)
        except (RemoteCommandFailed, TimedOut, OperationFailed, OSError) as error:
            reporter.warn(f"cannot prepare Spark's classes, so that Spark's steps start slower: {error}")


def _make(environment: Environment, java_home: Path, folder: Path) -> None:
    """Runs Spark once, as steps do, and has its JVM write down the classes that it has loaded."""
    home = environment.site_packages / "pyspark"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    argv = (
        *(str(home / "bin" / "spark-submit"), "--master", "local[1]", "--driver-memory", "1g"),
        *("--conf", "spark.ui.enabled=false", "--conf", "spark.sql.shuffle.partitions=2"),
        *("--conf", "spark.driver.host=127.0.0.1", "--conf", "spark.driver.bindAddress=127.0.0.1"),
        *("--conf", "spark.sql.execution.arrow.pyspark.enabled=true"),
        *("--conf", f'spark.driver.extraJavaOptions={_JVM} "-XX:ArchiveClassesAtExit={folder}/classes.jsa"'),
        *(str(shipped_dir("docker") / _TRAINING), str(folder)),
    )
    process.run(
        argv,
        env={
            **inherited,
            **environment.mark,
            "PATH": f"{java_home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "JAVA_HOME": str(java_home),
            "SPARK_HOME": str(home),
            "PYSPARK_PYTHON": str(environment.program("python")),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(folder),
        },
        timeout_s=_DEADLINE_S,
    )
    if not (folder / "classes.jsa").exists():
        raise OperationFailed("this Java does not archive classes (Java 17 does)")
