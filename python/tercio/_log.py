"""Workers' log records in the parent's handlers."""

from __future__ import annotations


def enable_worker_logging() -> None:
    """Forward the workers' log records and warnings to the parent's handlers.

    Raises
    ------
    NotImplementedError
        Always, for now: the way home for records is not built yet.
    """
    raise NotImplementedError("enable_worker_logging is not implemented yet")
