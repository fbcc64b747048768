"""The probable cause of a failed Spark application, from its container logs and from what the ResourceManager says.

Each line is looked at once and little is kept, so that a log of any size fits. Messages and exit codes are those of
Spark 3.5 and Hadoop 3.4.

What Spark and Hadoop write, and what it means, stands in `notation`, `known_lines`, `meanings` and `exit_codes`; a new
message is added there. `reader` takes the lines, `blocks` and `thrown` hold the exception that is being read,
`judgement` says what it comes to, and `candidates` keeps what was found.
"""

from replayctl.logs.diagnose.cause import Cause
from replayctl.logs.diagnose.exit_codes import explain_exit_code
from replayctl.logs.diagnose.reader import Diagnosis
from replayctl.logs.diagnose.resource_manager import add_diagnostics, from_diagnostics

__all__ = ["Cause", "Diagnosis", "add_diagnostics", "explain_exit_code", "from_diagnostics"]
