"""Logs of applications on YARN: where they are, how they are read and followed, and what failed in them."""
