"""How probable each kind of finding is as the cause: the smaller, the more probable.

What YARN did on purpose needs no other cause. Then comes what ended the driver's program, for its end is that of the
application; then memory, known and other exceptions, and exit codes; last what only follows from a cause, and warnings.
The numbers leave room between them.
"""

from __future__ import annotations

TOLD = 5
DRIVER_TRACEBACK = 10
DRIVER_SETTING = 11
DRIVER_AFTER_WARNING = 12
DRIVER_LOST_EXECUTOR = 13
DRIVER_MAIN = 14
DRIVER_LOGGED_TRACEBACK = 16
KILLED_FOR_MEMORY = 22
OUT_OF_MEMORY = 24
KNOWN = 27
EXCEPTION = 30
EXIT_FOR_MEMORY = 35
DRIVER_LOST_SHUFFLE = 36
INFORMED_TRACEBACK = 45
EXIT = 50
CUT_OFF = 55
CONSEQUENCE = 60
STOPPED = 65
WEAK_EXIT = 70
ECHO = 75
WARNED = 80
EMPTY_WORDS = 85

OF_MEMORY = frozenset({KILLED_FOR_MEMORY, OUT_OF_MEMORY, EXIT_FOR_MEMORY})
