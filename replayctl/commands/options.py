"""Options that several commands share, declared once."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Shared = Annotated[bool, typer.Option("--shared", help="Work in the common namespace instead of your own.")]
BreakLock = Annotated[bool, typer.Option("--break-lock", help="Take the lock away from whoever holds it.")]
Engine = Literal["embedded", "spark"]
Force = Annotated[bool, typer.Option("--force", help="Give up changes made by hand on the target.")]
Wait = Annotated[
    bool | None,
    typer.Option(
        "--wait/--no-wait",
        help="End only when Airflow shows it; the default where an Airflow is configured.",
        show_default=False,
    ),
]
