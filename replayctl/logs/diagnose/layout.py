"""Beginnings of log lines: time and level, in the layouts of log4j, Logback and Python.

A carrier (Airflow, a CI system, a log collector) adds a prefix to each line; `uncarried` removes it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LEVELS = "TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL|CRITICAL"
QUIET = frozenset({"TRACE", "DEBUG", "INFO", "WARN", "WARNING"})
LOUD = frozenset({"ERROR", "FATAL", "CRITICAL"})

_DATE = r"\d{2}(?:\d\d)?[-/]\d\d[-/]\d\d"
_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[A-Z]{3}|[+-]\d\d:?\d\d)\b)?"
_TIME = rf"\[?(?:{_DATE}(?:T|,? ))?{_CLOCK}{_ZONE}\]?"
_DATED = re.compile(rf"{_TIME}[ \t]|\[[^\]]{{1,200}}\]:? +(?:{_LEVELS})\b|\[?(?:{_LEVELS})\]?[ :|]")
# What times, threads and levels begin with.
FIRST = frozenset("0123456789[TDIWEFC")
_BETWEEN = frozenset("/-:")
_WORDS = tuple(_LEVELS.split("|"))
# Threads, processes and loggers may stand before the level, and loggers and threads after it.
_WORD = r"(?:\[[^\]]{0,200}\]|[^\s\[\]]{1,200}(?=[ \t])):?[ \t]{1,8}(?:[-|] )?"
_LEVEL = (
    rf"\[?(?P<level>{_LEVELS})\b\]?(?::[\w.]{{1,200}}:|[:|]?\s*(?:[-|] )?(?:\[[^\]]{{0,200}}\]:?\s*(?:- )?)?"
    r"(?:[-\w.$/]{1,200}(?::\d{1,6})?(?: ?\[\]){0,2}(?: {1,8}-|:)\s)?)"
)
_TIMED = re.compile(rf"{_TIME}[ \t]?(?:[ \t]*(?:{_WORD}){{0,3}}?(?:[-\w.$]{{1,200}}:)?{_LEVEL})?")
# Without a time, only a thread may stand before it; any more would be prose.
_UNTIMED = re.compile(rf"(?:\[[^\]]{{1,200}}\]:?[ \t]{{1,8}})?{_LEVEL}(?<=[\s:])")
# By Airflow (with the file and other things in braces), by collectors, by Jenkins, by containers, by syslog.
_BRACES = r"[{]{1,2}[^{}]{1,200}[}]{1,2}"
_CARRIED = re.compile(
    rf"\[{_DATE}(?:T|,? ){_CLOCK}{_ZONE}\] {_BRACES}(?: {_BRACES})? (?P<airflow>{_LEVELS}) - "
    rf"(?:\[(?!{_LEVELS})[\w.-]{{1,63}}\] )?"
    rf"|\[{_DATE}T{_CLOCK}{_ZONE}\](?:\[\w{{1,20}}\])? "
    rf"|\d\d:\d\d:\d\d {{1,4}}(?={_DATE} {_CLOCK} )"
    rf"|{_DATE}T{_CLOCK}Z (?:std(?:out|err) [FP] )?"
    rf"|[A-Z][a-z]{{2}} [ \d]\d {_CLOCK} \S{{1,100}} \S{{1,100}}\[\d{{1,10}}\]: "
)
_CLOCKS = re.compile(rf"\[?((?:{_DATE}(?:T|,? ))?{_CLOCK})")


class Head(NamedTuple):
    """How a line begins: its level ("" if none), where that ends, and where the message begins."""

    level: str
    after_level: int
    end: int
    form: str  # the beginning itself, to see whether other lines begin alike


def begins_log_line(line: str, first: str) -> bool:
    """Whether a line begins with a time, or a level with or without a thread; its first character is in FIRST."""
    if first.isdigit():
        two = line[2:3] in _BETWEEN and line[5:6] in _BETWEEN
        return two or (line[4:5] in _BETWEEN and line[7:8] in _BETWEEN)
    return (first == "[" or line.startswith(_WORDS)) and _DATED.match(line) is not None


def head(line: str) -> Head | None:
    """The beginning of a log line; None for a line that has none."""
    match = _TIMED.match(line) or _UNTIMED.match(line)
    if match is None:
        return None
    level = match["level"] or ""
    return Head(level, match.end("level") if level else match.end(), match.end(), match[0])


def uncarried(line: str) -> tuple[str, str]:
    """The line without what its carrier wrote before it, and the level that the carrier gave it.

    A carrier's INFO is ignored: all output of a task is logged at this level.
    """
    match = _CARRIED.match(line)
    if match is None:
        return line, ""
    level = match["airflow"] or ""
    return line[match.end() :], "" if level == "INFO" else level


def time_of(line: str) -> str:
    """The time that a line begins with, as it is written; "" for none. Times of one layout compare as texts."""
    match = _CLOCKS.match(line)
    return match[1] if match else ""
