"""Limits on what is read, kept and shown.

Together the limits bound the memory of a diagnosis, whatever a log holds.
"""

from __future__ import annotations

# Characters.
MAX_LINE = 4_000
MAX_STORED_LINE = 500
MAX_MESSAGE = 1_000
MAX_SUMMARY = 300
MAX_DIAGNOSTICS = 200_000
# Lines of an excerpt, of a traceback of a notebook, of a report of a crash; exceptions of a block, foreign lines
# between two of a block.
MAX_EXCERPT = 30
MAX_NOTEBOOK_LINES = 500
MAX_CRASH_LINES = 60
MAX_SECTIONS = 20
MAX_STRAY_LINES = 50
# Log lines of others within a block.
MAX_LINES_BETWEEN = 4
# Causes, and containers that are counted for each.
MAX_CANDIDATES = 40
MAX_COUNTED = 1_000
