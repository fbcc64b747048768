"""Unexpected errors of a disk or its permissions, which are not bugs of replayctl."""

from __future__ import annotations

import errno

from replayctl.console.result import Problem
from replayctl.errors import OperationFailed

# Errors that a disk or its permissions may cause in any program.
_KINDS = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE),
        *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE),
    }
)


def trouble_of(error: Exception) -> Problem | None:
    """The error as a problem of this machine; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _KINDS:
        return None
    reason = error.strerror or str(error)
    message = f"cannot use {error.filename}: {reason}" if error.filename else f"the system refused: {reason}"
    return Problem(OperationFailed.code, message)
