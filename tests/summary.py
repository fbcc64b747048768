"""`python -m tests.summary REPORTS SECONDS [FAILED…]` ends a test run: what was skipped and why, then one line."""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path


def main() -> int:
    reports, seconds, failed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    counts: Counter[str] = Counter()
    skipped = []
    for report in sorted(reports.glob("*.xml")):
        for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - written by our own pytest
            kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
            kind = next(iter(sorted(kinds)), "passed")
            counts[{"failure": "failed", "error": "errors"}.get(kind, kind)] += 1
            if kind == "skipped":
                reason = next(child.get("message", "") for child in case if child.tag == "skipped")
                skipped.append(f"{report.stem}: {case.get('classname')}::{case.get('name')}: {reason}")
    if skipped:
        print("\nskipped on this machine:")
        print("\n".join(f"  {line}" for line in skipped))
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    order = ("failed", "passed", "skipped", "errors")
    words = ", ".join(f"{counts[kind]} {kind}" for kind in order if counts[kind]) or "no tests ran"
    print(f"\n{f' {words} in {seconds}.00s ':=^79}")
    return 1 if failed or counts["failed"] or counts["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
