"""A driver's own death ranks above what its Java and Python halves report about each other."""

import pytest

from replayctl.logs.diagnose import Diagnosis, add_diagnostics
from tests.diagnose_logs import DRIVER, EXECUTOR, diagnosed, of_driver

HEAP = (
    "26/11/24 02:12:34 ERROR Utils: Uncaught exception in thread Thread-4\n"
    "java.lang.OutOfMemoryError: Java heap space\n"
    "\tat java.base/java.util.Arrays.copyOf(Arrays.java:3537)\n"
)
KILLED = (
    f"Application application_1732400000000_0042 failed 1 times due to AM Container for x exited with exitCode: -104\n"
    f"Container [pid=4,containerID={DRIVER}] is running beyond physical memory limits. Current usage: 5.1 GB of 5 GB "
    "physical memory used; 7 GB of 10.5 GB virtual memory used. Killing container.\n"
)
ECHOES = {
    "a call without a trace": 'Traceback (most recent call last):\n  File "/job.py", line 9, in <module>\n'
    '  File "/py4j/protocol.py", line 334, in get_return_value\n'
    "py4j.protocol.Py4JError: An error occurred while calling o45.fit\n",
    "clientserver": 'Traceback (most recent call last):\n  File "/job.py", line 9, in <module>\n'
    '  File "/spark/python/lib/py4j-0.10.9.7-src.zip/py4j/clientserver.py", line 438, in connect_to_java_server\n'
    "    self.socket.connect((self.java_address, self.java_port))\n"
    "ConnectionRefusedError: [Errno 111] Connection refused\n",
    "java_gateway": 'Traceback (most recent call last):\n  File "/job.py", line 9, in <module>\n'
    '  File "/usr/lib/java_gateway.py", line 1067, in start\n'
    "ConnectionRefusedError: [Errno 111] Connection refused\n",
    "does not exist": 'Traceback (most recent call last):\n  File "/job.py", line 9, in <module>\n'
    '  File "/py4j/java_gateway.py", line 1549, in __getattr__\n'
    "py4j.protocol.Py4JError: org.apache.spark.api.python.PythonUtils does not exist in the JVM\n",
    "network": 'Traceback (most recent call last):\n  File "/py4j/java_gateway.py", line 1207, in send_command\n'
    "py4j.protocol.Py4JNetworkError: Answer from Java side is empty\n\n"
    "During handling of the above exception, another exception occurred:\n\n"
    'Traceback (most recent call last):\n  File "/job.py", line 9, in <module>\n'
    '  File "/py4j/protocol.py", line 334, in get_return_value\n'
    "py4j.protocol.Py4JError: An error occurred while calling o45.fit\n",
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_the_death_of_the_jvm_comes_before_its_echoes(echo: str) -> None:
    causes = diagnosed((DRIVER, "stderr", HEAP), (DRIVER, "stdout", echo))
    assert causes[0].summary == "java.lang.OutOfMemoryError: Java heap space"
    assert "spark.driver.memory" in causes[0].explanation
    assert len(causes) == 2
    for death, summary in (
        ("Killed", "a process was killed (SIGKILL)"),
        (
            "26/11/24 02:12:34 ERROR ApplicationMaster: RECEIVED SIGNAL TERM",
            "the driver was stopped from outside (SIGTERM)",
        ),
        (
            "#\n# A fatal error has been detected by the Java Runtime Environment:\n#\n"
            "#  SIGSEGV (0xb) at pc=0x00007f6fcdca983d, pid=27838, tid=140119751849728\n#\n"
            "# JRE version: OpenJDK Runtime Environment (17.0.15)\n# Problematic frame:\n"
            "# C  [lib_lightgbm.so+0x7783d]  LGBM_BoosterPredict+0x3d\n#\n",
            "the JVM crashed: SIGSEGV in lib_lightgbm.so (LGBM_BoosterPredict+0x3d)",
        ),
    ):
        assert diagnosed((DRIVER, "stdout", echo), (DRIVER, "stderr", death))[0].summary == summary


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_a_death_that_only_the_resource_manager_tells(echo: str) -> None:
    diagnosis = Diagnosis()
    diagnosis.start_file(DRIVER, "stdout")
    for line in echo.splitlines():
        diagnosis.feed(line)
    add_diagnostics(diagnosis, KILLED)
    assert diagnosis.causes()[0].summary.startswith("driver killed by YARN for exceeding physical memory limits")


def test_the_memory_of_an_executor_does_not_explain_the_death_of_the_driver() -> None:
    echo = ECHOES["does not exist"]
    causes = diagnosed((EXECUTOR, "stderr", HEAP), (DRIVER, "stdout", echo))
    assert "does not exist in the JVM" in causes[0].summary
    assert "versions" in causes[0].explanation


def test_an_echo_alone_says_where_to_look() -> None:
    (cause,) = of_driver(ECHOES["clientserver"])
    assert "Java half" in cause.explanation


def test_a_refused_connection_of_the_program_itself_is_a_cause() -> None:
    text = (
        ECHOES["clientserver"]
        .replace("py4j/clientserver.py", "urllib/request.py")
        .replace("py4j-0.10.9.7-src.zip/", "")
    )
    causes = diagnosed((DRIVER, "stderr", HEAP), (DRIVER, "stdout", text))
    assert causes[0].summary == "ConnectionRefusedError: [Errno 111] Connection refused"


def test_a_limit_of_the_driver_comes_before_executors_that_were_killed_for_it() -> None:
    limit = (
        "26/11/24 02:12:34 ERROR TaskSetManager: Total size of serialized results of 9 tasks (1025.0 MiB) "
        "is bigger than "
        "spark.driver.maxResultSize (1024.0 MiB)\n"
    )
    lost = (
        "26/11/24 02:12:36 ERROR YarnScheduler: Lost executor 2 on n: Container from a bad node: "
        f"{EXECUTOR} on host: n. Exit status: 137. Diagnostics: Killed by external signal.\n"
        "Traceback (most recent call last):\n"
        '  File "job.py", line 3, in <module>\n'
        "py4j.protocol.Py4JJavaError: An error occurred while calling o1.count.\n"
        ": org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most "
        "recent failure: Lost task 0.3 in stage 1.0 (TID 9) (h executor 2): ExecutorLostFailure (executor "
        "2 exited caused "
        "by one of the running tasks) Reason: Container from a bad node. Exit status: 137.\n"
        "\tat a.B.c(B.java:1)\n"
    )
    for text in (limit + lost, lost + limit):
        causes = of_driver(text)
        assert "spark.driver.maxResultSize" in causes[0].summary
        assert "spark.driver.maxResultSize" in causes[0].explanation
    assert of_driver(lost)[0].summary.startswith("killed, probably for using too much memory")
