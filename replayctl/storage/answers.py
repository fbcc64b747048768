"""What a target's scripts answer, read: the state of one namespace, its history, and who holds its lock.

Everything in an answer but its frame comes from folders that others can write to: it is bounded, and nothing that it
says may break its reader.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from replayctl.bundle.release import MANIFEST, METADATA, SUBMIT_SCRIPT, Release, posix_cksum
from replayctl.errors import OperationFailed

_MAX_PID = 2**31
_SHOWN_CHARACTERS = 60
_WITH_TEXT = frozenset(
    {
        *("lock", "taken", "stub", "release", "audit", "package"),
        *("release_manifest", "release_sums", "submit_manifest", "submit_sums"),
    }
)
# The lock's words are printable and have no line ends; all others end with a full stop that kept theirs.
_WITHOUT_FULL_STOP = frozenset({"taken", "lock"})


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds a namespace's lock.

    `mark` tells this lock from any other, `age_s` is by the target's own clock, `nature` says what is there when it is
    no file.
    """

    mark: str
    age_s: float | None
    who: Mapping[str, object] = field(default_factory=dict)
    nature: str = ""

    def __str__(self) -> str:
        if self.nature:
            return f"{self.nature} at the lock's place"
        if not self.who:
            return "somebody who left no name"
        age = f", for {self.age_s:.0f} s" if self.age_s is not None else ""
        user, host, pid = (_shown(self.who.get(key)) for key in ("user", "host", "pid"))
        return f"{user} on {host} (process {pid}{age})"

    @property
    def process(self) -> tuple[int, float] | None:
        """Process id and start (seconds since 1970) of the holder; None when the lock does not say it."""
        pid, started = self.who.get("pid"), self.who.get("started")
        if type(pid) is not int or not 0 < pid < _MAX_PID or type(started) not in (int, float):
            return None
        assert isinstance(started, (int, float))
        return (pid, float(started)) if abs(started) < 1e12 and math.isfinite(started) else None


@dataclass(frozen=True, slots=True)
class History:
    """What was released into a namespace: each stored release with its metadata, and the audit lines, oldest first."""

    pointer: str | None
    releases: Mapping[str, Mapping[str, object]]
    audit: tuple[Mapping[str, object], ...]
    clock_s: int


@dataclass(frozen=True, slots=True)
class TargetState:
    """One namespace's part of a target, as it is.

    `pointer` is the published release; `releases` and `submitted` are those stored in the two folders; `stubs` are the
    texts of my stubs and of all files at the names that were asked for; `foreign` are other DAG files; `obstacles` says
    of a name among the stubs that it is no file, or whose it is (`a link of bob`); `edited` says of a stored release
    which of its files were changed, added or removed there; `damaged` are those whose list of checksums is not what it
    was.
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
    """One part of an answer."""

    kind: str
    name: str = ""
    text: str = ""


def records_of(answer: bytes, machine: str) -> list[Record]:
    """A script's answer in parts: `KIND NAME`, or `KIND NAME SIZE` and as many bytes.

    Raises OperationFailed for an answer that is cut off: everything that was not said would look like not there.
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
        raise OperationFailed(f"{machine}: the answer was cut off")
    return records


def state_of(records: Sequence[Record], release: Release | None = None) -> TargetState:
    """The state that `inspect.sh` tells; `release` is compared with what it is, all others with their manifests."""
    edited: dict[str, tuple[str, ...]] = {}
    damaged = set()
    texts = {(record.kind, record.name): record.text for record in records}
    for record in records:
        side, _, part = record.kind.partition("_")
        if part != "sums":
            continue
        manifest = texts.get((f"{side}_manifest", record.name))
        itself = release if release is not None and release.name == record.name else None
        changed, is_damaged = _compared(side, record.text, manifest, itself)
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
    """The history that `history.sh` tells."""
    audit = [line for record in records if record.kind == "audit" for line in record.text.splitlines()]
    return History(
        pointer=_pointer(records),
        releases={each.name: _document(each.text) for each in records if each.kind == "release" and each.text},
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
    began = _number(since)
    age = float(max(0, _clock(records) - began)) if began is not None else None
    return LockHolder(mark, age, _document(document), f"{kind_of_file} of {owner}" if nature else "")


def _pointer(records: Sequence[Record]) -> str | None:
    return next((record.name or None for record in records if record.kind == "pointer"), None)


def _clock(records: Sequence[Record]) -> int:
    return next((_number(record.name) or 0 for record in records if record.kind == "clock"), 0)


def _compared(side: str, text: str, manifest: str | None, release: Release | None) -> tuple[tuple[str, ...], bool]:
    """Files that are not as they were stored, and whether the list of checksums itself is not."""
    stored = _sums(text)
    listed = _sums(manifest) if manifest is not None else {}
    # A list of which a line is no such line, or is cut off, does not tell what was stored.
    if "" in listed.values() or not (manifest or "").endswith("\n"):
        listed = {}
    if release is None:
        if not listed:
            # Nobody knows what was stored there.
            return (MANIFEST,), True
        return _differing(listed, stored), False
    expected = {name: f"{posix_cksum(content)} {len(content)}" for name, content in _known(side, release).items()}
    # What only the list knows: who stored the release, and the zip, whose bytes depend on the library that packed it.
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
    """File → checksum and size, from the lines of cksum; any other line (`./FIFO`) stands for a name without one."""
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
        # Written by hand, cut off, or made to be hard to read.
        return {}
    return document if isinstance(document, dict) else {}


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,15}", text, re.ASCII) else None


def _shown(value: object) -> str:
    text = "".join(character if character.isprintable() else "?" for character in str(value))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
