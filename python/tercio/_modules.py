"""What other modules this process has, without importing any of them."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def loaded(name: str) -> Any:
    """The module of that name; None where it isn't imported, or another thread is in the middle of its import.

    ``sys.modules`` has a module from the begin of its import on, when most of its names are still missing.
    """
    module = sys.modules.get(name)
    if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
        return None
    return module
