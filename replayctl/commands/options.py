"""Options that several commands share, declared once."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done without doing it.")]
Shared = Annotated[bool, typer.Option("--shared", help="Work in the common namespace instead of your own.")]
BreakLock = Annotated[bool, typer.Option("--break-lock", help="Take over the lock from its holder.")]
Engine = Literal["embedded", "spark"]
Destination = Literal["folder", "hdfs"]
PackageDestination = Annotated[
    Destination | None,
    typer.Option(
        "--to",
        help="Where packages are stored: the shared folder or HDFS; packages.store by default.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite changes that were made by hand on the target.")]
Wait = Annotated[
    bool | None,
    typer.Option(
        "--wait/--no-wait",
        help="Wait until Airflow shows the release; the default when Airflow is configured.",
        show_default=False,
    ),
]
