"""Worker pools started by fork, spawn, forkserver or threading.

Importing this package defines names and does nothing else: workers import it too, so what is heavy is fetched on
first use.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing: that import alone would cost more than this module
if TYPE_CHECKING:
    from tercio._forkserver import set_forkserver_preload as set_forkserver_preload
    from tercio._frozen import freeze_support as freeze_support
    from tercio._log import enable_worker_logging as enable_worker_logging
    from tercio.pool import WorkerPool as WorkerPool
    from tercio.utils import cpu_count as cpu_count
    from tercio.utils import usable_cpu_count as usable_cpu_count

__version__ = "0.1.0"

__all__ = [
    "WorkerPool",
    "cpu_count",
    "enable_worker_logging",
    "freeze_support",
    "set_forkserver_preload",
    "usable_cpu_count",
]

_HOMES = {
    "WorkerPool": "tercio.pool",
    "cpu_count": "tercio.utils",
    "enable_worker_logging": "tercio._log",
    "freeze_support": "tercio._frozen",
    "set_forkserver_preload": "tercio._forkserver",
    "usable_cpu_count": "tercio.utils",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tercio' has no attribute {name!r}")
    import sys

    __import__(home)  # importlib does the same, but until Python 3.9 its own import brings more than this needs
    value: object = getattr(sys.modules[home], name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
