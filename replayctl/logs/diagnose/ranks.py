"""Ranks of findings: the smaller, the more probable as the cause.

A deliberate action of YARN needs no other cause. Next is what ended the driver's program, which ends the application;
then memory, known and other exceptions, and exit codes; last are consequences and warnings. The numbers leave gaps.
"""

from __future__ import annotations

DELIBERATE = 5
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
