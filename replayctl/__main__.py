"""`python -m replayctl`."""

from replayctl.cli import main

main()
