"""The causes so far: a bounded number, without repetitions, with the containers that have them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.cause import Cause, Finding
from replayctl.logs.diagnose.limits import MAX_CANDIDATES, MAX_COUNTED


class Place(NamedTuple):
    """A place in the logs."""

    container: str
    file: str
    first_line: int
    last_line: int


class About(NamedTuple):
    """The process that something is about: its container, and whether it is the driver."""

    container: str
    driver: bool


@dataclass(slots=True)
class Candidate:
    """A finding with its place and its containers."""

    finding: Finding
    order: int
    place: Place
    excerpt: tuple[str, ...]
    of_driver: bool
    containers: set[int] = field(default_factory=set)

    def cause(self) -> Cause:
        """The candidate as a cause."""
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

    def probability(self) -> tuple[int, int]:
        """Smaller for the more probable."""
        return self.finding.rank, self.order


class Candidates:
    """Findings with their places; beyond the limit, the least probable are dropped."""

    def __init__(self) -> None:
        self._by_key: dict[str, Candidate] = {}
        self._order = 0

    def add(self, finding: Finding, place: Place, excerpt: tuple[str, ...], about: About, *, by_driver: bool) -> None:
        """Add a finding, once for all processes that have it; `by_driver` is true for one in the driver's log."""
        self._order += 1
        # A driver raises its last exception when it ends; elsewhere the first error is the cause of others.
        order = -self._order if by_driver and finding.rank < ranks.KILLED_FOR_MEMORY else self._order
        candidate = Candidate(finding, order, place, excerpt, about.driver)
        if len(candidate.containers) < MAX_COUNTED:
            candidate.containers.add(hash(about.container))
        self.include(candidate)

    def include(self, candidate: Candidate) -> None:
        """Add a candidate, possibly of another diagnosis."""
        key, finding = candidate.finding.key, candidate.finding
        former = self._by_key.get(key)
        if former is None:
            self._by_key[key] = candidate
        else:
            if len(former.containers) < MAX_COUNTED:
                former.containers.update(candidate.containers)
            if finding.rank < former.finding.rank:
                candidate.containers = former.containers
                candidate.of_driver = candidate.of_driver or former.of_driver
                self._by_key[key] = candidate
            elif finding.rank == former.finding.rank:
                former.order = min(former.order, candidate.order)
            former.of_driver = former.of_driver or candidate.of_driver
        if len(self._by_key) > MAX_CANDIDATES:
            worst = max(self._by_key, key=lambda key: self._by_key[key].probability())
            del self._by_key[worst]

    def best(self) -> Candidate | None:
        """The most probable one."""
        return min(self._by_key.values(), key=Candidate.probability, default=None)

    def causes(self) -> list[Cause]:
        """All causes, most probable first, each summary once."""
        causes: dict[str, Cause] = {}
        for candidate in sorted(_weighed(self._by_key.values()), key=Candidate.probability):
            cause = candidate.cause()
            causes.setdefault(cause.summary, cause)
        return list(causes.values())


def _weighed(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The relevant ones: the end of a driver ranks before its consequences; warnings count only without errors."""
    known = list(candidates)
    if any(candidate.of_driver and candidate.finding.fatal for candidate in known):
        known = [_behind(candidate) if candidate.finding.echo else candidate for candidate in known]
    errors = [candidate for candidate in known if candidate.finding.rank < ranks.WARNED]
    return errors or known


def _behind(echo: Candidate) -> Candidate:
    finding = echo.finding._replace(rank=ranks.ECHO)
    return Candidate(finding, echo.order, echo.place, echo.excerpt, echo.of_driver, echo.containers)
