"""CPython's pickle in C, without what its import drags along.

``pickle.py`` is the same with regular expressions on top. The module in C asks ``functools`` for ``partial`` alone,
and the rest of that brings ``collections`` and others: more than all else that a fresh worker imports.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle as pickle


def _import() -> None:
    import _functools  # type: ignore[import-not-found]
    import _thread

    # Another thread may be about to import the real one; where there is none, nobody sees the stand-in.
    if "functools" in sys.modules or _thread._count() > 0:
        return
    sys.modules["functools"] = _functools
    try:
        import _pickle  # noqa: F401
    except (ImportError, AttributeError):
        pass  # it wants more than that: then from the real one
    finally:
        del sys.modules["functools"]


if not TYPE_CHECKING:
    if "_pickle" not in sys.modules:
        _import()
    import _pickle as pickle

dumps, loads = pickle.dumps, pickle.loads
