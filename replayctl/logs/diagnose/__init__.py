"""The probable cause of a failed Spark application, from its container logs and from the ResourceManager's diagnostics.

Each line is read once and little is kept, so that memory use is bounded. Messages and exit codes are those of Spark 3.5
and Hadoop 3.4.

`layout` and `notation` describe what Spark, Hadoop and Python write. `known_lines`, `meanings` and `exit_codes` explain
it; new messages are added there. `echoes` lists consequences of causes. `reader` takes the lines and tells processes
apart (`voices`, `quotes`). `blocks`, `thrown` and `crashes` hold what is being read, `judgement` draws the conclusion,
and `candidates` collects and ranks the findings. `resource_manager` reads YARN's diagnostics. Nothing else depends on
YARN's servers, so that any log can be diagnosed.
"""

from replayctl.logs.diagnose.cause import Cause
from replayctl.logs.diagnose.exit_codes import explain_exit_code
from replayctl.logs.diagnose.reader import Diagnosis
from replayctl.logs.diagnose.resource_manager import add_diagnostics, from_diagnostics
from replayctl.logs.diagnose.task_log import cause_in_task_log

__all__ = ["Cause", "Diagnosis", "add_diagnostics", "cause_in_task_log", "explain_exit_code", "from_diagnostics"]
