"""The probable cause of a failed Spark application, from its container logs and from what the ResourceManager says.

Each line is looked at once and little is kept, so that a log of any size fits. Messages and exit codes are those of
Spark 3.5 and Hadoop 3.4.

What Spark, Hadoop and Python write stands in `layout` and `notation`; what it means in `known_lines`, `meanings` and
`exit_codes`, where a new message is added; what follows from causes in `echoes`. `reader` takes the lines and knows
whose they are (`voices`, `quotes`), `blocks`, `thrown` and `crashes` hold what is being read, `judgement` says what it
comes to, and `candidates` keeps and weighs what was found. `resource_manager` reads the diagnostics of YARN; nothing
else depends on YARN's servers, so that any log may be fed.
"""

from replayctl.logs.diagnose.cause import Cause
from replayctl.logs.diagnose.exit_codes import explain_exit_code
from replayctl.logs.diagnose.reader import Diagnosis
from replayctl.logs.diagnose.resource_manager import add_diagnostics, from_diagnostics

__all__ = ["Cause", "Diagnosis", "add_diagnostics", "explain_exit_code", "from_diagnostics"]
