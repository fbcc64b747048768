"""The cause in the log of an Airflow task: the error of the step's process, not the operator's repetition of it."""

import pytest

from replayctl.logs.diagnose import cause_in_task_log

LOG = """computing combine (mode=union)
Traceback (most recent call last):
  File "/x/dag_submit.py", line 32, in <module>
    sys.exit(main(sys.argv))
  File "/x/r_1.zip/r_1/workloads/combine.py", line 30, in run
{error}
Task failed with exception
Traceback (most recent call last):
  File "/dags/r_1/dag_process.py", line 77, in run
StepProcessError: the step failed: {error}
Traceback (most recent call last):
  File "/dags/r_1/dag_operators.py", line 198, in submit
AirflowException: the step failed: {error}
"""
FULL = "OSError: [Errno 28] No space left on device: '/x/part.parquet'"


@pytest.mark.parametrize(
    ("error", "summary", "advice"),
    [
        (FULL, FULL, "The disk is full"),
        ("OSError: [Errno 122] Disk quota exceeded", "OSError: [Errno 122] Disk quota exceeded", "quota is full"),
        ("r_1.workloads.context.StepError: x.csv, row 4: no", "StepError: x.csv, row 4: no", ""),
        ("KeyError: 'split'", "KeyError: 'split'", ""),
    ],
)
def test_the_step_s_own_exception_is_the_cause(error: str, summary: str, advice: str) -> None:
    cause = cause_in_task_log(LOG.format(error=error).splitlines())
    assert cause is not None
    assert cause.summary.endswith(summary)
    assert "the step failed" not in cause.summary
    assert advice in cause.explanation


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("AirflowException: the step failed: StepError: x.csv, row 4: no", "StepError: x.csv, row 4: no"),
        ("AirflowException: input split (/a) is incomplete: clear task split", "is incomplete: clear task split"),
        ("AirflowException: the step's process was ended by SIGKILL (the machine may have run out)", "SIGKILL"),
    ],
)
def test_what_only_the_operator_says_is_the_cause(text: str, summary: str) -> None:
    log = f'Task failed with exception\nTraceback (most recent call last):\n  File "/d/o.py", line 1, in x\n{text}\n'
    cause = cause_in_task_log(log.splitlines())
    assert cause is not None
    assert summary in cause.summary
    assert "the step failed" not in cause.summary


def test_a_long_message_keeps_its_end() -> None:
    message = f"StepError: {'x' * 400}; set delimiter=';'"
    for log in (
        LOG.format(error=message),
        f'Traceback (most recent call last):\n  File "o.py", line 1, in x\n{message}',
    ):
        cause = cause_in_task_log(log.splitlines())
        assert cause is not None
        assert cause.summary == message


def test_a_log_without_a_failure_has_no_cause() -> None:
    assert cause_in_task_log(["computing split", "done"]) is None
    assert cause_in_task_log([]) is None
