"""The causes that were found so far: few of them, each once, with the containers that have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.cause import Cause, Finding
from replayctl.logs.diagnose.limits import MAX_CANDIDATES, MAX_COUNTED


class Place(NamedTuple):
    """Where something stands in the logs."""

    container: str
    file: str
    first_line: int
    last_line: int


@dataclass(slots=True)
class _Candidate:
    finding: Finding
    order: int
    place: Place
    excerpt: tuple[str, ...]
    containers: set[int] = field(default_factory=set)

    def cause(self) -> Cause:
        """What the caller gets."""
        explanation = self.finding.explanation
        if (count := len(self.containers)) > 1:
            many = f"{count} or more" if count >= MAX_COUNTED else f"{count}"
            explanation = f"{explanation} Seen in {many} containers.".lstrip()
        return Cause(
            rank=self.finding.rank,
            summary=self.finding.summary,
            explanation=explanation,
            container=self.place.container,
            file=self.place.file,
            first_line=self.place.first_line,
            last_line=self.place.last_line,
            excerpt=self.excerpt,
        )


def _probability(candidate: _Candidate) -> tuple[int, int]:
    return candidate.finding.rank, candidate.order


class Candidates:
    """Findings with their places; of too many, the least probable are forgotten."""

    def __init__(self) -> None:
        self._by_key: dict[str, _Candidate] = {}
        self._order = 0

    def add(self, finding: Finding, place: Place, excerpt: tuple[str, ...], *, affected: str, driver: bool) -> None:
        """Keeps a cause, once for all containers that have it.

        `affected` names the container that it is about, `driver` says whether the driver's log tells it.
        """
        self._order += 1
        # A driver raises its last exception when it ends; elsewhere the first error is the cause of others.
        order = -self._order if driver and finding.rank < ranks.KILLED_FOR_MEMORY else self._order
        candidate = _Candidate(finding, order, place, excerpt)
        former = self._by_key.get(finding.key)
        if former is None:
            self._by_key[finding.key] = candidate
        else:
            candidate.containers = former.containers
            if finding.rank < former.finding.rank:
                self._by_key[finding.key] = candidate
            elif finding.rank == former.finding.rank:
                former.order = min(former.order, order)
        containers = candidate.containers
        if len(containers) < MAX_COUNTED:
            containers.add(hash(affected))
        if len(self._by_key) > MAX_CANDIDATES:
            worst = max(self._by_key, key=lambda each: _probability(self._by_key[each]))
            del self._by_key[worst]

    def causes(self) -> list[Cause]:
        """All of them, the most probable first, each summary once."""
        found: dict[str, Cause] = {}
        for candidate in sorted(self._by_key.values(), key=_probability):
            cause = candidate.cause()
            found.setdefault(cause.summary, cause)
        return list(found.values())
