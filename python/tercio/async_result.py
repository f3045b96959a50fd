"""Results of ``apply_async``."""

from __future__ import annotations

from tercio._core import AsyncResult

__all__ = ["AsyncResult"]
