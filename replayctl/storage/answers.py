"""Parses the answers of a target's scripts: the state of one namespace, its history, and who holds its lock.

Everything in an answer except its framing comes from folders that others can write to: it is bounded, and no content
may break the parser.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from replayctl.bundle.release import MANIFEST, METADATA, SUBMIT_SCRIPT, Release, posix_cksum
from replayctl.console.events import Reporter
from replayctl.errors import OperationFailed

_MAX_PID = 2**31
_SHOWN_CHARACTERS = 60
_WITH_TEXT = frozenset(
    {
        *("lock", "taken", "stub", "release", "audit", "package", "evaluation", "deployment"),
        *("release_manifest", "release_sums", "submit_manifest", "submit_sums"),
    }
)
# The text of a lock is printable and has no newlines; all other texts end with a full stop that protects theirs.
_WITHOUT_FULL_STOP = frozenset({"taken", "lock"})


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds a namespace's lock.

    `mark` identifies this lock, `age_s` is measured by the target's clock, `nature` says what is in its place when it
    is not a file.
    """

    mark: str
    age_s: float | None
    who: Mapping[str, object] = field(default_factory=dict)
    nature: str = ""

    def __str__(self) -> str:
        if self.nature:
            return f"{self.nature} in place of the lock"
        if not self.who:
            return "an unnamed holder"
        age = f", for {self.age_s:.0f} s" if self.age_s is not None else ""
        user, host, pid = (_shown(self.who.get(key)) for key in ("user", "host", "pid"))
        return f"{user} on {host} (process {pid}{age})"

    @property
    def process(self) -> tuple[int, float] | None:
        """Process id and start (seconds since 1970) of the holder; None when the lock does not record them."""
        pid, started = self.who.get("pid"), self.who.get("started")
        if type(pid) is not int or not 0 < pid < _MAX_PID or type(started) not in (int, float):
            return None
        assert isinstance(started, (int, float))
        return (pid, float(started)) if abs(started) < 1e12 and math.isfinite(started) else None


@dataclass(frozen=True, slots=True)
class History:
    """The releases of a namespace: every stored one with its metadata, and the audit lines, oldest first."""

    pointer: str | None
    releases: Mapping[str, Mapping[str, object]]
    audit: tuple[Mapping[str, object], ...]
    clock_s: int


@dataclass(frozen=True, slots=True)
class TargetState:
    """The present state of one namespace's part of a target.

    `pointer` is the published release; `releases` and `submitted` are those stored in the two folders; `stubs` are the
    texts of the namespace's stubs and of all files with the requested names; `foreign` are other DAG files; `obstacles`
    maps a stub's name to what is there instead of an own file (`a link of bob`); `edited` maps a stored release to its
    files that were changed, added or removed there; `damaged` are the releases whose list of checksums was changed.
    """

    pointer: str | None = None
    releases: frozenset[str] = frozenset()
    submitted: frozenset[str] = frozenset()
    stubs: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    obstacles: Mapping[str, str] = field(default_factory=dict)
    edited: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()
    lock: LockHolder | None = None
    history: History | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an answer."""

    kind: str
    name: str = ""
    text: str = ""


def records_of(answer: bytes, machine: str) -> list[Record]:
    """The records of a script's answer: `KIND NAME`, or `KIND NAME SIZE` followed by that many bytes.

    Raises OperationFailed for a truncated answer: whatever it lacks would look as if it did not exist.
    """
    records: list[Record] = []
    stream = io.BytesIO(answer)
    for line in stream:
        words = line.decode("utf-8", "replace").split()
        if not words:
            continue
        if len(words) == 3 and words[0] in _WITH_TEXT and _number(words[2]) is not None:
            size = int(words[2])
            text = stream.read(size)
            if len(text) < size:
                break
            stream.readline()
            whole = text if words[0] in _WITHOUT_FULL_STOP else text[:-1]
            records.append(Record(words[0], words[1], whole.decode("utf-8", "replace")))
        else:
            records.append(Record(words[0], line.decode("utf-8", "replace").rstrip("\n").partition(" ")[2]))
    if not records or records[-1].kind not in ("whole", "taken"):
        raise OperationFailed(f"{machine} sent a truncated answer", hint="run the same command again")
    return records


def warn_of_closed(records: Sequence[Record], reporter: Reporter) -> None:
    """Names the folders that this user may not look into, so that their content is missing in the answer."""
    for record in records:
        if record.kind == "closed":
            owner, _, path = record.name.partition(" ")
            reporter.warn(f"{path} was skipped: it belongs to {owner}, and you may not look into it")


def state_of(records: Sequence[Record], release: Release | None = None) -> TargetState:
    """The state that `inspect.sh` reports; `release` is compared with its own files, others with their manifests."""
    edited: dict[str, tuple[str, ...]] = {}
    damaged = set()
    texts = {(record.kind, record.name): record.text for record in records}
    for record in records:
        side, _, part = record.kind.partition("_")
        if part != "sums":
            continue
        manifest = texts.get((f"{side}_manifest", record.name))
        reference = release if release is not None and release.name == record.name else None
        changed, is_damaged = _compared(side, record.text, manifest, reference)
        if changed:
            edited[record.name] = (*edited.get(record.name, ()), *changed)
        if is_damaged:
            damaged.add(record.name)
    return TargetState(
        pointer=_pointer(records),
        releases=frozenset(record.name for record in records if record.kind == "release" and not record.text),
        submitted=frozenset(record.name for record in records if record.kind == "submitted"),
        stubs={record.name: record.text for record in records if record.kind == "stub"},
        foreign=tuple(sorted(record.name for record in records if record.kind == "foreign")),
        obstacles=dict(_split(record.name) for record in records if record.kind == "obstacle"),
        edited=edited,
        damaged=frozenset(damaged),
        lock=holder_of(records, "lock"),
    )


def history_of(records: Sequence[Record]) -> History:
    """The history that `history.sh` reports."""
    audit = [line for record in records if record.kind == "audit" for line in record.text.splitlines()]
    return History(
        pointer=_pointer(records),
        releases={
            record.name: _document(record.text) for record in records if record.kind == "release" and record.text
        },
        audit=tuple(_document(line) for line in audit if line),
        clock_s=_clock(records),
    )


def holder_of(records: Sequence[Record], kind: str) -> LockHolder | None:
    """Who holds the lock, from a `lock` or `taken` record; None when there is no such record."""
    text = next((record.text for record in records if record.kind == kind), None)
    if text is None:
        return None
    document, _, since = text.rpartition(" ")
    mark = next((record.name for record in records if record.kind == "mark"), "")
    nature = next((record.name for record in records if record.kind == "nature"), "")
    kind_of_file, _, owner = nature.rpartition(" ")
    start = _number(since)
    age = float(max(0, _clock(records) - start)) if start is not None else None
    return LockHolder(mark, age, _document(document), f"{kind_of_file} of {owner}" if nature else "")


def _pointer(records: Sequence[Record]) -> str | None:
    return next((record.name or None for record in records if record.kind == "pointer"), None)


def _clock(records: Sequence[Record]) -> int:
    return next((_number(record.name) or 0 for record in records if record.kind == "clock"), 0)


def _compared(side: str, text: str, manifest: str | None, release: Release | None) -> tuple[tuple[str, ...], bool]:
    """The files that changed since they were stored, and whether the list of checksums did."""
    stored = _sums(text)
    listed = _sums(manifest) if manifest is not None else {}
    # A list with a malformed or truncated line does not prove what was stored.
    if "" in listed.values() or not (manifest or "").endswith("\n"):
        listed = {}
    if release is None:
        if not listed:
            # What was stored there is unknown.
            return (MANIFEST,), True
        return _differing(listed, stored), False
    expected = {name: f"{posix_cksum(content)} {len(content)}" for name, content in _known(side, release).items()}
    # Known from the list alone: who stored the release, and the zip, whose bytes depend on the library that packed it.
    for name in (METADATA,) if side == "release" else (f"{release.name}.zip",):
        known = listed.get(name) or stored.get(name)
        if known is not None:
            expected[name] = known
    return _differing(expected, stored), listed != expected


def _known(side: str, release: Release) -> dict[str, bytes]:
    if side == "release":
        return {file.path: file.content for file in release.files}
    return {SUBMIT_SCRIPT: release.content(SUBMIT_SCRIPT)}


def _sums(text: str) -> dict[str, str]:
    """File → checksum and size, from the lines of cksum; any other line (`./FIFO`) is a name without a checksum."""
    sums = {}
    for line in text.split("\n"):
        match = re.fullmatch(r"(\d{1,10} \d{1,19}) \./(.+)", line, re.ASCII)
        if match is not None:
            sums[match[2]] = match[1]
        elif line:
            sums[line.removeprefix("./")] = ""
    return sums


def _differing(expected: Mapping[str, str], stored: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name)))


def _split(text: str) -> tuple[str, str]:
    """An obstacle `NAME KIND OWNER`: the name, and `KIND of OWNER`."""
    name, _, rest = text.partition(" ")
    kind, _, owner = rest.rpartition(" ")
    return name, f"{kind} of {owner}"


def _document(text: str) -> Mapping[str, object]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        # Written by hand, truncated, or crafted to break the parser.
        return {}
    return document if isinstance(document, dict) else {}


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,15}", text, re.ASCII) else None


def _shown(value: object) -> str:
    text = "".join(character if character.isprintable() else "?" for character in str(value))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
