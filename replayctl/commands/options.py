"""Options that several commands share, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Shared = Annotated[bool, typer.Option("--shared", help="Work in the common namespace instead of your own.")]
