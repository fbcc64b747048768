"""The entry of `replayctl` and `python -m replayctl`."""

from __future__ import annotations

import gc
from typing import NoReturn


def main() -> NoReturn:
    """Starts the program; ends the process with the command's exit code."""
    # What a start creates stays, so collections find nothing, and take a tenth of its time. `cli` switches them on
    # before a command works.
    gc.disable()
    from replayctl import cli

    try:
        cli.main()
    finally:
        # The interpreter's last collections would go through every module, only for the process to end.
        gc.freeze()


if __name__ == "__main__":
    main()
